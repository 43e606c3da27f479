package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// A secrets file gives what reads and exports leave out. It is a mapping of KIND/NAME to its secrets by field,
// keys and tokens in lists by their own names, so that the order in the list does not matter:
//
//	Certificate/web: {private_key: ...}
//	License/main: {key: ...}
//	AuthPolicy/staff: {jwt.keys.KID.secret: ..., tokens.NAME.value: ...}
//	Gateway/edge: {api_keys.NAME.key: ...}

// spec is as much of a spec as secrets need.
type spec map[string]any

func specOf(raw []byte) (spec, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var s spec
	err := dec.Decode(&s)
	return s, err
}

// secret is one of a spec, whether it is there or not.
type secret struct {
	// field is what a secrets file calls it; path and item are where it and its item of a list stand:
	// $.spec.jwt.keys[0].secret.
	field, path, item string
	use               configv1.Secret
	at                map[string]any
	member            string
	// holder is the message that has it.
	holder protoreflect.MessageType
}

// secrets lists the secrets of a kind's spec, as the schema marks them.
func (s spec) secrets(kind string) []secret {
	k, ok := resource.KindByName(kind)
	if !ok {
		return nil
	}
	m := k.New().ProtoReflect()
	return appendSecrets(nil, s, m.Type(), resource.SecretFields(m.Descriptor()), "", "$.spec", "")
}

func appendSecrets(
	out []secret, at map[string]any, holder protoreflect.MessageType, fields []resource.SecretField,
	name, path, item string,
) []secret {
	for _, f := range fields {
		name, path := name+f.Name, path+"."+f.Name
		switch {
		case f.Below == nil:
			out = append(out, secret{name, path, item, f.Use, at, f.Name, holder})
		case f.List:
			items, _ := at[f.Name].([]any)
			for i, x := range items {
				if m, ok := x.(map[string]any); ok {
					key, _ := m[f.Key].(string)
					place := fmt.Sprintf("%s[%d]", path, i)
					out = appendSecrets(out, m, f.Message(), f.Below, name+"."+key+".", place, place)
				}
			}
		default:
			if m, ok := at[f.Name].(map[string]any); ok {
				out = appendSecrets(out, m, f.Message(), f.Below, name+".", path, item)
			}
		}
	}
	return out
}

func (s secret) has(member string) bool { return s.at[member] != nil && s.at[member] != "" }

// needed says whether the message cannot be without the secret, by what else it says. What of that is wrong is left
// out.
func (s secret) needed(kind string) bool {
	of := config.KindOf(kind).Secret
	if of == nil {
		return false
	}
	m := s.holder.New().Interface()
	for name, value := range s.at {
		raw, err := json.Marshal(map[string]any{name: value})
		if one := s.holder.New().Interface(); err == nil && (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw,
			one) == nil {
			proto.Merge(m, one)
		}
	}
	_, why := of(m)
	return why != ""
}

// SecretField is what a secrets file calls the secret at a path of the resource ($.spec.private_key); "" where
// there is none.
func (d *Document) SecretField(path string) string {
	s, err := specOf(d.Spec)
	if err != nil {
		return ""
	}
	for _, x := range s.secrets(d.Kind) {
		if x.use != configv1.Secret_SECRET_DIGEST && (x.path == path || x.item != "" && x.item == path) {
			return x.field
		}
	}
	return ""
}

// Withheld are the secrets that a resource has where it was read, and that were not read with it.
func (f File) Withheld() (out []string) {
	s, err := specOf(f.Spec)
	if err != nil {
		return nil
	}
	for _, x := range s.secrets(f.Kind) {
		switch {
		case x.has(x.member):
		case x.use == configv1.Secret_SECRET_HASHED && !x.has(resource.DigestField), x.use == configv1.Secret_SECRET_SEALED &&
			x.needed(f.Kind):
			out = append(out, x.field)
		}
	}
	return out
}

// known says in words which secrets there are.
func known() string {
	var out []string
	for _, k := range resource.Kinds {
		var names []string
		walkNames(resource.SecretFields(k.New().ProtoReflect().Descriptor()), "", &names)
		if len(names) > 0 {
			out = append(out, k.Name+": "+strings.Join(names, ", "))
		}
	}
	return strings.Join(out, "; ")
}

func walkNames(fields []resource.SecretField, above string, names *[]string) {
	for _, f := range fields {
		switch {
		case f.List:
			walkNames(f.Below, above+f.Name+"."+strings.ToUpper(f.Key)+".", names)
		case f.Below != nil:
			walkNames(f.Below, above+f.Name+".", names)
		case f.Use != configv1.Secret_SECRET_DIGEST:
			*names = append(*names, above+f.Name)
		}
	}
}

// AddSecrets reads a secrets file and puts what it has into the documents. Its errors repeat no secret.
func AddSecrets(path string, docs []*Document) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	nodes, err := roots(path, raw)
	if err != nil {
		return err
	}
	var errs []error
	fail := func(n *yaml.Node, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s:%d: %s", path, n.Line, fmt.Sprintf(format, args...)))
	}
	for _, n := range nodes {
		pairs(n, fail, "KIND/NAME", func(key, value *yaml.Node) {
			i := slices.IndexFunc(docs, func(d *Document) bool { return d.Ref().String() == key.Value })
			if i < 0 {
				fail(key, "%s is not in the files; correct its kind or name, or remove it", key.Value)
				return
			}
			pairs(value, fail, "a field", func(field, given *yaml.Node) {
				if message := docs[i].add(field.Value, given); message != "" {
					fail(field, "%s %s %s", key.Value, field.Value, message)
				}
			})
		})
	}
	return first(errs)
}

// pairs calls f with the keys and values of a mapping.
func pairs(n *yaml.Node, fail func(*yaml.Node, string, ...any), of string, f func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		fail(n, "must be a mapping of %s to secrets: Certificate/web: {private_key: ...}", of)
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		f(n.Content[i], n.Content[i+1])
	}
}

// add puts a secret in its place and says what is wrong with it.
func (d *Document) add(field string, given *yaml.Node) string {
	s, err := specOf(d.Spec)
	if err != nil {
		return "cannot be added: the spec is not an object"
	}
	all := s.secrets(d.Kind)
	i := slices.IndexFunc(all, func(x secret) bool { return x.field == field && x.use != configv1.Secret_SECRET_DIGEST })
	switch {
	case i < 0:
		return "is no secret of this resource; there are " + known()
	case given.Kind != yaml.ScalarNode || given.Value == "":
		return "must be text"
	case all[i].has(all[i].member):
		return "stands in the files as well; keep one"
	}
	all[i].at[all[i].member] = given.Value
	if d.Spec, err = json.Marshal(s); err != nil {
		return "cannot be added: " + err.Error()
	}
	return ""
}

// TakeSecrets takes the secrets out of resources, and returns them as a secrets file has them.
func TakeSecrets(files []File) map[string]map[string]string {
	out := map[string]map[string]string{}
	for i, f := range files {
		s, err := specOf(f.Spec)
		if err != nil {
			continue
		}
		took := map[string]string{}
		for _, x := range s.secrets(f.Kind) {
			if value, is := x.at[x.member].(string); is && value != "" && x.use != configv1.Secret_SECRET_DIGEST {
				took[x.field] = value
				delete(x.at, x.member)
			}
		}
		if len(took) == 0 {
			continue
		}
		if raw, err := json.Marshal(s); err == nil {
			files[i].Spec = raw
			out[f.Kind+"/"+f.Name] = took
		}
	}
	return out
}
