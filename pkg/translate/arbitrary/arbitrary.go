// Package arbitrary makes configurations of bytes, for fuzzing. Whatever the bytes are, what they make
// keeps the schema's rules, and is often at an edge of them: bytes that merely look like JSON hardly ever
// get that far.
package arbitrary

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// tries is how often a refused object is changed before it is given up.
const tries = 8

// maxObjects is how many objects one input makes.
const maxObjects = 20

// first are what others refer to; what comes after is of any kind and name.
var first = []resource.Ref{
	{Kind: resource.KindCertificate, Name: "site"},
	{Kind: resource.KindCertificate, Name: "authority"},
	{Kind: resource.KindService, Name: "web"},
	{Kind: resource.KindService, Name: "api"},
	{Kind: resource.KindService, Name: "s-3"},
	{Kind: resource.KindAuthPolicy, Name: "staff"},
	{Kind: resource.KindLicense, Name: "main"},
	{Kind: resource.KindGateway, Name: resource.DefaultGateway},
}

// Objects makes objects that pass the schema's rules. A name may come up again, as another version of the
// object. Certificates are picked from certs, since they cannot be made up.
func Objects(data []byte, certs []*configv1.Certificate) []*resource.Object {
	s := &source{data}
	kinds := []string{
		resource.KindRoute, resource.KindService, resource.KindRoute, resource.KindService, resource.KindGateway,
		resource.KindCertificate, resource.KindRoute, resource.KindRateLimit,
		resource.KindAuthPolicy, resource.KindLicense,
	}
	for _, k := range resource.Kinds {
		if names[k.Name] == nil { // nothing refers to it by name here
			kinds = append(kinds, k.Name)
		}
	}
	var out []*resource.Object
	for len(s.data) > 0 && len(out) < maxObjects {
		ref := resource.Ref{Kind: s.of(kinds)}
		if ref.Name = "x-1"; names[ref.Kind] != nil {
			ref.Name = s.of(names[ref.Kind])
		}
		if len(out) < len(first) {
			ref = first[len(out)]
		}
		k, _ := resource.KindByName(ref.Kind)
		var m proto.Message
		if k.Name == resource.KindCertificate {
			c := proto.CloneOf(certs[s.below(len(certs))])
			for range s.below(3) {
				c.Gateways = append(c.Gateways, s.of(words["gateways"]))
			}
			for range s.below(2) {
				c.Listeners = append(c.Listeners, s.of(words["listeners"]))
			}
			m = c
		} else {
			m = s.spec(k)
		}
		if keepRules(m) {
			if o, err := resource.New(ref, m); err == nil {
				o.Revision = int64(len(out) + 1)
				out = append(out, o)
			}
		}
	}
	return out
}

// Spec makes a spec of a kind that passes the schema's rules; nil where none could be made of the bytes, and of a
// Certificate, which cannot be made up.
func Spec(data []byte, kind string) proto.Message {
	k, known := resource.KindByName(kind)
	if !known || kind == resource.KindCertificate {
		return nil
	}
	if m := (&source{data}).spec(k); keepRules(m) {
		return m
	}
	return nil
}

// spec fills a spec of a kind.
func (s *source) spec(k resource.Kind) proto.Message {
	m := k.New()
	s.fill(m.ProtoReflect(), 0)
	switch m := m.(type) {
	case *configv1.Route:
		oneAction(m)
	case *configv1.AuthPolicy:
		s.credentials(m)
	}
	return m
}

// keepRules takes out of a message what breaks the schema's rules, and says whether the rest keeps them.
func keepRules(m proto.Message) bool {
	for range tries {
		v := resource.Validate(m)
		if len(v) == 0 {
			return true
		}
		for _, x := range v {
			clearAt(m.ProtoReflect(), x.Path)
		}
	}
	return false
}

// oneAction keeps one of a route's actions, and gives it one where it has none.
func oneAction(r *configv1.Route) {
	switch {
	case len(r.GetBackends()) > 0:
		r.Redirect, r.DirectResponse = nil, nil
	case r.GetRedirect() != nil:
		r.DirectResponse = nil
	case r.GetDirectResponse() == nil:
		r.DirectResponse = &configv1.DirectResponse{Status: 204}
	}
}

// Accept applies an object as the api does: what the checks refuse is changed until they take it, or taken
// back. It returns the object as it was accepted, nil where it was not.
func Accept(st *config.State, o *resource.Object) (*resource.Object, []config.Change) {
	for range tries {
		changes, undo := st.Apply([]*resource.Object{o})
		problems := append(st.Check(changes), translate.Check(st, changes)...)
		if len(problems) == 0 {
			return o, changes
		}
		undo()
		m := proto.Clone(o.Message())
		for _, p := range problems {
			clearAt(m.ProtoReflect(), p.Path)
		}
		if r, ok := m.(*configv1.Route); ok {
			oneAction(r)
		}
		next, err := resource.New(o.Ref(), m)
		if err != nil || len(resource.Validate(m)) > 0 {
			return nil, nil
		}
		next.Revision = o.Revision
		o = next
	}
	return nil, nil
}

// source reads decisions from bytes; when they are used up every decision is the first choice.
type source struct{ data []byte }

func (s *source) below(n int) int {
	if len(s.data) == 0 || n <= 1 {
		return 0
	}
	b := int(s.data[0])
	s.data = s.data[1:]
	return b % n
}

func (s *source) of(words []string) string { return words[s.below(len(words))] }

// fill sets fields of a message. A field is absent as often as not.
func (s *source) fill(m protoreflect.Message, depth int) {
	if m.Descriptor().FullName() == "google.protobuf.Duration" {
		d := durations[s.below(len(durations))]
		m.Set(m.Descriptor().Fields().ByName("seconds"), protoreflect.ValueOfInt64(d[0]))
		m.Set(m.Descriptor().Fields().ByName("nanos"), protoreflect.ValueOfInt32(int32(d[1])))
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
			if f.Index() == o.Fields().Get(0).Index() { // one member, whichever
				f = o.Fields().Get(s.below(o.Fields().Len()))
				m.Set(f, s.value(m.NewField(f), f, depth))
			}
			continue
		}
		if s.below(2) == 0 && !wanted[string(f.FullName())] {
			continue
		}
		m.Set(f, s.value(m.NewField(f), f, depth))
	}
}

func (s *source) value(empty protoreflect.Value, f protoreflect.FieldDescriptor, depth int) protoreflect.Value {
	switch {
	case f.IsMap():
		for range s.below(3) {
			empty.Map().Set(protoreflect.ValueOfString(s.text(f, "key")).MapKey(),
				protoreflect.ValueOfString(s.text(f, "value")))
		}
		return empty
	case f.IsList():
		for range 1 + s.below(3) {
			if f.Message() != nil {
				s.fill(empty.List().AppendMutable().Message(), depth+1)
			} else {
				empty.List().Append(s.scalar(f))
			}
		}
		return empty
	case f.Message() != nil:
		s.fill(empty.Message(), depth+1)
		return empty
	}
	return s.scalar(f)
}

func (s *source) scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(s.text(f, string(f.Name())))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(s.below(2) == 1)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(f.Enum().Values().Get(s.below(f.Enum().Values().Len())).Number())
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(percents[s.below(len(percents))])
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(numbers[s.below(len(numbers))])
	}
	return f.Default()
}

// text is a word for a field: mostly one that fits it.
func (s *source) text(f protoreflect.FieldDescriptor, name string) string {
	list, known := wordsOf(string(f.Parent().Name()) + "." + name)
	if !known {
		list, known = wordsOf(name)
	}
	if !known || s.below(16) == 15 {
		list = oddities
	}
	return s.of(list)
}

func wordsOf(key string) ([]string, bool) {
	if list, known := words[key]; known {
		return list, true
	}
	list, known := credentialWords[key]
	return list, known
}

// clearAt removes what a violation's path names: the field itself, or the list that it stands in. Where
// there is no such field any more, the one that it was part of.
func clearAt(m protoreflect.Message, path string) {
	segments := strings.Split(strings.TrimPrefix(strings.TrimPrefix(path, "$"), "."), ".")
	for i, seg := range segments {
		name, index, indexed := strings.Cut(seg, "[")
		f := m.Descriptor().Fields().ByTextName(name)
		if f == nil {
			return
		}
		last := i == len(segments)-1
		switch {
		case last || f.Message() == nil || f.IsMap() || !m.Has(f):
			m.Clear(f)
			return
		case f.IsList():
			n, err := strconv.Atoi(strings.TrimSuffix(index, "]"))
			if !indexed || err != nil || n >= m.Get(f).List().Len() {
				m.Clear(f)
				return
			}
			next := m.Get(f).List().Get(n).Message()
			if !hasField(next, segments[i+1]) {
				m.Clear(f)
				return
			}
			m = next
		default:
			next := m.Get(f).Message()
			if !hasField(next, segments[i+1]) {
				m.Clear(f)
				return
			}
			m = m.Mutable(f).Message()
		}
	}
}

// hasField is false where a segment is already clear: then its parent has to go.
func hasField(m protoreflect.Message, segment string) bool {
	name, _, _ := strings.Cut(segment, "[")
	f := m.Descriptor().Fields().ByTextName(name)
	return f != nil && m.Has(f)
}
