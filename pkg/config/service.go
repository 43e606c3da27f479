package config

import (
	"fmt"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

var serviceKind = Kind{
	Name:    resource.KindService,
	Example: `{"spec": {"endpoints": [{"host": "10.0.1.10", "port": 8081}]}, "labels": {"team": "web"}}`,
	Traffic: true,
	references: func(o *resource.Object, r *refs) {
		tls := o.Message().(*configv1.Service).GetTls()
		r.trust(tls.GetCaCertificate(), "$.tls.ca_certificate")
		r.add(resource.KindCertificate, tls.GetClientCertificate(), "$.tls.client_certificate")
	},
	Endpoints: func(o *resource.Object) []Place {
		return hostsOf(o.Message().(*configv1.Service).GetEndpoints())
	},
}

// hostsOf are the hosts of endpoints.
func hostsOf[E interface{ GetHost() string }](endpoints []E) []Place {
	out := make([]Place, len(endpoints))
	for i, e := range endpoints {
		out[i] = Place{fmt.Sprintf("$.endpoints[%d].host", i), e.GetHost()}
	}
	return out
}
