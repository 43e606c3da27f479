package process

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Env reads settings from the environment and collects everything that is wrong with them, each as a
// sentence that says what to do.
type Env struct {
	lookup func(string) (string, bool)
	errs   []error
}

// NewEnv reads through lookup; os.LookupEnv outside tests.
func NewEnv(lookup func(string) (string, bool)) *Env { return &Env{lookup: lookup} }

// Err is everything that was wrong, or nil.
func (e *Env) Err() error { return errors.Join(e.errs...) }

// Fail notes a problem that a caller found.
func (e *Env) Fail(name, format string, args ...any) {
	e.errs = append(e.errs, fmt.Errorf("%s %s", name, fmt.Sprintf(format, args...)))
}

func (e *Env) get(name string) (string, bool) {
	v, ok := e.lookup(name)
	return strings.TrimSpace(v), ok && strings.TrimSpace(v) != ""
}

// String reads a text.
func (e *Env) String(name, def string) string {
	if v, ok := e.get(name); ok {
		return v
	}
	return def
}

// Secret reads NAME, or the file that NAME_FILE names; "" where neither is set. Both at once is a
// mistake.
func (e *Env) Secret(name string) string {
	v, here := e.get(name)
	path, file := e.get(name + "_FILE")
	switch {
	case here && file:
		e.Fail(name, "and %s_FILE are both set; keep one", name)
	case file:
		b, err := os.ReadFile(path)
		v = strings.TrimSpace(string(b))
		switch {
		case err != nil:
			e.Fail(name+"_FILE", "names a file that cannot be read: %v", err)
		case v == "":
			e.Fail(name+"_FILE", "names an empty file, %s; write the value into it", path)
		}
	}
	return v
}

// Required is a secret that must be there; hint says how to get one.
func (e *Env) Required(name, hint string) string {
	before := len(e.errs)
	v := e.Secret(name)
	if v == "" && len(e.errs) == before {
		e.Fail(name, "is not set; %s", hint)
	}
	return v
}

// URL is a secret that must be there and read as a URL, or as several with commas between them: parsers repeat
// what they cannot read, with the password in it.
func (e *Env) URL(name, hint string) string {
	v := e.Required(name, hint)
	for one := range strings.SplitSeq(v, ",") {
		if _, err := url.Parse(strings.TrimSpace(one)); err != nil {
			e.Fail(name, "cannot be read as a URL; %s", hint)
			break
		}
	}
	return v
}

// Bool reads true or false.
func (e *Env) Bool(name string, def bool) bool {
	v, ok := e.get(name)
	if !ok {
		return def
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		e.Fail(name, "is %q; it must be true or false", v)
	}
	return b
}

// Int reads a whole number from lo to hi.
func (e *Env) Int(name string, def, lo, hi int) int {
	v, ok := e.get(name)
	if !ok {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < lo || n > hi {
		e.Fail(name, "is %q; it must be a whole number from %d to %d", v, lo, hi)
	}
	return n
}

// Duration reads a duration such as 30s.
func (e *Env) Duration(name string, def time.Duration) time.Duration {
	v, ok := e.get(name)
	if !ok {
		return def
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		e.Fail(name, `is %q; it must be a duration such as "30s"`, v)
	}
	return d
}

// Addr reads host:port; the host may be empty, for every interface.
func (e *Env) Addr(name, def string) string {
	v, ok := e.get(name)
	if !ok {
		return def
	}
	_, port, err := net.SplitHostPort(v)
	if n, convErr := strconv.Atoi(port); err != nil || convErr != nil || n < 0 || n > 65535 {
		e.Fail(name, `is %q; it must be host:port, such as "127.0.0.1:8000" or ":8000"`, v)
	}
	return v
}
