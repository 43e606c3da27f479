package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// tokenFile holds the token of the role admin, for dev's own user alone.
const tokenFile = "token"

// loadToken makes dev's token on the first run.
func (s *system) loadToken() error {
	var err error
	if s.token, err = readToken(s.tokenPath()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.token = "mp_" + random()
	return replace(s.tokenPath(), []byte(s.token+"\n"))
}

func (s *system) tokenPath() string { return filepath.Join(s.StateDir, tokenFile) }

// readToken refuses a file that others could have read or written.
func readToken(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // read only
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.Mode().IsRegular() || int(st.Uid) != os.Geteuid() ||
		info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s is not a file of this user's alone (mode 0600); remove it, and the next marchproxy dev "+
			"makes another token", path)
	}
	raw := make([]byte, 1<<10)
	n, err := f.Read(raw)
	if err != nil || n == len(raw) || len(strings.TrimSpace(string(raw[:n]))) < 32 {
		return "", fmt.Errorf("%s holds no token; remove it, and the next marchproxy dev makes another one", path)
	}
	return strings.TrimSpace(string(raw[:n])), nil
}

// Token is that of the dev which serves an api at this address now, from the usual state directory; "" where there is
// none. It is given to nobody else: a dev that has ended leaves its port to anybody.
func Token(api string) string {
	dir := stateDir()
	u, err := url.Parse(api)
	if err != nil || !locked(dir) {
		return ""
	}
	raw, err := os.ReadFile(filepath.Join(dir, runFile))
	if err != nil {
		return ""
	}
	var r shown
	if json.Unmarshal(raw, &r) != nil {
		return ""
	}
	own, err := url.Parse(r.URLs["api"])
	ip, ipErr := netip.ParseAddr(u.Hostname())
	if err != nil || u.Port() != own.Port() || u.Hostname() != "localhost" && (ipErr != nil || !ip.IsLoopback()) {
		return ""
	}
	token, err := readToken(filepath.Join(dir, tokenFile))
	if err != nil {
		return "" // and the api says that a token is needed
	}
	return token
}

// locked says whether a dev has the state directory, which it locks.
func locked(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // which gives the lock back
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}
