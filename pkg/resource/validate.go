package resource

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
)

var validator = sync.OnceValues(func() (protovalidate.Validator, error) {
	msgs := make([]proto.Message, len(Kinds))
	for i, k := range Kinds {
		msgs[i] = k.New()
	}
	return protovalidate.New(protovalidate.WithMessages(msgs...))
})

// Compile makes the schema's rules ready, which takes a third of a second of CPU and is done once. Without it the first
// [Validate] does it, and the first write after a start takes that much longer.
func Compile() { _, _ = validator() } // [Validate] says what is wrong with them

// Validate checks a spec against the rules in its schema; paths are below $. Rules that need other
// objects are in package config, those that need Envoy's view in package translate.
func Validate(spec proto.Message) Violations {
	v, err := validator()
	if err != nil {
		panic(fmt.Sprintf("resource: rules in the schema do not compile: %v", err)) // a test compiles them all
	}
	err = v.Validate(spec, unlessKept)
	if err == nil {
		return nil
	}
	var found *protovalidate.ValidationError
	if !errors.As(err, &found) {
		return Violations{{"$", err.Error(), "schema"}}
	}
	out := make(Violations, 0, len(found.Violations))
	for _, x := range found.Violations {
		out = append(out, Violation{
			Path:    fieldPath(x.Proto.GetField()),
			Message: sentence(x),
			Rule:    x.Proto.GetRuleId(),
		})
	}
	return out
}

func sentence(x *protovalidate.Violation) string {
	if x.Proto.GetRuleId() == "string.pattern" && x.RuleValue.IsValid() {
		if form, ok := forms[x.RuleValue.String()]; ok {
			return form
		}
	}
	if m := x.Proto.GetMessage(); m != "" {
		return m
	}
	return "breaks the rule " + x.Proto.GetRuleId() + "; see the schema"
}

func fieldPath(p *validate.FieldPath) string {
	var b strings.Builder
	b.WriteByte('$')
	for _, e := range p.GetElements() {
		// Members of a oneof are reported under their own names; the oneof itself has none in JSON.
		if e.GetFieldNumber() != 0 {
			b.WriteByte('.')
			b.WriteString(e.GetFieldName())
		}
		switch s := e.GetSubscript().(type) {
		case *validate.FieldPathElement_Index:
			fmt.Fprintf(&b, "[%d]", s.Index)
		case *validate.FieldPathElement_StringKey:
			fmt.Fprintf(&b, "[%q]", s.StringKey)
		}
	}
	return b.String()
}

var nameRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// CheckName says what is wrong with a resource's name, or returns "".
func CheckName(name string) string {
	if len(name) == 0 || len(name) > MaxNameLength || !nameRE.MatchString(name) {
		return "must be an RFC 1123 label: 1 to 63 of a-z, 0-9 and -, not starting or ending with -"
	}
	return ""
}
