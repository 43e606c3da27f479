package resource

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// MaxDepth is how deep a JSON document may nest; the deepest spec needs less than a third of it.
const MaxDepth = 32

// Violation is one thing that is wrong with an input.
type Violation struct {
	// Path is a JSONPath, $ for the whole document.
	Path string `json:"path"`
	// Message is a sentence a person can act on.
	Message string `json:"message"`
	// Rule names what was broken, for programs.
	Rule string `json:"rule,omitempty"`
}

// Violations is what a check found. It is an error where it is not empty.
type Violations []Violation

// Error joins them, one a line.
func (v Violations) Error() string {
	lines := make([]string, len(v))
	for i, x := range v {
		lines[i] = x.Path + ": " + x.Message
	}
	return strings.Join(lines, "\n")
}

// MaxViolations is how many are said of one request: more are no help, and cost what the document costs.
const MaxViolations = 100

// First are as many as are said.
func (v Violations) First() Violations { return v[:min(len(v), MaxViolations)] }

// Under moves the paths below a prefix that replaces their $.
func (v Violations) Under(prefix string) Violations {
	out := make(Violations, len(v))
	for i, x := range v {
		x.Path = prefix + strings.TrimPrefix(x.Path, "$")
		out[i] = x
	}
	return out
}

// DecodeSpec reads a kind's spec strictly: unknown fields, duplicate keys, wrong types, invalid UTF-8,
// zero characters and deep nesting are violations with their path (below $). Durations may be written as
// Go and the Gateway API write them ("500ms", "1m30s") as well as in protobuf's seconds. Schema rules are
// not checked here, see [Validate].
func DecodeSpec(k Kind, raw []byte) (proto.Message, Violations) {
	m := k.New()
	// Protobuf's own reader takes more than is documented: a second spelling of every name, numbers in
	// quotes, null. It only sees what this walk lets through, with durations normalised.
	w := walker{raw: raw, out: make([]byte, 0, len(raw)+64)}
	if v := w.walk(func() { w.message(m.ProtoReflect().Descriptor()) }); len(v) > 0 {
		return nil, v
	}
	if err := protojson.Unmarshal(w.out, m); err != nil {
		return nil, Violations{{"$", cleanProtoError(err), "json.type"}}
	}
	return m, nil
}

func checkText(raw []byte) Violations {
	if !utf8.Valid(raw) {
		return Violations{{"$", "is not valid UTF-8", "json.utf8"}}
	}
	depth, str := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case str && c == '\\':
			i++
		case c == '"':
			str = !str
		case str:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return Violations{{"$", fmt.Sprintf("nests deeper than %d levels", MaxDepth), "json.depth"}}
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// CheckJSON finds what makes a document unfit before anybody decodes it: invalid UTF-8, deep nesting,
// syntax, zero characters, and keys that stand twice in one object.
func CheckJSON(raw []byte) Violations {
	w := walker{raw: raw, silent: true}
	return w.walk(w.any)
}

func cleanProtoError(err error) string {
	s := strings.ReplaceAll(err.Error(), "\u00a0", " ") // protobuf varies this on purpose
	s = strings.TrimPrefix(s, "proto: ")
	if i := strings.Index(s, "): "); strings.HasPrefix(s, "(line ") && i > 0 {
		s = s[i+3:]
	}
	return s
}
