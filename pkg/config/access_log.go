package config

import (
	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// collector is a service that entries of a gateway's access log are sent to, and where that stands.
type collector struct{ service, path string }

// collectorsOf are those of a gateway.
func collectorsOf(g *configv1.Gateway) (out []collector) {
	a := g.GetAccessLog()
	if s := a.GetOtlp().GetService(); s != "" {
		out = append(out, collector{s, "$.access_log.otlp.service"})
	}
	if s := a.GetGrpc().GetService(); s != "" {
		out = append(out, collector{s, "$.access_log.grpc.service"})
	}
	return out
}

// speaksGRPC says whether gRPC can be spoken with a service.
func speaksGRPC(s *configv1.Service) bool {
	return s.GetProtocol() == configv1.Service_grpc || s.GetProtocol() == configv1.Service_http2
}

// checkCollectors refuses collectors that Envoy would send to in vain.
func (s *State) checkCollectors(o *resource.Object) (out []Problem) {
	for _, c := range collectorsOf(gatewayOf(o)) {
		to := s.Get(resource.Ref{Kind: resource.KindService, Name: c.service})
		if to != nil && !speaksGRPC(resource.Spec[*configv1.Service](to)) {
			out = append(out, problem(o, c.path, "gateway.access_log", "names the service %q, whose protocol is not grpc; the "+
				"access log is sent by gRPC", c.service))
		}
	}
	return out
}

// checkCollecting refuses another protocol of a service that access logs are sent to.
func (s *State) checkCollecting(c Change) (out []Problem) {
	if speaksGRPC(resource.Spec[*configv1.Service](c.After)) || !speaksGRPC(resource.Spec[*configv1.Service](c.Before)) {
		return nil // of one that was never collecting
	}
	for _, u := range s.Users(c.After.Ref()) {
		if u.Kind != resource.KindGateway {
			continue
		}
		for _, x := range collectorsOf(gatewayOf(s.Get(u))) {
			if x.service == c.After.Name {
				out = append(out, problem(c.After, "$.protocol", "gateway.access_log", "must be grpc: gateway %q sends its access "+
					"log there (%s)", u.Name, x.path))
			}
		}
	}
	return out
}
