package resource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
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
	if v := checkText(raw); v != nil {
		return nil, v
	}
	m := k.New()
	// Protobuf's own reader takes more than is documented: a second spelling of every name, numbers in
	// quotes, null. It only sees what this walk lets through, with durations normalised.
	w := &walker{dec: json.NewDecoder(bytes.NewReader(raw))}
	w.dec.UseNumber()
	w.message("$", m.ProtoReflect().Descriptor())
	if w.err == nil {
		if _, extra := w.dec.Token(); !errors.Is(extra, io.EOF) {
			w.add("$", "one JSON document is expected; remove what follows it", "json.trailing")
		}
	}
	if w.err != nil {
		return nil, Violations{{"$", "is not valid JSON: " + w.err.Error(), "json.syntax"}}
	}
	if len(w.found) > 0 {
		return nil, w.found
	}
	m = k.New()
	if err := protojson.Unmarshal(w.out.Bytes(), m); err != nil {
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
	if v := checkText(raw); v != nil {
		return v
	}
	w := &walker{dec: json.NewDecoder(bytes.NewReader(raw))}
	w.dec.UseNumber()
	w.any("$")
	if w.err == nil {
		if _, extra := w.dec.Token(); !errors.Is(extra, io.EOF) {
			w.add("$", "one JSON document is expected; remove what follows it", "json.trailing")
		}
	}
	if w.err != nil {
		return Violations{{"$", "is not valid JSON: " + w.err.Error(), "json.syntax"}}
	}
	return w.found
}

func cleanProtoError(err error) string {
	s := strings.ReplaceAll(err.Error(), "\u00a0", " ") // protobuf varies this on purpose
	s = strings.TrimPrefix(s, "proto: ")
	if i := strings.Index(s, "): "); strings.HasPrefix(s, "(line ") && i > 0 {
		s = s[i+3:]
	}
	return s
}

// walker reads JSON beside the message's descriptor, notes violations and writes the document anew
// with its durations in protobuf's form.
type walker struct {
	dec   *json.Decoder
	out   bytes.Buffer
	found Violations
	err   error
}

func (w *walker) add(path, message, rule string) {
	if len(w.found) < 100 {
		w.found = append(w.found, Violation{path, message, rule})
	}
}

func (w *walker) next() json.Token {
	if w.err != nil {
		return nil
	}
	t, err := w.dec.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	w.err = err
	return t
}

func (w *walker) object(path string, member func(key string)) {
	w.out.WriteByte('{')
	seen := map[string]bool{}
	for w.err == nil && w.dec.More() {
		key, _ := w.next().(string)
		if w.err != nil {
			return
		}
		if seen[key] {
			w.add(join(path, key), "stands twice; keep one", "json.duplicate")
		}
		if len(seen) > 0 {
			w.out.WriteByte(',')
		}
		seen[key] = true
		w.zero(join(path, key), key)
		w.literal(key)
		w.out.WriteByte(':')
		member(key)
	}
	w.next()
	w.out.WriteByte('}')
}

func (w *walker) array(path string, item func(path string)) {
	w.out.WriteByte('[')
	for i := 0; w.err == nil && w.dec.More(); i++ {
		if i > 0 {
			w.out.WriteByte(',')
		}
		item(fmt.Sprintf("%s[%d]", path, i))
	}
	w.next()
	w.out.WriteByte(']')
}

func (w *walker) literal(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		w.err = err
		return
	}
	w.out.Write(b)
}

func join(path, key string) string {
	for _, c := range key {
		if c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return fmt.Sprintf("%s[%q]", path, key)
		}
	}
	if key == "" {
		return path + `[""]`
	}
	return path + "." + key
}

func (w *walker) any(path string) { w.anyToken(path, w.next()) }

func (w *walker) anyToken(path string, t json.Token) {
	switch t {
	case json.Delim('{'):
		w.object(path, func(key string) { w.any(join(path, key)) })
	case json.Delim('['):
		w.array(path, w.any)
	default:
		if w.err == nil {
			w.zero(path, t)
			w.literal(t)
		}
	}
}

func (w *walker) zero(path string, t json.Token) {
	if s, ok := t.(string); ok && strings.IndexByte(s, 0) >= 0 {
		w.add(path, `has a zero character (\u0000), which cannot be stored; remove it`, "json.zero")
	}
}

func (w *walker) message(path string, d protoreflect.MessageDescriptor) {
	w.messageToken(path, w.next(), d)
}

func (w *walker) messageToken(path string, t json.Token, d protoreflect.MessageDescriptor) {
	if t != json.Delim('{') {
		if w.err == nil {
			w.add(path, "must be an object, in braces", "json.type")
		}
		w.anyToken(path, t)
		return
	}
	w.object(path, func(key string) {
		f := d.Fields().ByTextName(key)
		if f == nil {
			w.add(join(path, key), "is unknown; known here: "+fieldNames(d), "json.unknown_field")
			w.any(join(path, key))
			return
		}
		w.field(join(path, key), f)
	})
}

func fieldNames(d protoreflect.MessageDescriptor) string {
	names := make([]string, d.Fields().Len())
	for i := range names {
		names[i] = d.Fields().Get(i).TextName()
	}
	return strings.Join(names, ", ")
}

func (w *walker) field(path string, f protoreflect.FieldDescriptor) {
	t := w.next()
	switch {
	case w.err != nil:
	case t == nil:
		w.add(path, "is null; leave it out", "json.type")
	case f.IsMap():
		if t != json.Delim('{') {
			w.add(path, "must be an object, in braces", "json.type")
			w.anyToken(path, t)
			return
		}
		w.object(path, func(key string) { w.value(join(path, key), w.next(), f.MapValue()) })
	case f.IsList():
		if t != json.Delim('[') {
			w.add(path, "must be a list, in brackets", "json.type")
			w.anyToken(path, t)
			return
		}
		w.array(path, func(p string) { w.value(p, w.next(), f) })
	default:
		w.value(path, t, f)
	}
}

func (w *walker) value(path string, t json.Token, f protoreflect.FieldDescriptor) {
	if w.err != nil {
		return
	}
	if f.Kind() == protoreflect.MessageKind {
		if f.Message().FullName() == "google.protobuf.Duration" {
			w.duration(path, t)
			return
		}
		w.messageToken(path, t, f.Message())
		return
	}
	if msg := typeError(t, f); msg != "" {
		w.add(path, msg, "json.type")
	}
	w.anyToken(path, t)
}

func (w *walker) duration(path string, t json.Token) {
	s, ok := t.(string)
	d, err := time.ParseDuration(s)
	if !ok || err != nil {
		w.add(path, `must be a duration such as "30s", "500ms" or "1m30s"`, "json.type")
		w.anyToken(path, t)
		return
	}
	sign, abs := "", d
	if d < 0 {
		sign, abs = "-", -d
	}
	w.literal(fmt.Sprintf("%s%d.%09ds", sign, int64(abs/time.Second), int64(abs%time.Second)))
}

func typeError(t json.Token, f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.StringKind:
		if _, ok := t.(string); !ok {
			return "must be a string, in quotes"
		}
	case protoreflect.BoolKind:
		if _, ok := t.(bool); !ok {
			return "must be true or false"
		}
	case protoreflect.EnumKind:
		names := make([]string, 0, f.Enum().Values().Len())
		for i := range f.Enum().Values().Len() {
			v := f.Enum().Values().Get(i)
			if s, ok := t.(string); ok && string(v.Name()) == s {
				return ""
			}
			if v.Number() != 0 {
				names = append(names, string(v.Name()))
			}
		}
		return "must be one of " + strings.Join(names, ", ")
	default:
		return numberError(t, f.Kind())
	}
	return ""
}

func numberError(t json.Token, k protoreflect.Kind) string {
	n, ok := t.(json.Number)
	if !ok {
		return "must be a number, without quotes"
	}
	switch k {
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		if _, err := n.Float64(); err != nil {
			return "must be a number"
		}
	default:
		least, most := int64(math.MinInt64), int64(math.MaxInt64)
		switch k {
		case protoreflect.Uint32Kind:
			least, most = 0, math.MaxUint32
		case protoreflect.Int32Kind:
			least, most = math.MinInt32, math.MaxInt32
		}
		if i, err := n.Int64(); err != nil || i < least || i > most {
			return fmt.Sprintf("must be a whole number from %d to %d, in digits alone", least, most)
		}
	}
	return ""
}
