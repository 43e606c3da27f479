package supervisor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Steady is how long a child has run when its next end is not counted to its failures before: the pause begins anew.
	Steady = 10 * time.Second
	// Patience is after how much of the grace it is told that a child has not ended yet.
	Patience = 3 * time.Second
	// closing is how long what a child has left behind may keep the pipe of its log open.
	closing = time.Second
)

// Child is a process that is kept running. Its fields are set before [Child.Run], and not changed.
type Child struct {
	// Command makes the command of the next start. An error counts as a start that failed. The standard output and error
	// of the command are set by Log.
	Command func(context.Context) (*exec.Cmd, error)
	// Log takes what the child writes.
	Log *Log
	// Shortest and Longest are of the pause before the child is started again.
	Shortest, Longest time.Duration
	// Grace is how long the child may take to end after SIGTERM.
	Grace time.Duration

	// Running, if there, is called beside a child that was started. Its context ends when the child has ended or is to be
	// stopped; what comes then waits for its return.
	Running func(context.Context)
	// Ended, if there, is called when a child has ended by itself or could not be started.
	Ended func(Death)
	// Drain, if there, is called before SIGTERM, and decides itself how long it takes; the channel is closed when the
	// child has ended meanwhile.
	Drain func(ended <-chan struct{})
	// Late, if there, is called when a child that got SIGTERM has not ended after [Patience], with what is left of the
	// grace; and again when it is killed, with 0.
	Late func(left time.Duration)

	mu       sync.Mutex
	pid      int
	failures int
}

// Death is the end of a child that nobody asked to end.
type Death struct {
	// Err says why; it is not nil, as a child should not end with status 0 either.
	Err error
	// Ran is how long the child ran, and Again how long it is until it is started again.
	Ran, Again time.Duration
}

// Pid is the child's process; 0 while there is none.
func (c *Child) Pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}

// Failures is how often the child has ended by itself or could not be started.
func (c *Child) Failures() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failures
}

// Run keeps the child running until the context ends, and then stops it. It returns how that one has ended: nil for
// status 0, or where none was running.
func (c *Child) Run(ctx context.Context) error {
	for pause := c.Shortest; ; pause = min(2*pause, c.Longest) {
		began := time.Now()
		stopped, err := c.once(ctx)
		if stopped {
			return err
		}
		ran := time.Since(began)
		if ran > Steady {
			pause = c.Shortest
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was not to be started any more
		}
		c.mu.Lock()
		c.failures++
		c.mu.Unlock()
		if c.Ended != nil {
			c.Ended(Death{err, ran, pause})
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// process is a child that was started.
type process struct {
	*os.Process
	// ended is closed when it has, and is reaped; how is set then.
	ended chan struct{}
	how   error
}

// once runs the child to its end, and says whether it was stopped because the context has ended.
func (c *Child) once(ctx context.Context) (stopped bool, err error) {
	p, err := c.start(ctx)
	if err != nil {
		return false, err
	}
	c.setPid(p.Pid)
	defer c.setPid(0)
	beside, end := context.WithCancel(ctx)
	defer end()
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		if c.Running != nil {
			c.Running(beside)
		}
	}()
	select {
	case <-p.ended:
		end()
		<-returned
		if p.how == nil {
			return false, errors.New("it exited by itself")
		}
		return false, p.how
	case <-ctx.Done():
	}
	<-returned
	if c.Drain != nil {
		c.Drain(p.ended)
	}
	c.stop(p)
	return true, p.how
}

func (c *Child) setPid(pid int) {
	c.mu.Lock()
	c.pid = pid
	c.mu.Unlock()
}

func (c *Child) start(ctx context.Context) (*process, error) {
	shut, stdout, stderr, err := c.Log.begin()
	if err != nil {
		return nil, err
	}
	defer shut() // the child has its own
	cmd, err := c.Command(ctx)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = stdout, stderr, closing
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	started := make(chan error, 1)
	p := &process{ended: make(chan struct{})}
	go func() {
		// The kernel sends the death signal when the thread ends that has started the child. This one is the goroutine's own,
		// and ends with it.
		runtime.LockOSThread()
		err := cmd.Start()
		if err == nil {
			p.Process = cmd.Process
		}
		started <- err
		if err != nil {
			return
		}
		exited(p.Pid)
		_ = syscall.Kill(-p.Pid, syscall.SIGKILL) // none is left in the group, mostly
		if p.how = cmd.Wait(); errors.Is(p.how, exec.ErrWaitDelay) {
			p.how = nil // a daemon that it has started has its log
		}
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// exited waits for a child's end and does not reap it: as long as it is there, its number and its group's are nobody
// else's, and the group can be killed.
func exited(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return // an error is told by who reaps it
		}
	}
}

// stop asks a process to end, and kills it where it had its time.
func (c *Child) stop(p *process) {
	late := func(left time.Duration) {
		if c.Late != nil {
			c.Late(left)
		}
	}
	_ = p.Signal(syscall.SIGTERM) // it may have ended by itself
	begun := time.Now()
	limit, patience := time.NewTimer(c.Grace), time.NewTimer(Patience)
	defer limit.Stop()
	defer patience.Stop()
	for {
		select {
		case <-p.ended:
			return
		case <-patience.C:
			if left := c.Grace - time.Since(begun); left > 0 {
				late(left)
			}
		case <-limit.C:
			late(0)
			_ = p.Kill() // and its group as soon as it has ended
			<-p.ended
			return
		}
	}
}
