package identity

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// What a certificate of `marchproxy pki` says in URIs of its subject alternative name: the part's role, and of an
// agent the gateway that its Envoy belongs to. A certificate of one's own authority says nothing of it, and may be
// anybody's.
const (
	rolePrefix    = "urn:marchproxy:role:"
	gatewayPrefix = "urn:marchproxy:gateway:"
)

// RoleURI and GatewayURI are those URIs.
func RoleURI(role string) *url.URL { return &url.URL{Scheme: "urn", Opaque: "marchproxy:role:" + role} }

// GatewayURI says that a certificate is of an Envoy of a gateway.
func GatewayURI(gateway string) *url.URL {
	return &url.URL{Scheme: "urn", Opaque: "marchproxy:gateway:" + gateway}
}

// Opens says why a certificate does not open a gateway's configuration; nil where it does, as far as it says anything.
func Opens(c *x509.Certificate, gateway string) error {
	roles, gateways := said(c, rolePrefix), said(c, gatewayPrefix)
	switch {
	case len(roles) > 0 && !slices.Contains(roles, "agent"):
		return fmt.Errorf("the certificate of %s is of a %s, not of an agent", c.Subject.CommonName,
			strings.Join(roles, ", "))
	case len(gateways) > 0 && !slices.Contains(gateways, gateway):
		return fmt.Errorf("the certificate of %s is for the gateway %s", c.Subject.CommonName, strings.Join(gateways, ", "))
	}
	return nil
}

func said(c *x509.Certificate, prefix string) (out []string) {
	for _, u := range c.URIs {
		if word, ok := strings.CutPrefix(u.String(), prefix); ok {
			out = append(out, word)
		}
	}
	return out
}
