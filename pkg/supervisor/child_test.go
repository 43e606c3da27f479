package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/supervisor"
)

// TestMain is also the parent that TestOrphan kills, and the child that says which limits it was given.
func TestMain(m *testing.M) {
	if script := os.Getenv("SUPERVISOR_TEST_CHILD"); script != "" {
		c := shell(script)
		c.Log = supervisor.Through(os.Stdout)
		_ = c.Run(context.Background())
		return
	}
	os.Exit(m.Run())
}

// shell is a child that is a script.
func shell(script string) *supervisor.Child {
	return &supervisor.Child{
		Command: func(context.Context) (*exec.Cmd, error) { return exec.Command("/bin/sh", "-c", script), nil },
		Log:     supervisor.Through(&lines{}), Shortest: time.Millisecond, Longest: 4 * time.Millisecond,
		Grace: 10 * time.Second,
	}
}

// lines is a log that several write to.
type lines struct {
	mu   sync.Mutex
	said []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, p...)
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.said)
}

// await waits for what should take a moment.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("waited in vain for ", what)
		}
	}
}

// run runs a child, and returns what stops it and tells how it ended then.
func run(t *testing.T, c *supervisor.Child) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return stop
}

// runs says whether a process does something still.
func runs(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(raw), ") ")
	return err == nil && !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X")
}

// TestRestart: a child that ends is started again, with longer and longer pauses, and why it ended is told: its status,
// its signal, status 0, a program that is not there, a command that cannot be made.
func TestRestart(t *testing.T) {
	lost := errors.New("no command today")
	for name, c := range map[string]struct {
		command func() (*exec.Cmd, error)
		err     string
	}{
		"status": {func() (*exec.Cmd, error) { return exec.Command("/bin/sh", "-c", "exit 3"), nil }, "exit status 3"},
		"signal": {
			func() (*exec.Cmd, error) { return exec.Command("/bin/sh", "-c", "kill -9 $$"), nil },
			"signal: killed",
		},
		"status 0": {func() (*exec.Cmd, error) { return exec.Command("/bin/true"), nil }, "it exited by itself"},
		"no program": {
			func() (*exec.Cmd, error) { return exec.Command("/no/program"), nil },
			"fork/exec /no/program: no such file or directory",
		},
		"no command": {func() (*exec.Cmd, error) { return nil, lost }, lost.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			deaths := make(chan supervisor.Death, 100)
			child := shell("")
			child.Command = func(context.Context) (*exec.Cmd, error) { return c.command() }
			child.Ended = func(d supervisor.Death) { deaths <- d }
			stop := run(t, child)
			var pauses []time.Duration
			for range 4 {
				d := <-deaths
				if d.Err == nil || d.Err.Error() != c.err {
					t.Errorf("it ended with %v, not %s", d.Err, c.err)
				}
				pauses = append(pauses, d.Again/time.Millisecond)
			}
			if !slices.Equal(pauses, []time.Duration{1, 2, 4, 4}) {
				t.Errorf("the pauses are %v ms", pauses)
			}
			if err := stop(); err != nil && !errors.As(err, new(*exec.ExitError)) {
				t.Error(err)
			}
			if n := child.Failures(); n < 4 || child.Pid() != 0 {
				t.Errorf("%d failures, process %d", n, child.Pid())
			}
		})
	}
}

// TestRunning: what is called beside a child has ended when the child has, or when it is drained.
func TestRunning(t *testing.T) {
	var mu sync.Mutex
	var order []string
	note := func(what string) { mu.Lock(); order = append(order, what); mu.Unlock() }
	c := shell(`exec sleep 1000`)
	c.Running = func(ctx context.Context) {
		note("begun")
		<-ctx.Done()
		note("ended")
	}
	c.Ended = func(d supervisor.Death) { note(d.Err.Error()) }
	c.Drain = func(ended <-chan struct{}) {
		note("drained")
		if !runs(c.Pid()) {
			t.Error("it was ended before it was drained")
		}
		_ = syscall.Kill(c.Pid(), syscall.SIGINT) // it ends while it is drained
		<-ended
	}
	begun := func(times int) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			n := 0
			for _, o := range order {
				if o == "begun" {
					n++
				}
			}
			return n == times
		}
	}
	stop := run(t, c)
	await(t, "the child", begun(1))
	_ = syscall.Kill(c.Pid(), syscall.SIGKILL)
	await(t, "the second child", begun(2))
	if err := stop(); err == nil || err.Error() != "signal: interrupt" {
		t.Errorf("it ended with %v", err)
	}
	if want := []string{"begun", "ended", "signal: killed", "begun", "ended", "drained"}; !slices.Equal(order, want) {
		t.Errorf("in this order: %q", order)
	}
}

// TestStop: a child is asked to end and what it has started is not: that is its own business. A child that does not
// hear is told of, and is killed when it had its time, with all of its group.
func TestStop(t *testing.T) {
	const beside = `sh -c 'trap "echo asked" TERM; while :; do sleep 0.05; done' & echo "pid $! "; `
	for name, c := range map[string]struct {
		script, err string
		grace       time.Duration
		late        bool
	}{
		"hears": {beside + `trap "echo bye; exit 0" TERM; while :; do sleep 0.05; done`, "", 10 * time.Second, false},
		"deaf": {beside + `trap "" TERM; while :; do sleep 0.05; done`, "signal: killed", supervisor.Patience +
			time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			child := shell(c.script)
			path := filepath.Join(t.TempDir(), "log")
			child.Log, child.Grace = supervisor.ToFile(path), c.grace
			var late []time.Duration
			child.Late = func(left time.Duration) { late = append(late, left) }
			stop := run(t, child)
			await(t, "the child's child", func() bool {
				return child.Pid() != 0 &&
					strings.Contains(string(child.Log.Tail()), "pid ")
			})
			line, _, _ := strings.Cut(string(child.Log.Tail()), " \n")
			other, err := strconv.Atoi(strings.TrimPrefix(line, "pid "))
			if err != nil || !runs(other) || !runs(child.Pid()) {
				t.Fatalf("the child says %q (%v)", line, err)
			}
			begun := time.Now()
			if err := stop(); fmt.Sprint(err) != c.err && (err != nil || c.err != "") {
				t.Errorf("it ended with %v, not %q", err, c.err)
			}
			if took := time.Since(begun); c.late && took < c.grace {
				t.Errorf("it had %v, not %v", took, c.grace)
			}
			// what is left, and that it is killed
			told := len(late) == 2 && late[0] > 0 && late[0] <= time.Second && late[1] == 0
			if told != c.late || !told && len(late) > 0 {
				t.Errorf("told of %v", late)
			}
			if said := string(child.Log.Tail()); strings.Contains(said, "asked") {
				t.Errorf("the child's child got the signal: %q", said)
			}
			await(t, "the end of the child's child", func() bool { return !runs(other) })
		})
	}
}

// TestLeftBehind: what a child leaves in its group does not outlive it, and what is a daemon does, without keeping the
// child's end from being seen.
func TestLeftBehind(t *testing.T) {
	out := &lines{}
	c := shell(`sleep 1000 & echo "group $!" >&2; setsid sh -c 'echo "daemon $$" >&2; exec sleep 1000' & 
		while ! [ -e "$READY" ]; do sleep 0.01; done; exit 3`)
	ready := filepath.Join(t.TempDir(), "ready")
	t.Setenv("READY", ready)
	c.Log, c.Shortest, c.Longest = supervisor.Through(out), time.Hour, time.Hour
	deaths := make(chan supervisor.Death, 1)
	c.Ended = func(d supervisor.Death) { deaths <- d }
	run(t, c)
	pid := func(of string) (pid int) {
		for line := range strings.Lines(out.String()) {
			if _, err := fmt.Sscanf(line, of+" %d\n", &pid); err == nil {
				return pid
			}
		}
		return 0
	}
	await(t, "both", func() bool { return pid("group") != 0 && pid("daemon") != 0 })
	t.Cleanup(func() { _ = syscall.Kill(pid("daemon"), syscall.SIGKILL) })
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if d := <-deaths; d.Err.Error() != "exit status 3" {
		t.Error(d.Err)
	}
	await(t, "the end of what is in the group", func() bool { return !runs(pid("group")) })
	if !runs(pid("daemon")) {
		t.Error("the daemon has ended")
	}
}

// TestOrphan: a child is killed with its parent, whatever it thinks of SIGTERM; and it has a process group of its own.
func TestOrphan(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), `SUPERVISOR_TEST_CHILD=trap "" TERM INT HUP; echo "pid $$ "; while :; do `+
		`sleep 0.05; done`)
	out := &lines{}
	parent.Stdout, parent.WaitDelay = out, time.Second
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = parent.Process.Kill() })
	pid := 0
	await(t, "the child", func() bool { _, err := fmt.Sscanf(out.String(), "pid %d ", &pid); return err == nil })
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("its group is %d (%v), not its own", group, err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	await(t, "the child's end", func() bool { return !runs(pid) })
}
