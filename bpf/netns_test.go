package bpf

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace of the test's own.
type namespace string

var namespaces atomic.Uint32

func newNamespace(t testing.TB) namespace {
	t.Helper()
	ns := namespace(fmt.Sprintf("mp-%d-%d", os.Getpid(), namespaces.Add(1)))
	command(t, "ip", "netns", "add", string(ns))
	t.Cleanup(func() { command(t, "ip", "netns", "del", string(ns)) })
	ns.ip(t, "link set lo up")
	return ns
}

// ip runs ip(8) inside; args are split at spaces.
func (ns namespace) ip(t testing.TB, args string) string {
	t.Helper()
	return command(t, "ip", append([]string{"-n", string(ns)}, strings.Fields(args)...)...)
}

// start calls f on a thread inside. f must not start goroutines that need the namespace too.
func (ns namespace) start(f func()) <-chan error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nobody gets one in the wrong namespace.
		runtime.LockOSThread()
		fd, err := os.Open("/run/netns/" + string(ns))
		if err == nil {
			defer fd.Close()
			err = unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	return done
}

// do is start, waited for.
func (ns namespace) do(t testing.TB, f func()) {
	t.Helper()
	if err := <-ns.start(f); err != nil {
		t.Fatalf("enter %s: %v", ns, err)
	}
}

// pair joins two namespaces by veth: "in" 10.9.0.1 and fd09::1 in server, "out" 10.9.0.2 and fd09::2 in client.
func pair(t testing.TB, server, client namespace) {
	t.Helper()
	server.ip(t, "link add in type veth peer name out netns "+string(client))
	server.ip(t, "addr add 10.9.0.1/16 dev in")
	client.ip(t, "addr add 10.9.0.2/16 dev out")
	server.ip(t, "-6 addr add fd09::1/64 dev in nodad")
	client.ip(t, "-6 addr add fd09::2/64 dev out nodad")
	server.ip(t, "link set in up")
	client.ip(t, "link set out up")
}

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// pinDir is a fresh directory on a BPF file system that is mounted for the test.
func pinDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir + "/marchproxy"
}

func open(t testing.TB, opts Options) *Program {
	t.Helper()
	p, err := Open(opts)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func apply(t testing.TB, p *Program, r Ruleset) {
	t.Helper()
	if err := p.Apply(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func stats(t testing.TB, p *Program) Stats {
	t.Helper()
	s, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s
}
