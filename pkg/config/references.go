package config

import (
	"fmt"
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
func References(o *resource.Object) []Reference { return references(o, nil) }

// references lists it without those of a gateway's listener's certificates that begin and end its list: so many as
// same says, by listener.
func references(o *resource.Object, same [][2]int) []Reference {
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
			from, to := 0, len(l.GetCertificates())
			if same != nil {
				from, to = same[i][0], to-same[i][1]
			}
			for j, c := range l.GetCertificates()[from:to] {
				add(resource.KindCertificate, c, "$.listeners[%d].certificates[%d]", i, from+j)
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
	same := c.sameCertificates()
	if c.Before != nil {
		gone = references(c.Before, same)
	}
	if c.After != nil {
		come = references(c.After, same)
	}
	equal := func(a, b Reference) bool { return a.To == b.To && a.Trusted == b.Trusted }
	from, to := servername.Common(gone, come, equal)
	return gone[from : len(gone)-to], come[from : len(come)-to]
}

// sameCertificates counts, by listener, what the lists of certificates have in common before and after; nil where the
// listeners are not as many.
func (c Change) sameCertificates() [][2]int {
	if c.Before == nil || c.After == nil || c.Ref().Kind != resource.KindGateway {
		return nil
	}
	was, now := gatewayOf(c.Before).GetListeners(), gatewayOf(c.After).GetListeners()
	if len(was) != len(now) {
		return nil
	}
	out := make([][2]int, len(now))
	for i := range now {
		from, to := servername.Common(was[i].GetCertificates(), now[i].GetCertificates(), servername.Equal)
		out[i] = [2]int{from, to}
	}
	return out
}
