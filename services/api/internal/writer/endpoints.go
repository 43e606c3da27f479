package writer

import (
	"fmt"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// endpoints finds the addresses that services may not have. Those of names are the xDS server's to refuse, which looks
// them up.
func (w *Writer) endpoints(changes []config.Change) (out []config.Problem) {
	for _, c := range changes {
		if c.Ref().Kind != resource.KindService || c.After == nil {
			continue
		}
		for i, e := range c.After.Message().(*configv1.Service).GetEndpoints() {
			if why := w.Allowed.HostRefusal(e.GetHost()); why != "" {
				out = append(out, config.Problem{Object: c.Ref(), Violation: resource.Violation{
					Path: fmt.Sprintf("$.endpoints[%d].host", i), Message: why, Rule: "endpoint.address",
				}})
			}
		}
	}
	return out
}
