package process_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/process"
)

func env(values map[string]string) *process.Env {
	return process.NewEnv(func(name string) (string, bool) { v, ok := values[name]; return v, ok })
}

func TestEnv(t *testing.T) {
	e := env(map[string]string{"S": " text ", "EMPTY": " ", "B": "true", "N": "7", "D": "1m30s", "A": ":8000"})
	for what, ok := range map[string]bool{
		"string": e.String("S", "x") == "text", "default string": e.String("NONE", "x") == "x",
		"empty string": e.String("EMPTY", "x") == "x",
		"bool":         e.Bool("B", false), "default bool": e.Bool("NONE", true), "int": e.Int("N", 1, 0, 9) == 7,
		"default int": e.Int("NONE", 3, 0, 9) == 3,
		"duration":    e.Duration("D", 0) == 90*time.Second, "default duration": e.Duration("NONE", time.Hour) == time.Hour,
		"address": e.Addr("A", "x") == ":8000", "default address": e.Addr("NONE", "127.0.0.1:1") == "127.0.0.1:1",
		"no secret": e.Secret("NONE") == "",
	} {
		if !ok {
			t.Error(what)
		}
	}
	if err := e.Err(); err != nil {
		t.Error(err)
	}
}

// TestEnvSentences: whatever is wrong is said at once, with the variable's name and what to do.
func TestEnvSentences(t *testing.T) {
	e := env(map[string]string{
		"B": "maybe", "N": "ten", "HIGH": "10", "D": "30", "MINUS": "-1s", "A": "localhost",
		"PORT": "a:70000",
	})
	e.Bool("B", false)
	e.Int("N", 1, 0, 9)
	e.Int("HIGH", 1, 0, 9)
	e.Duration("D", 0)
	e.Duration("MINUS", 0)
	e.Addr("A", "")
	e.Addr("PORT", "")
	e.Required("SECRET_KEY", "make one with: openssl rand -hex 32")
	e.Fail("OTHER", "is %q", "odd")
	want := `B is "maybe"; it must be true or false
N is "ten"; it must be a whole number from 0 to 9
HIGH is "10"; it must be a whole number from 0 to 9
D is "30"; it must be a duration such as "30s"
MINUS is "-1s"; it must be a duration such as "30s"
A is "localhost"; it must be host:port, such as "127.0.0.1:8000" or ":8000"
PORT is "a:70000"; it must be host:port, such as "127.0.0.1:8000" or ":8000"
SECRET_KEY is not set; make one with: openssl rand -hex 32
OTHER is "odd"`
	if err := e.Err(); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	e := env(map[string]string{"A_FILE": write("a", "secret\n"), "B": "direct"})
	if a, b := e.Required("A", ""), e.Required("B", ""); a != "secret" || b != "direct" || e.Err() != nil {
		t.Error(a, b, e.Err())
	}
	for want, values := range map[string]map[string]string{
		"X and X_FILE are both set; keep one":            {"X": "a", "X_FILE": write("x", "a")},
		"X_FILE names a file that cannot be read: open ": {"X_FILE": filepath.Join(dir, "none")},
		"X_FILE names an empty file, ":                   {"X_FILE": write("empty", " \n")},
	} {
		e := env(values)
		e.Required("X", "hint")
		if err := e.Err(); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "hint") ||
			strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("%v instead of %s", err, want)
		}
	}
}

func TestLogger(t *testing.T) {
	for _, level := range []string{"debug", "info", "warn", "error"} {
		if _, err := process.Logger(level); err != nil {
			t.Error(err)
		}
	}
	for _, level := range []string{"loud", "fatal", "panic"} {
		if _, err := process.Logger(level); err == nil ||
			!strings.Contains(err.Error(), "must be debug, info, warn or error") {
			t.Errorf("%s: %v", level, err)
		}
	}
}

// recorder is a group whose parts note when they stop.
type recorder struct {
	process.Group
	mu    sync.Mutex
	order []string
}

func (r *recorder) add(name string, started chan<- struct{}, end func(context.Context) error) {
	r.Add(name, func(ctx context.Context) error {
		started <- struct{}{}
		err := end(ctx)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.order = append(r.order, name)
		return err
	})
}

func wait(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// TestGroupStops: the context's end stops the parts in the reverse order of their addition.
func TestGroupStops(t *testing.T) {
	var r recorder
	started := make(chan struct{}, 3)
	for _, name := range []string{"store", "relay", "web"} {
		r.add(name, started, wait)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	for range 3 {
		<-started
	}
	cancel()
	if err := <-done; err != nil || !slices.Equal(r.order, []string{"web", "relay", "store"}) {
		t.Error(err, r.order)
	}
}

// TestGroupFails: one part's end is everybody's, and its error is named; so are errors on the way down.
func TestGroupFails(t *testing.T) {
	var r recorder
	started := make(chan struct{}, 3)
	broken, late := errors.New("broken"), errors.New("late")
	r.add("store", started, func(ctx context.Context) error { <-ctx.Done(); return late })
	r.add("relay", started, func(context.Context) error { <-started; <-started; return broken })
	r.add("web", started, wait)
	err := r.Run(t.Context())
	if !errors.Is(err, broken) || !errors.Is(err, late) || err.Error() != "relay: broken\nstore: late" {
		t.Error(err)
	}
}

// TestGroupEnds: a part that is done without an error stops the others as well.
func TestGroupEnds(t *testing.T) {
	var r recorder
	started := make(chan struct{}, 2)
	r.add("store", started, wait)
	r.add("job", started, func(context.Context) error { return nil })
	if err := r.Run(t.Context()); err != nil || len(r.order) != 2 {
		t.Error(err, r.order)
	}
}
