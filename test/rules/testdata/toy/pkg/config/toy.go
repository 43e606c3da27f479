package config

import (
	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

var toyKind = Kind{
	Name:    "Toy",
	Example: `{"spec": {"gateway": "web", "label": "ball"}}`,
	references: func(o *resource.Object, r *refs) {
		r.add(resource.KindGateway, toyOf(o).GetGateway(), "$.gateway")
	},
	check: func(_ *State, c Change) []Problem {
		if toyOf(c.After).GetLabel() == "broken" {
			return []Problem{problem(c.After, "$.label", "toy", "is no toy; mend it")}
		}
		return nil
	},
	Concerns: func(c Change) (gateways []string, all bool) {
		for _, o := range []*resource.Object{c.Before, c.After} {
			if o != nil {
				gateways = append(gateways, toyOf(o).GetGateway())
			}
		}
		return gateways, false
	},
	Reach: func(o *resource.Object) Reach {
		return Reach{Gateways: []Place{{"$.gateway", toyOf(o).GetGateway()}}, EveryHost: &Why{"$", "plays with every host"}}
	},
}

func toyOf(o *resource.Object) *configv1.Toy { return o.Message().(*configv1.Toy) }
