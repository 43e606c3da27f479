package servername

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"regexp"
	"slices"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Certificate is what matters here of one.
type Certificate struct {
	Name string
	// created is when it was made, as objects carry it; the order of certificates that no listener lists.
	created string
	// names are in lower case, wildcards with their "*.".
	names []string
	kind  string // of its key
	// gateways and listeners are those that it names itself.
	gateways, listeners []string
}

// Gateways are the gateways that a certificate names as those that present it.
func Gateways(c *configv1.Certificate) []string {
	if len(c.GetGateways()) == 0 && len(c.GetListeners()) > 0 {
		return []string{resource.DefaultGateway}
	}
	return c.GetGateways()
}

// hostName is a name that a filter chain can be found by.
var hostName = regexp.MustCompile(`^(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*$`)

// Read reads a certificate.
func Read(o *resource.Object) *Certificate {
	m := o.Message().(*configv1.Certificate)
	c := &Certificate{Name: o.Name, created: o.CreatedAt, gateways: Gateways(m), listeners: m.GetListeners()}
	leaf, err := certificate.Leaf(m.GetChain())
	if err != nil {
		return c // the writer has read it; an older one may have taken what this one does not
	}
	names := leaf.DNSNames
	if len(names)+len(leaf.IPAddresses)+len(leaf.URIs)+len(leaf.EmailAddresses) == 0 {
		names = []string{leaf.Subject.CommonName} // so does Envoy
	}
	seen := make(map[string]bool, len(names))
	for _, n := range names {
		if n = strings.ToLower(n); hostName.MatchString(n) && !seen[n] {
			seen[n] = true
			c.names = append(c.names, n)
		}
	}
	switch leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		c.kind = "rsa"
	case *ecdsa.PublicKey:
		c.kind = "ecdsa"
	}
	return c
}

// Names are the server names that it is for, in lower case.
func (c *Certificate) Names() []string { return c.names }

// same says whether two certificates make no difference here.
func (c *Certificate) same(o *Certificate) bool {
	return c != nil && o != nil && c.kind == o.kind && c.created == o.created && slices.Equal(c.names, o.names) &&
		slices.Equal(c.gateways, o.gateways) && slices.Equal(c.listeners, o.listeners)
}

// namesGateway and namesListener say whether the certificate names them; the listener being one of such a gateway.
func (c *Certificate) namesGateway(gateway string) bool {
	return c != nil && slices.Contains(c.gateways, gateway)
}

func (c *Certificate) namesListener(listener string) bool {
	return len(c.listeners) == 0 || slices.Contains(c.listeners, listener)
}

// before orders certificates that no listener lists: by age, then name.
func (c *Certificate) before(o *Certificate) bool {
	if c.created != o.created {
		return c.created < o.created
	}
	return c.Name < o.Name
}

// parents yields the wildcards that a name, or a wildcard itself, is below: *.b.c and *.c of a.b.c.
func parents(name string) func(func(string) bool) {
	return func(yield func(string) bool) {
		name = strings.TrimPrefix(name, "*.")
		for {
			_, rest, found := strings.Cut(name, ".")
			if !found || !yield("*."+rest) {
				return
			}
			name = rest
		}
	}
}

func isWildcard(name string) bool { return strings.HasPrefix(name, "*.") }
