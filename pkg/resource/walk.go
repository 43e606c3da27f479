package resource

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// walker reads JSON beside a message's descriptor, notes violations and writes the document anew with its durations in
// protobuf's form. Every write of an object goes through here, and an apply has ten thousand of them: it works on the
// text itself, and puts a path together only where something is wrong.
type walker struct {
	raw []byte // valid JSON
	at  int
	// out is the document anew; silent leaves it out.
	out    []byte
	silent bool
	path   []step
	found  Violations
}

// step is a member's name, or an item's index where it is not negative.
type step struct {
	key   []byte
	index int
}

// token is a value's text where it is a string, a number or a word; of an object and of a list it is the first byte.
type token []byte

// walk checks the text, and then has it walked.
func (w *walker) walk(from func()) Violations {
	if v := checkText(w.raw); v != nil {
		return v
	}
	if !json.Valid(w.raw) {
		var all json.RawMessage
		err := json.Unmarshal(w.raw, &all) // says why
		if strings.Contains(err.Error(), "after top-level value") {
			return Violations{{"$", "one JSON document is expected; remove what follows it", "json.trailing"}}
		}
		return Violations{{"$", "is not valid JSON: " + err.Error(), "json.syntax"}}
	}
	from()
	return w.found
}

func (w *walker) add(message, rule string) {
	if len(w.found) < 100 {
		w.found = append(w.found, Violation{w.where(), message, rule})
	}
}

// where is the path to what is looked at.
func (w *walker) where() string {
	out := "$"
	for _, s := range w.path {
		if s.index >= 0 {
			out += "[" + strconv.Itoa(s.index) + "]"
		} else {
			out = join(out, string(s.key))
		}
	}
	return out
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

// peek is the next byte that means something.
func (w *walker) peek() byte {
	for {
		switch c := w.raw[w.at]; c {
		case ' ', '\t', '\n', '\r':
			w.at++
		default:
			return c
		}
	}
}

func (w *walker) next() token {
	c := w.peek()
	begin := w.at
	switch c {
	case '{', '[', '}', ']', ',', ':':
		w.at++
	case '"':
		for w.at++; w.raw[w.at] != '"'; w.at++ {
			if w.raw[w.at] == '\\' {
				w.at++
			}
		}
		w.at++
	default: // a number or a word
		for w.at < len(w.raw) && bytes.IndexByte([]byte(" \t\n\r,]}"), w.raw[w.at]) < 0 {
			w.at++
		}
	}
	return w.raw[begin:w.at]
}

// text is what a string says; ok is false where it is none.
func (t token) text() (s []byte, ok bool) {
	if t[0] != '"' {
		return nil, false
	}
	if bytes.IndexByte(t, '\\') < 0 {
		return t[1 : len(t)-1], true
	}
	var plain string
	err := json.Unmarshal(t, &plain)
	return []byte(plain), err == nil // it is valid
}

func (w *walker) write(b ...byte) {
	if !w.silent {
		w.out = append(w.out, b...)
	}
}

// scalar looks at a string, a number or a word, and writes it.
func (w *walker) scalar(t token) {
	if t[0] == '"' && bytes.IndexByte(t, '\\') >= 0 {
		// What is escaped can be what cannot be stored, or half of a character, which protobuf's reader would refuse.
		s, _ := t.text()
		if bytes.IndexByte(s, 0) >= 0 {
			w.add(`has a zero character (\u0000), which cannot be stored; remove it`, "json.zero")
		}
		w.literal(string(s))
		return
	}
	w.write(t...)
}

func (w *walker) literal(s string) {
	b, _ := json.Marshal(s) // strings can be written
	w.write(b...)
}

// object walks the members of an object whose brace has been read.
func (w *walker) object(member func(key []byte)) {
	w.write('{')
	var few [16][]byte // most objects have no more, and comparing them is cheaper than a map
	var many map[string]bool
	for n := 0; w.peek() != '}'; n++ {
		if n > 0 {
			w.next()
			w.write(',')
		}
		t := w.next()
		key, _ := t.text()
		w.path = append(w.path, step{key, -1})
		switch {
		case n < len(few):
			if slices.ContainsFunc(few[:n], func(k []byte) bool { return bytes.Equal(k, key) }) {
				w.add("stands twice; keep one", "json.duplicate")
			}
			few[n] = key
		default:
			if many == nil {
				many = make(map[string]bool, 2*len(few))
				for _, k := range few {
					many[string(k)] = true
				}
			}
			if many[string(key)] {
				w.add("stands twice; keep one", "json.duplicate")
			}
			many[string(key)] = true
		}
		w.scalar(t)
		w.next()
		w.write(':')
		member(key)
		w.path = w.path[:len(w.path)-1]
	}
	w.next()
	w.write('}')
}

// array walks the items of a list whose bracket has been read.
func (w *walker) array(item func()) {
	w.write('[')
	for i := 0; w.peek() != ']'; i++ {
		if i > 0 {
			w.next()
			w.write(',')
		}
		w.path = append(w.path, step{index: i})
		item()
		w.path = w.path[:len(w.path)-1]
	}
	w.next()
	w.write(']')
}

func (w *walker) any() { w.anyToken(w.next()) }

func (w *walker) anyToken(t token) {
	switch t[0] {
	case '{':
		w.object(func([]byte) { w.any() })
	case '[':
		w.array(w.any)
	default:
		w.scalar(t)
	}
}

func (w *walker) message(d protoreflect.MessageDescriptor) { w.messageToken(w.next(), d) }

func (w *walker) messageToken(t token, d protoreflect.MessageDescriptor) {
	if t[0] != '{' {
		w.add("must be an object, in braces", "json.type")
		w.anyToken(t)
		return
	}
	w.object(func(key []byte) {
		f := d.Fields().ByTextName(string(key))
		if f == nil {
			w.add("is unknown; known here: "+fieldNames(d), "json.unknown_field")
			w.any()
			return
		}
		w.field(f)
	})
}

func fieldNames(d protoreflect.MessageDescriptor) string {
	names := make([]string, d.Fields().Len())
	for i := range names {
		names[i] = d.Fields().Get(i).TextName()
	}
	return strings.Join(names, ", ")
}

func (w *walker) field(f protoreflect.FieldDescriptor) {
	t := w.next()
	switch {
	case t[0] == 'n':
		w.add("is null; leave it out", "json.type")
	case f.IsMap():
		if t[0] != '{' {
			w.add("must be an object, in braces", "json.type")
			w.anyToken(t)
			return
		}
		w.object(func([]byte) { w.value(w.next(), f.MapValue()) })
	case f.IsList():
		if t[0] != '[' {
			w.add("must be a list, in brackets", "json.type")
			w.anyToken(t)
			return
		}
		w.array(func() { w.value(w.next(), f) })
	default:
		w.value(t, f)
	}
}

func (w *walker) value(t token, f protoreflect.FieldDescriptor) {
	if f.Kind() == protoreflect.MessageKind {
		if f.Message().FullName() == "google.protobuf.Duration" {
			w.duration(t)
			return
		}
		w.messageToken(t, f.Message())
		return
	}
	if msg := typeError(t, f); msg != "" {
		w.add(msg, "json.type")
	}
	w.anyToken(t)
}

func (w *walker) duration(t token) {
	s, ok := t.text()
	d, err := time.ParseDuration(string(s))
	if !ok || err != nil {
		w.add(`must be a duration such as "30s", "500ms" or "1m30s"`, "json.type")
		w.anyToken(t)
		return
	}
	sign, abs := "", d
	if d < 0 {
		sign, abs = "-", -d
	}
	w.literal(fmt.Sprintf("%s%d.%09ds", sign, int64(abs/time.Second), int64(abs%time.Second)))
}

func typeError(t token, f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.StringKind:
		if t[0] != '"' {
			return "must be a string, in quotes"
		}
	case protoreflect.BoolKind:
		if t[0] != 't' && t[0] != 'f' {
			return "must be true or false"
		}
	case protoreflect.EnumKind:
		if s, ok := t.text(); ok && f.Enum().Values().ByName(protoreflect.Name(string(s))) != nil {
			return ""
		}
		names := make([]string, 0, f.Enum().Values().Len())
		for i := range f.Enum().Values().Len() {
			if v := f.Enum().Values().Get(i); v.Number() != 0 {
				names = append(names, string(v.Name()))
			}
		}
		return "must be one of " + strings.Join(names, ", ")
	default:
		return numberError(t, f.Kind())
	}
	return ""
}

func numberError(t token, k protoreflect.Kind) string {
	if t[0] != '-' && (t[0] < '0' || t[0] > '9') {
		return "must be a number, without quotes"
	}
	switch n := json.Number(t); k {
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
