package envoyadmin

import (
	"bufio"
	"errors"
	"io"
)

// hidden stands where something secret was, as Envoy itself writes it.
const hidden = `"[redacted]"`

// secretFields have values that are secret whatever they are.
var secretFields = map[string]bool{
	"private_key": true, "password": true, "generic_secret": true, "session_ticket_keys": true, "pkcs12": true,
}

// secretIn are fields that are secret in a field of this name: the key that Envoy shows to the xDS server, what the
// filters are configured with (tokens and shared keys among it), and keys of JWTs, which may be shared ones.
var secretIn = map[string][]string{
	"initial_metadata": {"value"},
	"configuration":    {"value"},
	"local_jwks":       {"inline_string", "inline_bytes"},
}

func isSecret(in, field string) bool {
	for _, f := range secretIn[in] {
		if f == field {
			return true
		}
	}
	return secretFields[field]
}

// Redact copies an Envoy's dump, with everything secret replaced. What it copies it copies as it is, byte by byte, and
// it holds no more than a field's name of it: a dump may have hundreds of megabytes.
func Redact(w io.Writer, r io.Reader) error {
	c := &copier{r: bufio.NewReaderSize(r, 64<<10), w: bufio.NewWriterSize(w, 64<<10)}
	err := c.value("", 0, false)
	if err != nil {
		return err
	}
	if _, err := c.space(false); !errors.Is(err, io.EOF) {
		return errNotJSON
	}
	return c.w.Flush()
}

var errNotJSON = errors.New("the dump is not JSON")

type copier struct {
	r *bufio.Reader
	w *bufio.Writer
}

func (c *copier) put(b byte, drop bool) {
	if !drop {
		_ = c.w.WriteByte(b) // Flush says so
	}
}

// space passes white space, and returns the first byte of what follows, which is still to be read.
func (c *copier) space(drop bool) (byte, error) {
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			return 0, err
		}
		if b != ' ' && b != '\n' && b != '\r' && b != '\t' {
			return b, c.r.UnreadByte()
		}
		c.put(b, drop)
	}
}

// byte passes one byte, which must be one of these.
func (c *copier) byte(drop bool, any string) (byte, error) {
	b, err := c.space(drop)
	if err != nil {
		return 0, err
	}
	for i := range any {
		if any[i] == b {
			_, err := c.r.ReadByte()
			c.put(b, drop)
			return b, err
		}
	}
	return 0, errNotJSON
}

// deepest is how deep a dump may be: messages are no deeper than protobuf's own limit of 100, twice over.
const deepest = 1000

// value passes a value of a field, or of an array that is a field's.
func (c *copier) value(field string, depth int, drop bool) error {
	if depth > deepest {
		return errNotJSON
	}
	b, err := c.space(drop)
	if err != nil {
		return err
	}
	switch b {
	case '{', '[':
		return c.list(field, depth, drop)
	case '"':
		_, err := c.text(drop)
		return err
	}
	for { // a number, true, false or null
		b, err := c.r.ReadByte()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if b == ',' || b == '}' || b == ']' || b <= ' ' {
			return c.r.UnreadByte()
		}
		c.put(b, drop)
	}
}

// list passes an object or an array.
func (c *copier) list(field string, depth int, drop bool) error {
	open, err := c.byte(drop, "{[")
	if err != nil {
		return err
	}
	end := open + 2 // '}' and ']' in ASCII
	if b, err := c.space(drop); err != nil || b == end {
		_, err = c.byte(drop, string(end))
		return err
	}
	for {
		name, hide := field, false
		if open == '{' {
			if _, err := c.space(drop); err != nil {
				return err
			}
			if name, err = c.text(drop); err != nil {
				return err
			}
			if _, err := c.byte(drop, ":"); err != nil {
				return err
			}
			hide = !drop && isSecret(field, name)
		}
		if hide {
			_, _ = c.w.WriteString(" " + hidden) // Flush says so
		}
		if err := c.value(name, depth+1, drop || hide); err != nil {
			return err
		}
		switch b, err := c.byte(drop, ","+string(end)); {
		case err != nil:
			return err
		case b == end:
			return nil
		}
	}
}

// longestName is as much as is kept of a text: names of fields are shorter.
const longestName = 64

// text passes a text, and returns its beginning.
func (c *copier) text(drop bool) (string, error) {
	if _, err := c.byte(drop, `"`); err != nil {
		return "", err
	}
	var kept []byte
	for escaped := false; ; {
		b, err := c.r.ReadByte()
		if err != nil {
			return "", err
		}
		c.put(b, drop)
		switch {
		case escaped:
			escaped = false
		case b == '\\':
			escaped = true
		case b == '"':
			return string(kept), nil
		}
		if len(kept) < longestName {
			kept = append(kept, b)
		}
	}
}
