package process_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/process"
)

// TestPrivate: what another user has prepared where a directory or file is to be is not used, and nothing of this
// user's is written through it.
func TestPrivate(t *testing.T) {
	place := t.TempDir()
	dir := filepath.Join(place, "run", "marchproxy")
	for range 2 {
		if err := process.PrivateDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	mode := func(path string) os.FileMode {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode()
	}
	if got := mode(dir); got.Perm() != 0o700 {
		t.Errorf("%v", got)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := process.PrivateDir(dir); err != nil || mode(dir).Perm() != 0o700 {
		t.Errorf("a directory that was open: %v %v", err, mode(dir))
	}

	victim := filepath.Join(place, "shadow")
	if err := os.WriteFile(victim, []byte("root's"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "envoy.json")
	if err := os.Symlink(victim, file); err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0)
	err := process.WritePrivate(file, []byte("secret"))
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(victim); err != nil || string(raw) != "root's" {
		t.Errorf("a file was written through a link: %q %v", raw, err)
	}
	if raw, err := os.ReadFile(file); err != nil || string(raw) != "secret" || mode(file) != 0o600 {
		t.Errorf("%q %v %v", raw, err, mode(file))
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v %v", entries, err)
	}

	link := filepath.Join(place, "link")
	if err := os.Symlink(place, link); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(place, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(place, "foreign")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(foreign, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	} else {
		foreign = "/proc"
	}
	for _, bad := range []string{link, plain, foreign} {
		if err := process.PrivateDir(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
