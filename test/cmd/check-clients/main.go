// Command check-clients generates clients of the API in Python, TypeScript and Go from a running system's
// OpenAPI document, and lets each make, read, list, change and delete an object of every kind with the
// generated types alone: with If-Match, and once with one that is out of date. The kinds and the objects
// are the document's own, so that neither a kind nor an example can be left out.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

func main() {
	only := flag.String("only", "", "one language: python, typescript or go")
	keep := flag.String("keep", "", "leave the document, the clients and the programs in this directory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *only, *keep); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// bench is what the languages' programs are made from and run with.
type bench struct {
	root, dir, document string
	kinds               []kind
	env                 []string
}

func run(ctx context.Context, only, keep string) (err error) {
	s, err := harness.Start(ctx, "--no-demo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	b := &bench{dir: keep}
	if b.root, err = harness.Root(); err != nil {
		return err
	}
	if keep == "" {
		if b.dir, err = os.MkdirTemp("", "marchproxy-clients-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	if err := b.prepare(ctx, s); err != nil {
		return err
	}
	for _, l := range []struct {
		name string
		crud func(context.Context, string) (string, error)
	}{{"python", b.python}, {"typescript", b.typescript}, {"go", b.golang}} {
		if only != "" && only != l.name {
			continue
		}
		t0 := time.Now()
		fmt.Printf("%s: generating a client\n", l.name)
		dir := filepath.Join(b.dir, l.name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		out, err := l.crud(ctx, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		if err := b.complete(ctx, s, out); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		fmt.Printf("%s: made, read, listed, changed and deleted %d kinds (%.1f s)\n", l.name, len(b.kinds),
			time.Since(t0).Seconds())
	}
	return nil
}

// prepare reads the document and finds the order in which its examples can be made.
func (b *bench) prepare(ctx context.Context, s *harness.System) error {
	status, raw, err := s.Call(ctx, http.MethodGet, s.API+"/v1/openapi.json", nil)
	if err != nil || status != http.StatusOK {
		return errors.Join(fmt.Errorf("the document: status %d", status), err)
	}
	b.document = filepath.Join(b.dir, "openapi.json")
	if err := os.WriteFile(b.document, raw, 0o644); err != nil {
		return err
	}
	found, err := kindsOf(raw)
	if err != nil {
		return err
	}
	if b.kinds, err = order(ctx, s, found); err != nil {
		return err
	}
	status, raw, err = s.Call(ctx, http.MethodPost, s.API+"/v1/tokens", `{"name":"clients","role":"admin"}`)
	if err != nil || status != http.StatusCreated {
		return errors.Join(fmt.Errorf("make a token: status %d", status), err)
	}
	var token struct{ Token string }
	if err := json.Unmarshal(raw, &token); err != nil {
		return err
	}
	b.env = append(os.Environ(), "API="+s.API, "TOKEN="+token.Token)
	return nil
}

// complete says whether a program went through every kind to the end, and left nothing behind.
func (b *bench) complete(ctx context.Context, s *harness.System, out string) error {
	done := strings.Fields(out)
	slices.Sort(done)
	want := make([]string, len(b.kinds))
	for i, k := range b.kinds {
		want[i] = k.Name
	}
	slices.Sort(want)
	if !slices.Equal(done, want) {
		return fmt.Errorf("went through %v; the document has the kinds %v", done, want)
	}
	for _, k := range b.kinds {
		status, raw, err := s.Call(ctx, http.MethodGet, s.API+k.path(object), nil)
		if err != nil || status != http.StatusNotFound {
			return errors.Join(fmt.Errorf("%s %s afterwards: status %d, want 404: %s", k.Name, object, status, raw), err)
		}
	}
	return nil
}

// command runs a program in dir; its standard output is returned, and all of it is in the error.
func (b *bench) command(ctx context.Context, dir string, extra []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(slices.Clone(b.env), extra...)
	var out, all strings.Builder
	cmd.Stdout, cmd.Stderr = both{&out, &all}, &all
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, all.String())
	}
	return out.String(), nil
}

type both [2]*strings.Builder

func (b both) Write(p []byte) (int, error) {
	b[0].Write(p)
	return b[1].Write(p)
}

func (b *bench) script(name string) string { return filepath.Join(b.root, "scripts", name) }
