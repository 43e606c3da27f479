package config

import (
	"net/netip"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

var serviceKind = Kind{
	Name: resource.KindService,
	references: func(o *resource.Object, r *refs) {
		tls := o.Message().(*configv1.Service).GetTls()
		r.trust(tls.GetCaCertificate(), "$.tls.ca_certificate")
		r.add(resource.KindCertificate, tls.GetClientCertificate(), "$.tls.client_certificate")
	},
}

// DNSNames are the hosts of a service's endpoints that are to be resolved.
func DNSNames(s *configv1.Service) []string {
	var out []string
	for _, e := range s.GetEndpoints() {
		if _, err := netip.ParseAddr(e.GetHost()); err != nil {
			out = append(out, e.GetHost())
		}
	}
	return out
}
