package resource

import (
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

// MissingSecret is the rule that is broken where a secret is needed that neither a write nor what is stored
// has. Reads and exports do not show secrets, so that what comes from another place lacks them.
const MissingSecret = "secret.missing"

// DigestField is the field beside a secret that is hashed.
const DigestField = "sha256"

// SecretField is a field of a message that is a secret by its option in the schema, or that has secrets below it.
type SecretField struct {
	Name string
	// Use is what is done with the secret; none for a field that has secrets below it.
	Use configv1.Secret
	// List says that it is a list of such, whose items are told apart by what Key names.
	List bool
	Key  string
	// Below are the fields of its message.
	Below []SecretField

	field protoreflect.FieldDescriptor
}

// Message is the type of the field's message, or of its items.
func (f SecretField) Message() protoreflect.MessageType {
	t, err := protoregistry.GlobalTypes.FindMessageByName(f.field.Message().FullName())
	if err != nil {
		panic(err) // the generated code registers it
	}
	return t
}

var secretFields sync.Map // of a message's descriptor

// SecretFields lists the fields of a message that are secrets or have any below them.
func SecretFields(d protoreflect.MessageDescriptor) []SecretField {
	if known, ok := secretFields.Load(d.FullName()); ok {
		return known.([]SecretField)
	}
	found := fieldsWithSecrets(d, map[protoreflect.FullName]bool{})
	secretFields.Store(d.FullName(), found)
	return found
}

func fieldsWithSecrets(d protoreflect.MessageDescriptor, above map[protoreflect.FullName]bool) (out []SecretField) {
	if above[d.FullName()] {
		return nil
	}
	above[d.FullName()] = true
	defer delete(above, d.FullName())
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		s := SecretField{Name: string(f.Name()), field: f, List: f.IsList()}
		s.Use, _ = proto.GetExtension(f.Options(), configv1.E_Secret).(configv1.Secret)
		if f.Message() != nil {
			s.Below = fieldsWithSecrets(f.Message(), above)
		}
		if s.Use == configv1.Secret_SECRET_UNSPECIFIED && s.Below == nil {
			continue
		}
		// What is not understood here would be stored and shown as it is.
		if s.Use != configv1.Secret_SECRET_UNSPECIFIED && (f.Kind() != protoreflect.StringKind || f.IsList()) || f.IsMap() {
			panic(fmt.Sprintf("resource: %s cannot be a secret or have any: a secret is a string, and not in a map",
				f.FullName()))
		}
		if s.Use == configv1.Secret_SECRET_HASHED && d.Fields().ByName(DigestField) == nil {
			panic(fmt.Sprintf("resource: %s is hashed, and there is no field %s beside it", f.FullName(), DigestField))
		}
		if s.List {
			key := f.Message().Fields().Get(0)
			if key.Kind() != protoreflect.StringKind || key.IsList() {
				panic(fmt.Sprintf("resource: items of %s have secrets, and no name in their first field", f.FullName()))
			}
			s.Key = string(key.Name())
		}
		out = append(out, s)
	}
	return out
}

// Secret is one of a spec. It may be empty.
type Secret struct {
	Use configv1.Secret
	// Field is what it is called, with the names of items of lists, and what it is sealed for: jwt.keys.KID.secret.
	Field string
	// Path is where it stands in the spec: $.jwt.keys[0].secret; Item where the item of a list does that it belongs to, ""
	// where it is in none.
	Path, Item string
	// Member is the field's own name.
	Member string

	holder protoreflect.Message
	field  protoreflect.FieldDescriptor
}

// Secrets lists the secrets of a spec, those that it does not have too.
func Secrets(spec proto.Message) []Secret {
	m := spec.ProtoReflect()
	return appendSecrets(nil, m, SecretFields(m.Descriptor()), "", "$", "")
}

func appendSecrets(out []Secret, m protoreflect.Message, fields []SecretField, name, path, item string) []Secret {
	for _, f := range fields {
		name, path := name+f.Name, path+"."+f.Name
		switch {
		case f.Below == nil:
			out = append(out, Secret{Use: f.Use, Field: name, Path: path, Item: item, Member: f.Name, holder: m, field: f.field})
		case !m.Has(f.field):
		case f.List:
			items := m.Get(f.field).List()
			for i := range items.Len() {
				x, at := items.Get(i).Message(), fmt.Sprintf("%s[%d]", path, i)
				key := x.Get(x.Descriptor().Fields().ByName(protoreflect.Name(f.Key))).String()
				out = appendSecrets(out, x, f.Below, name+"."+key+".", at, at)
			}
		default:
			out = appendSecrets(out, m.Get(f.field).Message(), f.Below, name+".", path, item)
		}
	}
	return out
}

// Get is the secret; "" where there is none.
func (s Secret) Get() string { return s.holder.Get(s.field).String() }

// Set changes the spec that it is of.
func (s Secret) Set(value string) { s.holder.Set(s.field, protoreflect.ValueOfString(value)) }

// Holder is the message that has it.
func (s Secret) Holder() proto.Message { return s.holder.Interface() }

// Digest is the digest beside a secret that is hashed.
func (s Secret) Digest() Secret {
	out := s
	out.Use, out.Member, out.field = configv1.Secret_SECRET_DIGEST, DigestField,
		s.field.Parent().(protoreflect.MessageDescriptor).Fields().ByName(DigestField)
	out.Field, out.Path = strings.TrimSuffix(s.Field, s.Member)+DigestField, strings.TrimSuffix(s.Path, s.Member)+
		DigestField
	return out
}

// Redacted is a copy of a spec without its secrets; the spec itself where it has none.
func Redacted(spec proto.Message) proto.Message {
	has := false
	for _, s := range Secrets(spec) {
		has = has || s.Get() != ""
	}
	if !has {
		return spec
	}
	shown := proto.Clone(spec)
	for _, s := range Secrets(shown) {
		s.holder.Clear(s.field)
	}
	return shown
}
