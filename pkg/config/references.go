package config

import (
	"fmt"
	"slices"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

// Reference is one object's mention of another.
type Reference struct {
	To resource.Ref
	// Trusted says of a certificate that it is not presented: clients' or servers' certificates must come from it.
	Trusted bool
	path    string // with a %d for each place in a list
	at      [3]int
}

// Path is where it stands in the spec: $.backends[0].service.
func (r Reference) Path() string {
	args := make([]any, strings.Count(r.path, "%d"))
	for i := range args {
		args[i] = r.at[i]
	}
	return fmt.Sprintf(r.path, args...)
}

// References lists what an object refers to.
func References(o *resource.Object) []Reference {
	var out []Reference
	add := func(kind, name, path string, at ...int) {
		if name != "" {
			r := Reference{To: resource.Ref{Kind: kind, Name: name}, path: path}
			copy(r.at[:], at)
			out = append(out, r)
		}
	}
	trust := func(name, path string, at ...int) {
		if name != "" {
			add(resource.KindCertificate, name, path, at...)
			out[len(out)-1].Trusted = true
		}
	}
	switch m := o.Message().(type) {
	case *configv1.Route:
		for i, b := range m.GetBackends() {
			add(resource.KindService, b.GetService(), "$.backends[%d].service", i)
		}
		for i, b := range m.GetMirrors() {
			add(resource.KindService, b.GetService(), "$.mirrors[%d].service", i)
		}
		for i, g := range Gateways(m) {
			add(resource.KindGateway, g, "$.gateways[%d]", i)
		}
		if p := m.GetAuthPolicy(); p != NoPolicy {
			add(resource.KindAuthPolicy, p, "$.auth_policy")
		}
	case *configv1.AuthPolicy:
		add(resource.KindService, m.GetJwt().GetRemoteJwks().GetService(), "$.jwt.remote_jwks.service")
	case *configv1.Service:
		trust(m.GetTls().GetCaCertificate(), "$.tls.ca_certificate")
		add(resource.KindCertificate, m.GetTls().GetClientCertificate(), "$.tls.client_certificate")
	case *configv1.Certificate:
		for i, g := range servername.Gateways(m) {
			add(resource.KindGateway, g, "$.gateways[%d]", i)
		}
	case *configv1.Gateway:
		for i, l := range m.GetListeners() {
			out = slices.Grow(out, len(l.GetCertificates()))
			for j, c := range l.GetCertificates() {
				add(resource.KindCertificate, c, "$.listeners[%d].certificates[%d]", i, j)
			}
			for j, a := range l.GetClientAuth() {
				trust(a.GetCaCertificate(), "$.listeners[%d].client_auth[%d].ca_certificate", i, j)
				for k, c := range a.GetCertificates() {
					add(resource.KindCertificate, c, "$.listeners[%d].client_auth[%d].certificates[%d]", i, j, k)
				}
			}
		}
		add(resource.KindService, m.GetTracing().GetService(), "$.tracing.service")
		add(resource.KindAuthPolicy, m.GetAuthPolicy(), "$.auth_policy")
		add(resource.KindLicense, m.GetLicense(), "$.license")
	case *configv1.RateLimitPolicy:
		for i, g := range m.GetGateways() {
			add(resource.KindGateway, g, "$.gateways[%d]", i)
		}
	}
	return out
}

// differ finds the references that a change takes away and adds. What its lists have in common at their ends is left
// out, so that a long list costs a comparison; of what lies between, everything is taken away and added.
func differ(c Change) (gone, come []Reference) {
	if c.Before != nil {
		gone = References(c.Before)
	}
	if c.After != nil {
		come = References(c.After)
	}
	same := func(a, b Reference) bool { return a.To == b.To && a.Trusted == b.Trusted }
	for len(gone) > 0 && len(come) > 0 && same(gone[0], come[0]) {
		gone, come = gone[1:], come[1:]
	}
	for len(gone) > 0 && len(come) > 0 && same(gone[len(gone)-1], come[len(come)-1]) {
		gone, come = gone[:len(gone)-1], come[:len(come)-1]
	}
	return gone, come
}
