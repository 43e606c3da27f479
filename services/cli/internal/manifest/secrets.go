package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

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

// item finds what is called so in a list of the spec; nil where there is none.
func (s spec) item(list []string, key, name string) map[string]any {
	var at any = map[string]any(s)
	for _, step := range list {
		m, _ := at.(map[string]any)
		at = m[step]
	}
	items, _ := at.([]any)
	for _, x := range items {
		if m, ok := x.(map[string]any); ok && m[key] == name {
			return m
		}
	}
	return nil
}

// place finds the object that has a secret's field, and the field's name there; nil where there is none.
func (s spec) place(kind, field string) (at map[string]any, member string) {
	name, inKeys := strings.CutPrefix(field, "jwt.keys.")
	name, isSecret := strings.CutSuffix(name, ".secret")
	token, inTokens := strings.CutPrefix(field, "tokens.")
	token, isValue := strings.CutSuffix(token, ".value")
	envoy, inAPIKeys := strings.CutPrefix(field, "api_keys.")
	envoy, isKey := strings.CutSuffix(envoy, ".key")
	switch {
	case kind == resource.KindCertificate && field == "private_key", kind == resource.KindLicense && field == "key":
		return s, field
	case kind == resource.KindAuthPolicy && inKeys && isSecret:
		return s.item([]string{"jwt", "keys"}, "kid", name), "secret"
	case kind == resource.KindAuthPolicy && inTokens && isValue:
		return s.item([]string{"tokens"}, "name", token), "value"
	case kind == resource.KindGateway && inAPIKeys && isKey:
		return s.item([]string{"api_keys"}, "name", envoy), "key"
	}
	return nil, ""
}

var listed = regexp.MustCompile(`^\$\.spec\.(jwt\.keys|tokens|api_keys)\[(\d+)\](?:\.secret|\.value)?$`)

// SecretField is what a secrets file calls the secret at a path of the resource ($.spec.private_key); "" where
// there is none.
func (d *Document) SecretField(path string) string {
	s, err := specOf(d.Spec)
	if err != nil {
		return ""
	}
	field := strings.TrimPrefix(path, "$.spec.")
	if at, _ := s.place(d.Kind, field); at != nil {
		return field
	}
	m := listed.FindStringSubmatch(path)
	if m == nil || (d.Kind == resource.KindGateway) != (m[1] == "api_keys") {
		return ""
	}
	var is struct {
		Jwt     struct{ Keys []struct{ Kid string } }
		Tokens  []struct{ Name string }
		APIKeys []struct{ Name string } `json:"api_keys"`
	}
	i, err := strconv.Atoi(m[2])
	if err != nil || json.Unmarshal(d.Spec, &is) != nil {
		return ""
	}
	switch {
	case m[1] == "tokens" && i < len(is.Tokens):
		return "tokens." + is.Tokens[i].Name + ".value"
	case m[1] == "jwt.keys" && i < len(is.Jwt.Keys):
		return "jwt.keys." + is.Jwt.Keys[i].Kid + ".secret"
	case m[1] == "api_keys" && i < len(is.APIKeys):
		return "api_keys." + is.APIKeys[i].Name + ".key"
	}
	return ""
}

// Withheld are the secrets that a resource has where it was read, and that were not read with it.
func (f File) Withheld() []string {
	var is struct {
		PrivateKey string `json:"private_key"`
		Key        string
		Facts      struct {
			HasPrivateKey bool `json:"has_private_key"`
			HasKey        bool `json:"has_key"`
		}
		Jwt struct {
			Keys []struct{ Kid, Algorithm, Secret string }
		}
		APIKeys []struct{ Name, Key, Sha256 string } `json:"api_keys"`
	}
	var out []string
	if json.Unmarshal(f.Spec, &is) != nil {
		return nil
	}
	switch {
	case f.Kind == resource.KindCertificate && is.Facts.HasPrivateKey && is.PrivateKey == "":
		out = append(out, "private_key")
	case f.Kind == resource.KindLicense && is.Facts.HasKey && is.Key == "":
		out = append(out, "key")
	case f.Kind == resource.KindGateway:
		for _, k := range is.APIKeys {
			if k.Key == "" && k.Sha256 == "" {
				out = append(out, "api_keys."+k.Name+".key")
			}
		}
	case f.Kind == resource.KindAuthPolicy:
		for _, k := range is.Jwt.Keys {
			if strings.HasPrefix(k.Algorithm, "HS") && k.Secret == "" {
				out = append(out, "jwt.keys."+k.Kid+".secret")
			}
		}
	}
	return out
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
			pairs(value, fail, "a field", func(field, secret *yaml.Node) {
				if message := docs[i].add(field.Value, secret); message != "" {
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
func (d *Document) add(field string, secret *yaml.Node) string {
	s, err := specOf(d.Spec)
	if err != nil {
		return "cannot be added: the spec is not an object"
	}
	at, member := s.place(d.Kind, field)
	switch {
	case at == nil:
		return "is no secret of this resource; there are private_key of a Certificate, key of a License, " +
			"jwt.keys.KID.secret and tokens.NAME.value of an AuthPolicy, and api_keys.NAME.key of a Gateway"
	case secret.Kind != yaml.ScalarNode || secret.Value == "":
		return "must be text"
	case at[member] != nil && at[member] != "":
		return "stands in the files as well; keep one"
	}
	at[member] = secret.Value
	if d.Spec, err = json.Marshal(s); err != nil {
		return "cannot be added: " + err.Error()
	}
	return ""
}
