package bpf

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFindPinDir asks in a mount namespace of its own, twice at once: only one of the two mounts.
func TestFindPinDir(t *testing.T) {
	if os.Getenv("BPF_FIND_PIN_DIR") != "" {
		p, err := FindPinDir("")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("found %s mounted %q", p.Dir, p.Mounted)
		return
	}
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-ec", `
		while mountpoint -q /sys/fs/bpf; do umount -l /sys/fs/bpf; done
		for i in 1 2 3 4 5 6 7 8; do "$0" -test.v -test.run='^TestFindPinDir$' & done
		wait
		grep -c ' /sys/fs/bpf bpf ' /proc/mounts`, os.Args[0])
	cmd.Env = append(os.Environ(), "BPF_FIND_PIN_DIR=1")
	raw, err := cmd.CombinedOutput()
	out := string(raw)
	if err != nil || !strings.HasSuffix(out, "\n1\n") {
		t.Errorf("not one file system is mounted: %v\n%s", err, out)
	}
	if n := strings.Count(out, "found "+defaultPinDir+` mounted "/sys/fs/bpf"`); n != 1 {
		t.Errorf("%d of eight have mounted it\n%s", n, out)
	}
	if n := strings.Count(out, "found "+defaultPinDir+` mounted ""`); n != 7 {
		t.Errorf("%d of eight found it mounted\n%s", n, out)
	}
}

// TestForgottenPins: an agent with another directory says whose the program is that it finds, and what to do.
func TestForgottenPins(t *testing.T) {
	server, client := newNamespace(t), newNamespace(t)
	pair(t, server, client)
	forgotten := pinDir(t)
	first, err := Open(Options{PinDir: forgotten})
	if err != nil {
		t.Fatal(err)
	}
	server.do(t, func() {
		if _, err := first.Attach("in", Native); err != nil {
			t.Error(err)
		}
	})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, Options{PinDir: pinDir(t)})
	server.do(t, func() {
		_, err := second.Attach("in", Native)
		if !errors.Is(err, ErrOccupied) || !strings.Contains(err.Error(), "set XDP_PIN_DIR to that, or rm -r "+
			forgotten+")") {
			t.Errorf("beside forgotten pins: %v", err)
		}
	})
	if err := os.RemoveAll(forgotten); err != nil {
		t.Fatal(err)
	}
	server.do(t, func() {
		limit, tick := time.After(10*time.Second), time.NewTicker(5*time.Millisecond)
		defer tick.Stop()
		for { // the kernel lets go of a pinned link some time after its file is removed
			_, err := second.Attach("in", Native)
			if err == nil {
				return
			}
			select {
			case <-tick.C:
			case <-limit:
				t.Errorf("after the remedy: %v", err)
				return
			}
		}
	})
}

// TestPinDirOfOthers: a directory that an operator asks for is not mounted over.
func TestPinDirOfOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pins")
	_, err := FindPinDir(dir)
	if !errors.Is(err, ErrNoBPFFS) || !strings.Contains(err.Error(), "mount -t bpf bpf "+filepath.Dir(dir)) {
		t.Errorf("outside of a BPF file system: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was made all the same: %v", err)
	}
	on := pinDir(t)
	if p, err := FindPinDir(on); err != nil || p != (PinPlace{Dir: on}) {
		t.Errorf("on one: %+v %v", p, err)
	}
	if err := unix.Mount("", filepath.Dir(on), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := FindPinDir(on); err == nil || !strings.Contains(err.Error(), "cannot be written: read-only file system") {
		t.Errorf("on one that is read only: %v", err)
	}
}
