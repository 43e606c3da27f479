package nomad

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// word is the first argument of this program where it is to become a task; the second is a file with its [box].
const word = "become"

func TestMain(m *testing.M) {
	unix.Umask(0o022) // as Docker has it: a stricter one would keep the images' users from their programs
	if len(os.Args) == 3 && os.Args[1] == word {
		err := become(os.Args[2])
		fmt.Fprintln(os.Stderr, "start the task:", err) // it has not become it
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// box is what a container is to a task: its files, its network, its user and what that one may do.
type box struct {
	// Namespace of the node's network, and Root, an empty directory that becomes /.
	Namespace, Root string
	// Binds are directories and files of this machine by their place in the container; read only where the mark is set.
	Binds []bind
	// Tmpfs by their place.
	Tmpfs []mount
	// BPF is where the node's BPF file system is; none where empty.
	BPF string
	// UID is the image's user.
	UID int
	// Capabilities, by number, are what remains of root.
	Capabilities []int
	Command      []string
	Env          []string
}

type bind struct {
	From, To string
	ReadOnly bool
}

// become makes this process a task; it returns where that fails. What the kernel keeps for each thread is done on the one
// that goes on.
func become(spec string) error {
	var b box
	raw, err := os.ReadFile(spec)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &b); err != nil {
		return err
	}
	runtime.LockOSThread()
	ns, err := os.Open("/run/netns/" + b.Namespace)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET), unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
		return fmt.Errorf("namespaces: %w", err)
	}
	if err := b.mount(); err != nil {
		return err
	}
	if err := errors.Join(unix.Chroot(b.Root), unix.Chdir("/")); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := b.confine(); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", b.Command[0], syscall.Exec(b.Command[0], b.Command, b.Env))
}

func (b box) mount() error {
	if err := unix.Mount("root", b.Root, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("root: %w", err)
	}
	at := func(to string) string { return filepath.Join(b.Root, to) }
	for _, x := range b.Binds {
		info, err := os.Stat(x.From)
		if err != nil {
			return err
		}
		if info.IsDir() {
			err = os.MkdirAll(at(x.To), 0o755)
		} else if err = os.MkdirAll(filepath.Dir(at(x.To)), 0o755); err == nil {
			err = touch(at(x.To))
		}
		if err == nil {
			err = unix.Mount(x.From, at(x.To), "", unix.MS_BIND, "")
		}
		if err == nil && x.ReadOnly {
			err = unix.Mount("", at(x.To), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
		if err != nil {
			return fmt.Errorf("%s at %s: %w", x.From, x.To, err)
		}
	}
	for _, x := range b.Tmpfs {
		mode := uint32(0o1777)
		options := ""
		for _, o := range x.Options {
			options = fmt.Sprintf(",size=%d", o.Size)
			if o.Mode != 0 {
				mode = o.Mode
			}
		}
		if err := errors.Join(os.MkdirAll(at(x.Target), 0o755),
			unix.Mount("tmpfs", at(x.Target), "tmpfs", 0, fmt.Sprintf("mode=%o%s", mode, options))); err != nil {
			return fmt.Errorf("%s: %w", x.Target, err)
		}
	}
	if err := errors.Join(os.MkdirAll(at("proc"), 0o755), os.MkdirAll(at("dev"), 0o755),
		unix.Mount("proc", at("proc"), "proc", 0, ""), unix.Mount("/dev", at("dev"), "", unix.MS_BIND, "")); err != nil {
		return fmt.Errorf("proc and dev: %w", err)
	}
	if b.BPF != "" {
		if err := errors.Join(os.MkdirAll(at("sys"), 0o755), unix.Mount("sysfs", at("sys"), "sysfs", 0, ""),
			unix.Mount(b.BPF, at("sys/fs/bpf"), "", unix.MS_BIND, "")); err != nil {
			return fmt.Errorf("sys: %w", err)
		}
	}
	return unix.Mount("", b.Root, "", unix.MS_REMOUNT|unix.MS_RDONLY, "mode=0755") // readonly_rootfs
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// confine gives up what the task is not given, for good.
func (b box) confine() error {
	keep := map[int]bool{}
	for _, c := range b.Capabilities {
		keep[c] = true
	}
	for c := range unix.CAP_LAST_CAP + 1 {
		if keep[c] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if b.UID == 0 {
		return nil // the kernel gives root what the bounding set has left, at the exec
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(b.UID), syscall.Setuid(b.UID))
}

// capabilities by the name that Docker gives them.
var capabilities = map[string]int{
	"bpf": unix.CAP_BPF, "net_admin": unix.CAP_NET_ADMIN, "net_bind_service": unix.CAP_NET_BIND_SERVICE,
	"perfmon": unix.CAP_PERFMON,
}

// numbers of capabilities, of which each must be known here.
func numbers(t testing.TB, names []string) (out []int) {
	t.Helper()
	for _, n := range names {
		c, known := capabilities[strings.ToLower(n)]
		if !known {
			t.Fatalf("the capability %s is not known here", n)
		}
		out = append(out, c)
	}
	return out
}
