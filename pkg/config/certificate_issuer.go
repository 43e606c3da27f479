package config

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

var issuerKind = Kind{
	Name:    resource.KindIssuer,
	Example: `{"spec": {"directory": "letsencrypt-staging", "terms_agreed": true}}`,
	references: func(o *resource.Object, r *refs) {
		for i, g := range issuerOf(o).GetHttp01().GetGateways() {
			r.add(resource.KindGateway, g, "$.http01.gateways[%d]", i)
		}
	},
	check: (*State).checkIssuer,
	// An Envoy gets nothing of it.
	Concerns: func(Change) ([]string, bool) { return nil, false },
	// It decides where the certificates come from of all who name it.
	Reach: func(o *resource.Object) Reach {
		out := Reach{Users: true}
		for i, g := range issuerOf(o).GetHttp01().GetGateways() {
			out.Gateways = append(out.Gateways, Place{fmt.Sprintf("$.http01.gateways[%d]", i), g})
		}
		return out
	},
	Secret: func(holder proto.Message) (can bool, needed string) {
		switch holder.(type) {
		case *configv1.ExternalAccount:
			return true, ": it is what the authority gave you together with key_id"
		case *configv1.Rfc2136:
			return true, ": the name server takes no update without it"
		}
		return true, ""
	},
	Secrets: func(w *SecretWrite) {
		if ca := w.Spec.(*configv1.CertificateIssuer).GetTrustedCa(); ca != "" {
			if _, err := certificate.Chain(ca); err != nil {
				w.Fail("$.trusted_ca", "certificate", err.Error())
			}
		}
	},
}

func issuerOf(o *resource.Object) *configv1.CertificateIssuer {
	return resource.Spec[*configv1.CertificateIssuer](o)
}

// Issuer finds one; nil where there is none.
func (s *State) Issuer(name string) *configv1.CertificateIssuer {
	return issuerOf(s.Get(resource.Ref{Kind: resource.KindIssuer, Name: name}))
}

// ByDNS says whether an issuer proves a name by a record in the DNS rather than by HTTP.
func ByDNS(i *configv1.CertificateIssuer, name string) bool {
	return i.GetDns01() != nil && (isWildcard(name) || i.GetHttp01() == nil)
}

func isWildcard(name string) bool { return strings.HasPrefix(name, "*.") }

// needsDNS says what is wrong with a name that an issuer cannot prove; "" where it can.
func needsDNS(i *configv1.CertificateIssuer, name string) string {
	if i != nil && isWildcard(name) && i.GetDns01() == nil {
		return "authorities issue for a wildcard only where it is proven by the DNS"
	}
	return ""
}

// checkIssuer refuses to leave a certificate with a name that the issuer cannot prove any more.
func (s *State) checkIssuer(c Change) []Problem {
	if issuerOf(c.After).GetDns01() != nil || issuerOf(c.Before).GetDns01() == nil {
		return nil // the names of certificates that come are looked at with them
	}
	var out []Problem
	for _, u := range s.Users(c.Ref()) {
		if u.Kind != resource.KindCertificate {
			continue
		}
		for _, n := range certificateOf(s.Get(u)).GetNames() {
			if why := needsDNS(issuerOf(c.After), n); why != "" {
				out = append(out, problem(c.After, "$.dns01", "certificate.wildcard", "is missing, and %s asks for %s: %s", u, n,
					why))
				break
			}
		}
	}
	return out
}
