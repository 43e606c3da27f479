package arbitrary

import (
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Boundary is a message that differs from another one in one field.
type Boundary struct {
	// Field is the field's full name and Value what it holds, in words.
	Field, Value string
	Message      proto.Message
	// Made says that the message which has the field was not there before: it has nothing else.
	Made bool
}

// Boundaries makes copies of a message, each with one field at an edge of its type or of its rules, inside
// and outside; fields of messages that are not there are tried in a message of their own.
func Boundaries(m proto.Message) iter.Seq[Boundary] {
	return func(yield func(Boundary) bool) {
		w := &edges{root: m, yield: yield}
		w.message(m.ProtoReflect(), false, func(root protoreflect.Message) protoreflect.Message { return root })
	}
}

// edges walks a message; at finds the same place in a copy.
type edges struct {
	root  proto.Message
	yield func(Boundary) bool
	ended bool
}

type place = func(root protoreflect.Message) protoreflect.Message

func (w *edges) message(m protoreflect.Message, made bool, at place) {
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		for _, v := range edgesOf(f) {
			if w.ended {
				return
			}
			w.try(f, made, at, v)
		}
		switch {
		case f.IsMap() || f.Message() == nil || isDuration(f):
		case f.IsList():
			n := m.Get(f).List().Len()
			for j := range max(n, 1) {
				var below protoreflect.Message
				if j < n {
					below = m.Get(f).List().Get(j).Message()
				} else {
					below = m.NewField(f).List().NewElement().Message()
				}
				w.message(below, made || n == 0, func(root protoreflect.Message) protoreflect.Message {
					l := at(root).Mutable(f).List()
					if j < l.Len() {
						return l.Get(j).Message()
					}
					return l.AppendMutable().Message()
				})
			}
		default:
			w.message(m.Get(f).Message(), made || !m.Has(f), func(root protoreflect.Message) protoreflect.Message {
				return at(root).Mutable(f).Message()
			})
		}
	}
}

func (w *edges) try(f protoreflect.FieldDescriptor, made bool, at place, v any) {
	out := proto.Clone(w.root)
	m := at(out.ProtoReflect())
	switch {
	case v == nil:
		if !m.Has(f) {
			return
		}
		m.Clear(f)
	case f.IsMap():
		for key, value := range v.(map[string]string) {
			m.Mutable(f).Map().Set(protoreflect.ValueOfString(key).MapKey(), protoreflect.ValueOfString(value))
		}
	case f.IsList() && isCount(v):
		l := m.Mutable(f).List()
		if l.Len() == 0 || f.Message() == nil {
			return
		}
		for l.Len() < int(v.(count)) {
			l.Append(protoreflect.ValueOfMessage(proto.Clone(l.Get(0).Message().Interface()).ProtoReflect()))
		}
	case f.IsList():
		l := m.Mutable(f).List()
		if l.Len() == 0 {
			l.Append(protoreflect.ValueOf(v))
		} else {
			l.Set(0, protoreflect.ValueOf(v))
		}
	case isDuration(f):
		m.Set(f, protoreflect.ValueOfMessage(v.(*durationpb.Duration).ProtoReflect()))
	case f.Message() != nil:
		m.Mutable(f)
	default:
		m.Set(f, protoreflect.ValueOf(v))
	}
	text := fmt.Sprint(v)
	if len(text) > 60 {
		text = fmt.Sprintf("%.30s… (%d bytes)", text, len(text))
	}
	w.ended = !w.yield(Boundary{string(f.FullName()), strconv.Quote(text), out, made})
}

func isDuration(f protoreflect.FieldDescriptor) bool {
	return f.Message() != nil && f.Message().FullName() == "google.protobuf.Duration"
}

type count int

func isCount(v any) bool { _, is := v.(count); return is }

// edgesOf are values for a field, or for an element of its list; nil is the field's absence.
func edgesOf(f protoreflect.FieldDescriptor) []any {
	rules, err := protovalidate.ResolveFieldRules(f)
	if err != nil {
		panic(fmt.Sprintf("arbitrary: rules of %s: %v", f.FullName(), err)) // a test compiles them all
	}
	out := []any{nil}
	if f.IsMap() {
		for _, v := range append(strings.Split("a b", " "), formats...) {
			out = append(out, map[string]string{"x": v}, map[string]string{"time": v})
		}
		return out
	}
	if f.IsList() {
		if f.Message() != nil {
			return append(out, count(2), count(rules.GetRepeated().GetMaxItems()))
		}
		rules = rules.GetRepeated().GetItems()
	}
	switch {
	case isDuration(f):
		return append(out, durationEdges(rules)...)
	case f.Message() != nil:
		return append(out, struct{}{})
	}
	switch f.Kind() {
	case protoreflect.BoolKind:
		return append(out, true, false)
	case protoreflect.EnumKind:
		for i := range f.Enum().Values().Len() {
			out = append(out, f.Enum().Values().Get(i).Number())
		}
	case protoreflect.DoubleKind:
		for _, p := range percents {
			out = append(out, p)
		}
	case protoreflect.Uint32Kind:
		out = append(out, numberEdges(rules)...)
	case protoreflect.StringKind:
		out = append(out, textEdges(f, rules)...)
	}
	return out
}

func numberEdges(rules *validate.FieldRules) []any {
	set := []uint64{
		0, 1, 2, 199, 200, 599, 600, 65535, 65536, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32 - 1,
		math.MaxUint32,
	}
	for _, n := range []uint32{rules.GetUint32().GetLte(), rules.GetUint32().GetGte()} {
		set = append(set, uint64(n), uint64(n)+1, uint64(max(n, 1))-1)
	}
	for _, n := range rules.GetUint32().GetIn() {
		set = append(set, uint64(n))
	}
	var out []any
	for _, n := range set {
		if n <= math.MaxUint32 {
			out = append(out, uint32(n))
		}
	}
	return out
}

func durationEdges(rules *validate.FieldRules) []any {
	var out []any
	set := []*durationpb.Duration{rules.GetDuration().GetGte(), rules.GetDuration().GetLte(), {Seconds: 315576000000}}
	for _, d := range durations {
		set = append(set, &durationpb.Duration{Seconds: d[0], Nanos: int32(d[1])})
	}
	for _, d := range set {
		for _, x := range []*durationpb.Duration{
			d,
			{Seconds: d.GetSeconds(), Nanos: d.GetNanos() - 1},
			{Seconds: d.GetSeconds(), Nanos: d.GetNanos() + 1},
		} {
			if x.CheckValid() == nil { // no other one can be written in JSON
				out = append(out, x)
			}
		}
	}
	return out
}

// textEdges are words that fit the field, words that do not, and the shortest and longest ones that it takes.
func textEdges(f protoreflect.FieldDescriptor, rules *validate.FieldRules) []any {
	list, known := wordsOf(string(f.Parent().Name()) + "." + string(f.Name()))
	if !known {
		list, _ = wordsOf(string(f.Name()))
	}
	longest := max(rules.GetString().GetMaxLen(), rules.GetString().GetMaxBytes())
	out := []any{"a", "A", "a.example.com", "%", "%REQ(x)%", "a\tb", "\u0080", "\u00ff", ":a", "/", "//a", "*"}
	for _, unit := range []string{"a", "é", ".", "a.", "x{9}", "%%"} {
		for _, start := range []string{"", "/"} {
			if n := min(int(longest), 1<<17) - len(start); n > 8 {
				out = append(out, start+strings.Repeat(unit, n/len(unit)))
			}
		}
	}
	for _, w := range append(append([]string{}, list...), oddities...) {
		out = append(out, w)
	}
	for _, w := range rules.GetString().GetIn() {
		out = append(out, w)
	}
	return out
}
