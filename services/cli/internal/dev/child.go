package dev

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// child is one process that is kept running.
type child struct {
	name string
	// make returns a new command each time; nil arguments are those of this program.
	make func() *exec.Cmd
	// ready answers nil when the child serves.
	ready func(context.Context) error
	// why says what it waits for while it is not ready; nil where the error of ready says all.
	why func(context.Context) string
	// beside says that it needs nothing of the child before it, and starts together with it: with much configuration
	// each reads for seconds.
	beside bool
	// grace is how long it may take to end once it was asked to, before it is killed; ten seconds where it is 0.
	grace time.Duration

	mu  sync.Mutex
	pid int
	// logged is how much was in its log when it was started last, in bytes.
	logged int64
	// failures is how often it has ended by itself since it began.
	failures int
	done     chan struct{}
}

// start runs the child until the context ends, again and again.
func (c *child) start(ctx context.Context, logs string, say func(string), changed func()) {
	c.done = make(chan struct{})
	go func() {
		defer close(c.done)
		said := "" // a child that cannot start says the same each time
		for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
			began := time.Now()
			err := c.once(ctx, logs, say, changed)
			if ctx.Err() != nil {
				return
			}
			if time.Since(began) > 10*time.Second {
				pause, said = 50*time.Millisecond, ""
			}
			c.failed()
			if line := fmt.Sprintf("%s ended (%v); starting it again. Its log: %s%s", c.name, err, c.log(logs), c.lastWords(logs)); line != said {
				say(line)
				said = line
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
		}
	}()
}

func (c *child) once(ctx context.Context, logs string, say func(string), changed func()) error {
	cmd := c.make()
	log, err := os.OpenFile(c.log(logs), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own
	if info, err := log.Stat(); err == nil {
		c.mu.Lock()
		c.logged = info.Size()
		c.mu.Unlock()
	}
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // Ctrl-C is for dev, which stops its children in order
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	exited := make(chan error, 1)
	started := make(chan error, 1)
	go func() {
		// The kernel's death signal is tied to the thread that starts the child.
		lockThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			exited <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	c.setPid(cmd.Process.Pid)
	changed()
	defer c.setPid(0)
	select {
	case err := <-exited:
		return err
	case <-ctx.Done():
	}
	return c.end(cmd.Process, exited, say)
}

// end asks a process to end, and kills it where it had its time. What takes long is said.
func (c *child) end(process *os.Process, exited <-chan error, say func(string)) error {
	grace := cmp.Or(c.grace, 10*time.Second)
	_ = process.Signal(syscall.SIGTERM) // it may have ended by itself
	begun := time.Now()
	limit := time.After(grace)
	wonder := time.NewTimer(patience)
	defer wonder.Stop()
	for {
		select {
		case err := <-exited:
			return err
		case <-wonder.C:
			left := max(grace-time.Since(begun), 0).Round(time.Second)
			say(fmt.Sprintf("stopping: waiting for %s to end; it is killed in %v", c.name, left))
		case <-limit:
			say(fmt.Sprintf("stopping: %s did not end within %v and is killed", c.name, grace))
			_ = process.Kill()
			return <-exited
		}
	}
}

func (c *child) setPid(pid int) {
	c.mu.Lock()
	c.pid = pid
	c.mu.Unlock()
}

func (c *child) getPid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}

func (c *child) failed() {
	c.mu.Lock()
	c.failures++
	c.mu.Unlock()
}

func (c *child) hopeless() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failures >= maxFailures
}

func (c *child) log(dir string) string { return filepath.Join(dir, c.name+".log") }

// lastWords is the last line of a child's log, which mostly says why it ended.
func (c *child) lastWords(logs string) string {
	raw, err := os.ReadFile(c.log(logs))
	if err != nil {
		return ""
	}
	raw = bytes.TrimSpace(raw[max(0, len(raw)-4096):])
	if line := raw[bytes.LastIndexByte(raw, '\n')+1:]; len(line) > 0 {
		return "\n    " + string(line)
	}
	return ""
}

const (
	// maxFailures is how often a child may end, some seconds in all, before its start is given up: a
	// database that was killed needs several attempts, a wrong setting will need all of them.
	maxFailures = 8
	// startLimit is for a slow network: on its first run PostgreSQL is fetched.
	startLimit = 5 * time.Minute
	// patience is how long nobody wonders what is going on, and again how long until it is said again.
	patience = 3 * time.Second
	again    = 10 * time.Second
)

// await asks until the child serves.
func (c *child) await(ctx context.Context, logs string, say func(string)) error {
	limit, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	wonder := time.NewTimer(patience)
	defer wonder.Stop()
	reason := ""
	for {
		soon, cancel := context.WithTimeout(limit, patience) // one that does not answer is to be said as well
		err := c.ready(soon)
		cancel()
		if err == nil {
			return nil
		}
		if c.hopeless() {
			return fmt.Errorf("%s does not start; its log: %s%s", c.name, c.log(logs), c.lastWords(logs))
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-wonder.C:
			reason = err.Error()
			if c.why != nil {
				soon, cancel := context.WithTimeout(limit, 2*time.Second)
				reason = c.why(soon)
				cancel()
			}
			if limit.Err() == nil {
				say("waiting for " + c.name + ": " + reason)
			}
			wonder.Reset(again)
		case <-limit.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("%s does not get ready: %s\n  Its log: %s", c.name, reason, c.log(logs))
		}
	}
}
