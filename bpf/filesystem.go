package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Where the BPF file system is: the usual place is that of every tool, and the own one is for machines and
// containers where that one cannot be used.
const (
	usualPlace = "/sys/fs/bpf"
	ownPlace   = "/run/marchproxy/bpffs"
	// defaultPinDir is where an agent keeps maps and links between its lives.
	defaultPinDir = usualPlace + "/marchproxy"
	ownPinDir     = ownPlace + "/marchproxy"
)

// PinPlace is a directory for [Options.PinDir].
type PinPlace struct {
	Dir string
	// Mounted is where a BPF file system was mounted for it just now; "" where there was one.
	Mounted string
	// Warning is a sentence about what an operator would not expect; "" where all is as usual.
	Warning string
}

// FindPinDir says where to pin. Where nothing is mounted at /sys/fs/bpf, as on a machine without systemd, it mounts
// a BPF file system there. asked is the operator's choice, which is taken or refused; where it is "", the directory
// is /sys/fs/bpf/marchproxy, or one on a file system below /run/marchproxy where something else holds the usual place
// or it cannot be written, as in many containers.
//
// Errors: [*Error], mostly around [ErrNoBPFFS], which says who has to mount what.
func FindPinDir(asked string) (PinPlace, error) {
	if asked != "" {
		return preparePinDir(asked)
	}
	// An earlier life may have had to go there: its program is on the interface as long as its pins are.
	if info, err := os.Stat(ownPinDir); err == nil && info.IsDir() && isBPFFS(ownPinDir) {
		return PinPlace{Dir: ownPinDir, Warning: "the program is pinned in " + ownPinDir + ", where an earlier agent put " +
			"it; stop the agent and " +
			"umount " + ownPlace + " to go back to " + defaultPinDir}, nil
	}
	p, usual := preparePinDir(defaultPinDir)
	if usual == nil {
		return p, nil
	}
	mounted, err := mountBPFFS(ownPlace)
	if err == nil {
		err = makePinDir(ownPinDir)
	}
	if err != nil && !isMountPoint(usualPlace) {
		return p, usual // that is the place to see to
	}
	if err != nil {
		return p, &Error{
			Op: "pin", On: defaultPinDir, Err: fmt.Errorf("%w, and %s cannot have one: %w", cause(usual), ownPlace, err),
			Hint: "root must run: mount -t bpf bpf " + ownPlace + "; a container must get the host's by -v " + usualPlace +
				":" + usualPlace,
		}
	}
	p = PinPlace{Dir: ownPinDir, Warning: "the program is pinned in " + ownPinDir + ", not in " + defaultPinDir + ": " +
		cause(usual).Error()}
	if mounted {
		p.Mounted = ownPlace
		p.Warning += private()
	}
	return p, nil
}

// cause is an error without what it happened on and what its reader has to do.
func cause(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// preparePinDir makes the directory, and the file system that it needs where that is the usual one.
func preparePinDir(dir string) (PinPlace, error) {
	p := PinPlace{Dir: filepath.Clean(dir)}
	if !strings.HasPrefix(p.Dir+"/", usualPlace+"/") {
		return p, makePinDir(p.Dir)
	}
	if !isMountPoint(usualPlace) {
		mounted, err := mountBPFFS(usualPlace)
		if err != nil {
			return p, &Error{
				Op: "pin", On: p.Dir, Err: fmt.Errorf("%w: nothing is mounted at %s, and this process cannot do it: %w", ErrNoBPFFS,
					usualPlace, err),
				Hint: "root must run: mount -t bpf bpf " + usualPlace + "; a container must get the host's by -v " + usualPlace +
					":" + usualPlace,
			}
		}
		if mounted {
			p.Mounted = usualPlace
			if other := private(); other != "" {
				p.Warning = "the program is pinned in " + p.Dir + other
			}
		}
	}
	return p, makePinDir(p.Dir)
}

// makePinDir makes a directory on a BPF file system and sees that it can be written.
func makePinDir(dir string) error {
	there := dir
	for there != "/" {
		if _, err := os.Stat(there); err == nil {
			break
		}
		there = filepath.Dir(there)
	}
	if !isBPFFS(there) {
		hint := "mount one before the agent starts, as root: mount -t bpf bpf " + there + "; or leave XDP_PIN_DIR unset, " +
			"so that the agent does"
		return &Error{Op: "pin", On: dir, Err: fmt.Errorf("%w: %s is a %s", ErrNoBPFFS, there, fileSystem(there)), Hint: hint}
	}
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = unix.Access(dir, unix.W_OK|unix.X_OK)
	}
	if err != nil {
		return &Error{
			Op: "pin", On: dir, Err: fmt.Errorf("the BPF file system cannot be written: %w", err),
			Hint: "run as root, and where it is mounted read-only: mount -o remount,rw " + there +
				"; or leave XDP_PIN_DIR unset",
		}
	}
	return nil
}

// mountBPFFS mounts one where nobody has, with the options of systemd. Of two processes that ask at once only
// one does: a second file system on top would hide what is pinned in the first.
func mountBPFFS(at string) (done bool, err error) {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return false, err
	}
	dir, err := os.Open(at)
	if err != nil {
		return false, err
	}
	defer dir.Close() // and with it goes the lock
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return false, fmt.Errorf("lock %s: %w", at, err)
	}
	if isMountPoint(at) {
		return false, nil
	}
	err = unix.Mount("bpf", at, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RELATIME, "mode=0700")
	if errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("mounting takes CAP_SYS_ADMIN: %w", err)
	}
	return err == nil, err
}

func isMountPoint(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, 0, 0, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

func isBPFFS(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.BPF_FS_MAGIC
}

// fileSystem is the kind of file system that a path is on, as /proc/mounts calls it.
func fileSystem(path string) string {
	raw, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "directory of another kind"
	}
	kind, longest := "directory of another kind", 0
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) < longest || !strings.HasPrefix(path+"/", strings.TrimSuffix(f[1], "/")+"/") {
			continue
		}
		kind, longest = f[2], len(f[1]) // of two at one place the later is on top
	}
	return kind
}

// bpfMounts are the BPF file systems of this mount namespace.
func bpfMounts() []string {
	raw, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) >= 3 && f[2] == "bpf" {
			out = append(out, f[1])
		}
	}
	return out
}

// The machine's own namespaces: their numbers are the kernel's (PROC_PID_INIT_INO, MNT_NS_INIT_INO), except that
// kernels before 6.17 number the mounts' when they start.
const firstPIDs = "pid:[4026531836]"

var firstMounts = []string{"mnt:[4026531832]", "mnt:[4026531840]", "mnt:[4026531841]"}

// private is what to say of a mount that this process has made in a mount namespace of its own, such as a
// container's: what is pinned there ends with the namespace. "" where it is the machine's.
func private() string {
	pids, err := os.Readlink("/proc/self/ns/pid")
	mine, err2 := os.Readlink("/proc/self/ns/mnt")
	if err != nil || err2 != nil {
		return ""
	}
	if pids == firstPIDs {
		first, err := os.Readlink("/proc/1/ns/mnt")
		if first == mine || err != nil && slices.Contains(firstMounts, mine) {
			return ""
		}
	}
	return ", on a file system of this container's own: packets are not limited any more when the container ends; " +
		"give it the host's by -v " + usualPlace + ":" + usualPlace + " for the program to outlive it"
}
