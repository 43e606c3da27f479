// Package offline checks files as the api would, without one: the schema, references and conflicts, and
// what Envoy would refuse. It finds everything at once, where the api stops at the first kind of mistake.
//
// What it cannot know is what the api holds already: the gateway default is assumed to be as the first
// boot makes it, and nothing else to be there.
package offline

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/cli/internal/manifest"
)

// Finding is one thing that is wrong.
type Finding struct {
	Document *manifest.Document
	// Violation's path is below the resource: $.spec.hosts[0].
	resource.Violation
}

// defaultPort is that of the gateway default as the first boot makes it.
const defaultPort = 10000

// Check finds what is wrong. With partial the files are taken for a part of the configuration: what they
// refer to and do not hold is assumed to be there.
func Check(docs []*manifest.Document, partial bool) []Finding {
	c := &checker{docs: map[resource.Ref]*manifest.Document{}, partial: partial}
	var objects []*resource.Object
	for _, d := range docs {
		c.docs[d.Ref()] = d
		if o := c.own(d); o != nil {
			objects = append(objects, o)
		}
	}
	st := config.New()
	if ref := (resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway}); c.docs[ref] == nil {
		g := &configv1.Gateway{Listeners: []*configv1.Listener{{Name: "http", Port: defaultPort}}}
		if o, err := resource.New(ref, g); err == nil { // four constants
			st.Apply([]*resource.Object{o})
		}
	}
	changes, _ := st.Apply(objects)
	wrong := map[resource.Ref]bool{}
	for _, p := range st.Check(changes) {
		if c.unknown(st, p) {
			continue
		}
		wrong[p.Object] = true
		c.add(c.docs[p.Object], resource.Violations{p.Violation}.Under("$.spec"))
	}
	// What refers to nothing would only be said twice.
	changes = slices.DeleteFunc(changes, func(x config.Change) bool { return wrong[x.Ref()] })
	for _, p := range translate.Check(st, changes) {
		c.add(c.docs[p.Object], resource.Violations{p.Violation}.Under("$.spec"))
	}
	order := make(map[*manifest.Document]int, len(docs))
	for i, d := range docs {
		order[d] = i
	}
	slices.SortStableFunc(c.found, func(a, b Finding) int { return order[a.Document] - order[b.Document] })
	return c.found
}

type checker struct {
	docs    map[resource.Ref]*manifest.Document
	partial bool
	found   []Finding
}

func (c *checker) add(d *manifest.Document, v resource.Violations) {
	if d == nil { // the assumed gateway, which only a route can have made wrong
		return
	}
	for _, x := range v {
		c.found = append(c.found, Finding{d, x})
	}
}

// unknown says that a problem is about what the files may not hold, or what has a problem of its own.
func (c *checker) unknown(st *config.State, p config.Problem) bool {
	o := st.Get(p.Object)
	if o == nil {
		return false
	}
	switch p.Rule {
	case "reference.dangling":
		for _, r := range config.References(o) {
			if r.Path() == p.Path {
				return c.partial || c.docs[r.To] != nil
			}
		}
	case "reference.listener":
		return c.partial && c.docs[resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway}] == nil
	}
	return false
}

// own checks a resource by itself; it returns nil where that is so wrong that it cannot be looked at with
// the others.
func (c *checker) own(d *manifest.Document) *resource.Object {
	k, ok := resource.KindByName(d.Kind)
	if !ok {
		c.add(d, resource.Violations{{Path: "$.kind", Message: fmt.Sprintf("is %q; it must be one of %s", d.Kind,
			resource.KindNames()), Rule: "kind"}})
		return nil
	}
	before := len(c.found)
	if msg := resource.CheckName(d.Name); msg != "" {
		c.add(d, resource.Violations{{Path: "$.name", Message: msg, Rule: "name"}})
	}
	c.add(d, resource.CheckEnvelope(d.Owner, d.Labels))
	m, v := resource.DecodeSpec(k, d.Spec)
	if len(v) == 0 {
		v = resource.Validate(m)
	}
	if len(v) == 0 {
		m, v = secrets(m)
	}
	c.add(d, v.Under("$.spec"))
	if len(c.found) > before {
		return nil
	}
	o, err := resource.New(d.Ref(), m)
	if err != nil {
		c.add(d, resource.Violations{{Path: "$.spec", Message: err.Error(), Rule: "json"}})
		return nil
	}
	return o
}

// storedKey stands for a private key that only the api has.
const storedKey = "stored"

// secrets checks what the api would take out of a spec before it stores it.
func secrets(m proto.Message) (proto.Message, resource.Violations) {
	if m, is := m.(*configv1.Certificate); is { // what a gateway's key, a policy or a license lacks may be stored
		if m.GetChain() == "" && m.GetIssuer() != "" { // the api puts one in its place until the issuer has issued one
			m = proto.CloneOf(m)
			var err error
			if m.Chain, m.PrivateKey, err = certificate.Placeholder(); err != nil {
				return m, resource.Violations{{Path: "$.chain", Message: err.Error(), Rule: "certificate"}}
			}
			return m, nil
		}
		if _, err := certificate.Leaf(m.GetChain()); err != nil {
			return m, resource.Violations{{Path: "$.chain", Message: err.Error(), Rule: "certificate"}}
		}
		if key := m.GetPrivateKey(); key != "" {
			if err := certificate.CheckKey(m.GetChain(), key); err != nil {
				return m, resource.Violations{{Path: "$.private_key", Message: err.Error(), Rule: "certificate"}}
			}
		} else if m.GetFacts().GetHasPrivateKey() { // as export wrote it
			m = proto.CloneOf(m)
			m.PrivateKey = storedKey
			return m, nil
		}
	}
	return m, nil
}

// Count says in words how much was checked: 3 Route, 1 Service.
func Count(docs []*manifest.Document) string {
	n := map[string]int{}
	for _, d := range docs {
		n[d.Kind]++
	}
	var out []string
	for _, k := range resource.Kinds {
		if n[k.Name] > 0 {
			out = append(out, fmt.Sprintf("%d %s", n[k.Name], k.Name))
		}
	}
	return strings.Join(out, ", ")
}
