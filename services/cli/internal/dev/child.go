package dev

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/marchproxy/marchproxy/pkg/supervisor"
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

	supervisor supervisor.Child
	// done is closed when the child was stopped.
	done chan struct{}
}

// start runs the child until the context ends, again and again.
func (c *child) start(ctx context.Context, logs string, say func(string), changed func()) {
	grace := cmp.Or(c.grace, 10*time.Second)
	said := "" // a child that cannot start says the same each time
	p := &c.supervisor
	p.Command = func(context.Context) (*exec.Cmd, error) { return c.make(), nil }
	p.Log, p.Shortest, p.Longest, p.Grace = supervisor.ToFile(c.log(logs)), 50*time.Millisecond, 2*time.Second, grace
	p.Running = func(context.Context) { changed() }
	p.Ended = func(d supervisor.Death) {
		if d.Ran > supervisor.Steady {
			said = ""
		}
		if line := fmt.Sprintf("%s ended (%v); starting it again. Its log: %s", c.name, d.Err,
			c.lastWords(logs)); line != said {
			say(line)
			said = line
		}
	}
	p.Late = func(left time.Duration) {
		if left == 0 {
			say(fmt.Sprintf("stopping: %s did not end within %v and is killed", c.name, grace))
		} else {
			say(fmt.Sprintf("stopping: waiting for %s to end; it is killed in %v", c.name, left.Round(time.Second)))
		}
	}
	c.done = make(chan struct{})
	go func() {
		defer close(c.done)
		_ = p.Run(ctx) // how it ended when it was asked to does not matter
	}()
}

func (c *child) log(dir string) string { return filepath.Join(dir, c.name+".log") }

// lastWords is where a child's log is, and its last line, which mostly says why it ended.
func (c *child) lastWords(logs string) string {
	words := c.log(logs)
	if line := c.supervisor.Log.LastLine(); line != "" {
		words += "\n    " + line
	}
	return words
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
		if c.supervisor.Failures() >= maxFailures {
			return fmt.Errorf("%s does not start; its log: %s", c.name, c.lastWords(logs))
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
			return fmt.Errorf("%s does not get ready: %s\n  Its log: %s", c.name, reason, c.lastWords(logs))
		}
	}
}
