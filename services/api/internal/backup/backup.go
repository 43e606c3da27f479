package backup

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/mattn/go-isatty"

	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// settings are the api's own that this needs.
type settings struct {
	url        string
	box        *seal.Box
	firstToken string
}

func read(lookup func(string) (string, bool)) (settings, error) {
	e := process.NewEnv(lookup)
	c := settings{
		url:        e.Required("DATABASE_URL", "set it to postgresql://user:password@host:5432/marchproxy"),
		firstToken: e.Secret("API_FIRST_TOKEN"),
	}
	key := e.Required("SECRET_KEY", "set it as the api has it: a backup is signed with it, and what is sealed in it "+
		"opens with it")
	err := e.Err()
	if err == nil {
		c.box, err = seal.New(key)
	}
	return c, err
}

// Made is the answer of [Write].
type Made struct {
	File string `json:"file"`
	store.Origin
	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes"`
}

// Write is the command backup.
func Write(ctx context.Context, lookup func(string) (string, bool), args []string) error {
	var asJSON bool
	f := flags("backup", "FILE|-", &asJSON)
	path, err := parse(f, args)
	if err != nil {
		return err
	}
	c, err := read(lookup)
	if err != nil {
		return err
	}
	out, finish, err := create(path)
	if err != nil {
		return err
	}
	counted := &counter{to: out}
	p, stop := watch(0)
	w, err := newWriter(counted, c.box, p)
	var o noted
	if err == nil {
		o.fileWriter = w
		err = store.Backup(ctx, c.url, c.box, &o)
	}
	if err == nil {
		err = w.close()
	}
	stop()
	if err := finish(err); err != nil {
		return err
	}
	m := Made{File: path, Origin: o.origin, Rows: w.rows, Bytes: counted.n}
	to := os.Stdout
	if path == "-" {
		to = os.Stderr
	}
	return say(to, asJSON, m, fmt.Sprintf("revision %d is in %s: %d rows, %.1f MB. SECRET_KEY is not in it: keep that "+
		"elsewhere, nothing that is sealed opens without it", m.Revision, named(path, "standard output"), m.Rows,
		float64(m.Bytes)/(1<<20)))
}

// noted is a [fileWriter] that remembers its beginning.
type noted struct {
	*fileWriter
	origin store.Origin
}

// Begin implements [store.Sink].
func (n *noted) Begin(o store.Origin) error {
	n.origin = o
	return n.fileWriter.Begin(o)
}

type counter struct {
	to io.Writer
	n  int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	c.n += int64(n)
	return n, err
}

// create makes the file, for its owner alone, under another name until it is whole.
func create(path string) (*os.File, func(error) error, error) {
	if path == "-" {
		if isatty.IsTerminal(os.Stdout.Fd()) {
			return nil, nil, errors.New("standard output is a terminal: name a file, or redirect it")
		}
		return os.Stdout, func(err error) error { return err }, nil
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, nil, fmt.Errorf("%s is there already: name another file, or take it away", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	f, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	err = f.Chmod(0o600) // where one was left that was killed
	return f, func(failed error) error {
		if failed == nil {
			failed = f.Sync()
		}
		if failed = errors.Join(failed, f.Close()); failed == nil {
			failed = os.Rename(f.Name(), path)
		}
		if failed != nil {
			return errors.Join(failed, os.Remove(f.Name()))
		}
		return nil
	}, err
}

// Put is the answer of [Restore].
type Put struct {
	File string `json:"file"`
	// Of is what the backup is of, Before what the database had, and After what it has now.
	Of      store.Origin  `json:"of"`
	Before  *store.Origin `json:"before,omitempty"`
	After   *store.Origin `json:"after,omitempty"`
	Objects int           `json:"objects"`
	Changed bool          `json:"changed"`
}

// Restore is the command restore.
func Restore(ctx context.Context, lookup func(string) (string, bool), args []string) error {
	var asJSON bool
	var r store.Restoring
	f := flags("restore", "FILE|-", &asJSON)
	f.BoolVar(&r.Replace, "replace", false, "let what the database has go")
	f.BoolVar(&r.Check, "check", false, "do all that can fail, and change nothing")
	path, err := parse(f, args)
	if err != nil {
		return err
	}
	c, err := read(lookup)
	if err != nil {
		return err
	}
	if c.firstToken != "" {
		r.FirstToken = auth.Sum(c.firstToken)
	}
	in, size := os.Stdin, int64(0)
	if path != "-" {
		if in, err = os.Open(path); err != nil {
			return err
		}
		defer func() { _ = in.Close() }() // read only
		if info, err := in.Stat(); err == nil {
			size = info.Size()
		}
	}
	p, stop := watch(size)
	r.Doing = p.begin
	done, err := restore(ctx, c, in, p, r)
	stop()
	if err != nil {
		return err
	}
	m := Put{File: path, Of: done.of, Objects: done.Objects, Changed: !r.Check}
	if done.Before.Schema > 0 {
		m.Before = &done.Before
	}
	text := fmt.Sprintf("%s holds revision %d with %d objects, and SECRET_KEY opens all that is sealed in it; nothing was "+
		"changed", named(path, "standard input"), m.Of.Revision, m.Objects)
	if m.Changed {
		m.After = &done.After
		text = fmt.Sprintf("revision %d is restored, with %d objects; the epoch is %s from now on. SECRET_KEY was not in "+
			"the backup: start apis and xds with the one of now. Those that run publish what differs; marchproxy doctor says "+
			"when all agree", m.Of.Revision, m.Objects, m.After.Epoch)
	}
	return say(os.Stdout, asJSON, m, text)
}

type restored struct {
	store.Restored
	of store.Origin
}

func restore(ctx context.Context, c settings, in io.Reader, p *progress, how store.Restoring) (restored, error) {
	r, err := newReader(in, c.box, p)
	if err != nil {
		return restored{}, err
	}
	out, err := store.Restore(ctx, c.url, c.box, r, how)
	return restored{out, r.Origin()}, err
}

func watch(whole int64) (p *progress, stop func()) {
	p = newProgress(os.Stderr, isatty.IsTerminal(os.Stderr.Fd()), whole)
	done, gone := make(chan struct{}), make(chan struct{})
	go func() { p.watch(done); close(gone) }()
	return p, func() { close(done); <-gone }
}

func named(path, otherwise string) string {
	if path == "-" {
		return otherwise
	}
	return path
}

func say(to io.Writer, asJSON bool, v any, text string) error {
	if asJSON {
		return line(to, v)
	}
	_, err := fmt.Fprintln(to, text)
	return err
}

func flags(name, args string, asJSON *bool) *flag.FlagSet {
	f := flag.NewFlagSet("marchproxy-api "+name, flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "usage: marchproxy-api %s [FLAGS] %s\n", name, args)
		f.PrintDefaults()
	}
	f.BoolVar(asJSON, "json", false, "print the result as JSON")
	return f
}

func parse(f *flag.FlagSet, args []string) (path string, err error) {
	if err := f.Parse(args); err != nil {
		return "", err
	}
	if f.NArg() != 1 {
		f.Usage()
		return "", errors.New("name one file")
	}
	return f.Arg(0), nil
}
