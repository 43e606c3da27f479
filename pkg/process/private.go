package process

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// PrivateDir makes a directory that this process's user alone can enter, and those above it. One that is there already
// must be this user's own: in a place where others write, they may have made it first, or a link to somewhere else.
func PrivateDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	// Looked at by itself and not by its name, which somebody could give to another one meanwhile.
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("%s is not a directory but something else; remove it, or name another place", dir)
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user; remove it, or name another place", dir)
	}
	if info.Mode().Perm() != 0o700 {
		return f.Chmod(0o700)
	}
	return nil
}

// WritePrivate is [Replace] for a file in a directory of [PrivateDir], readable for this user alone.
func WritePrivate(path string, raw []byte) error { return Replace(path, raw, 0o600) }

// Replace puts a file of a mode in its place in one step: who reads it meanwhile, or is killed over it, has the file
// before or this one. What somebody else has put there, a link included, is replaced and not written through.
func Replace(path string, raw []byte, mode os.FileMode) (err error) {
	next := path + "." + rand.Text()[:8] + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(next) // it takes the room that may be missing
		}
	}()
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return err
	}
	return os.Rename(next, path)
}
