package resource

import (
	"regexp"
	"sync"
	"unicode/utf8"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// listRules are the rules of a field that is a list of strings. The validator has the rules of a list's items
// interpreted, item by item, which makes a list of 10,000 names the dearest part of a write. A list that keeps these
// rules need not be looked at by the validator; one that does not is, for its words about it.
type listRules struct {
	min, max int // items; max is 0 for no limit
	unique   bool
	// minLen and maxLen count characters; maxLen is 0 for no limit.
	minLen, maxLen int
	pattern        *regexp.Regexp
}

// listsOf keeps the rules of each field; nil for one that is no such list or has rules beside those.
var listsOf sync.Map // protoreflect.FullName: *listRules

func rulesOf(f protoreflect.FieldDescriptor) *listRules {
	if known, ok := listsOf.Load(f.FullName()); ok {
		return known.(*listRules)
	}
	r := readRules(f)
	listsOf.Store(f.FullName(), r)
	return r
}

func readRules(f protoreflect.FieldDescriptor) *listRules {
	if !f.IsList() || f.Kind() != protoreflect.StringKind {
		return nil
	}
	all, err := protovalidate.ResolveFieldRules(f)
	if err != nil || all.GetRepeated().GetItems().GetString() == nil {
		return nil
	}
	list := all.GetRepeated()
	item := list.GetItems().GetString()
	r := &listRules{
		min: int(list.GetMinItems()), max: int(list.GetMaxItems()), unique: list.GetUnique(),
		minLen: int(item.GetMinLen()), maxLen: int(item.GetMaxLen()),
	}
	// Are these all that there are?
	rest := proto.CloneOf(all)
	text := rest.GetRepeated().GetItems().GetString()
	text.MinLen, text.MaxLen, text.Pattern = nil, nil, nil
	rest.GetRepeated().MinItems, rest.GetRepeated().MaxItems, rest.GetRepeated().Unique = nil, nil, nil
	if !proto.Equal(rest, &validate.FieldRules{Type: &validate.FieldRules_Repeated{Repeated: &validate.RepeatedRules{
		Items: &validate.FieldRules{Type: &validate.FieldRules_String_{String_: &validate.StringRules{}}},
	}}}) {
		return nil
	}
	if item.Pattern != nil {
		if r.pattern, err = regexp.Compile(item.GetPattern()); err != nil {
			return nil
		}
	}
	return r
}

func (r *listRules) keptBy(list protoreflect.List) bool {
	n := list.Len()
	if n < r.min || (r.max > 0 && n > r.max) {
		return false
	}
	var seen map[string]struct{}
	if r.unique && n > 1 {
		seen = make(map[string]struct{}, n)
	}
	for i := range n {
		x := list.Get(i).String()
		if length := utf8.RuneCountInString(x); length < r.minLen || (r.maxLen > 0 && length > r.maxLen) {
			return false
		}
		if r.pattern != nil && !r.pattern.MatchString(x) {
			return false
		}
		if seen != nil {
			if _, twice := seen[x]; twice {
				return false
			}
			seen[x] = struct{}{}
		}
	}
	return true
}

// unlessKept has the validator pass over lists that keep their rules.
var unlessKept = protovalidate.WithFilter(
	protovalidate.FilterFunc(func(m protoreflect.Message, d protoreflect.Descriptor) bool {
		f, ok := d.(protoreflect.FieldDescriptor)
		if !ok {
			return true
		}
		r := rulesOf(f)
		return r == nil || !r.keptBy(m.Get(f).List())
	}),
)
