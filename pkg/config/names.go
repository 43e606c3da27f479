package config

import (
	"net/netip"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

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
