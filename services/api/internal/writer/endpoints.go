package writer

import (
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// endpoints finds the addresses to which nothing may be sent. Those of names are the xDS server's to refuse, which
// looks them up.
func (w *Writer) endpoints(changes []config.Change) (out []config.Problem) {
	for _, c := range changes {
		k := config.KindOf(c.Ref().Kind)
		if k.Endpoints == nil || c.After == nil {
			continue
		}
		for _, e := range k.Endpoints(c.After) {
			if why := w.Allowed.HostRefusal(e.Name); why != "" {
				out = append(out, config.Problem{Object: c.Ref(), Violation: resource.Violation{
					Path: e.Path, Message: why,
					Rule: "endpoint.address",
				}})
			}
		}
	}
	return out
}
