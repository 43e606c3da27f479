package config

import (
	"fmt"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/locality"
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
	check:      (*State).checkCollecting,
	WarnBeside: warnLocality,
}

// warnLocality says where a service speaks of places in vain.
func warnLocality(s *State, c Change) []Problem {
	if c.After == nil {
		return nil
	}
	m := c.After.Message().(*configv1.Service)
	p := m.GetLocality()
	if p == nil {
		return nil
	}
	var out []Problem
	if m.GetHealthCheck() == nil && m.GetOutlierDetection() == nil {
		out = append(out, problem(c.After, "$.locality", "locality.checks", "has no effect when endpoints die: without "+
			"health_check or outlier_detection every endpoint is taken for healthy"))
	}
	look := func(field string, i int, x *configv1.Locality) {
		if at := locality.Of(x); !s.anyEndpoint(c.After.Name, at.Has) {
			out = append(out, problem(c.After, fmt.Sprintf("$.locality.%s[%d]", field, i), "locality.empty",
				"names %s, where the service has no endpoint now", at))
		}
	}
	for i, x := range p.GetFailover() {
		look("failover", i, x)
	}
	for i, x := range p.GetSplit() {
		look("split", i, x.GetPlace())
	}
	return out
}

// hostsOf are the hosts of endpoints.
func hostsOf[E interface{ GetHost() string }](endpoints []E) []Place {
	out := make([]Place, len(endpoints))
	for i, e := range endpoints {
		out[i] = Place{fmt.Sprintf("$.endpoints[%d].host", i), e.GetHost()}
	}
	return out
}
