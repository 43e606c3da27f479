package config

import (
	"fmt"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Reference is one object's mention of another.
type Reference struct {
	// Path in the spec: $.backends[0].service.
	Path string
	To   resource.Ref
}

// References lists what an object refers to.
func References(o *resource.Object) []Reference {
	var out []Reference
	add := func(kind, name, path string, args ...any) {
		if name != "" {
			out = append(out, Reference{fmt.Sprintf(path, args...), resource.Ref{Kind: kind, Name: name}})
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
		add(resource.KindCertificate, m.GetTls().GetCaCertificate(), "$.tls.ca_certificate")
		add(resource.KindCertificate, m.GetTls().GetClientCertificate(), "$.tls.client_certificate")
	case *configv1.Gateway:
		for i, l := range m.GetListeners() {
			for j, c := range l.GetCertificates() {
				add(resource.KindCertificate, c, "$.listeners[%d].certificates[%d]", i, j)
			}
			for j, a := range l.GetClientAuth() {
				add(resource.KindCertificate, a.GetCaCertificate(), "$.listeners[%d].client_auth[%d].ca_certificate", i, j)
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
