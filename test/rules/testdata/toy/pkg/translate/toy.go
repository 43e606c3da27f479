package translate

import (
	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// toyKind has an access log with each toy's label in it, as far as anybody can tell: the gateway's listeners are made
// again.
var toyKind = kind{
	changed: func(w *work, c config.Change) {
		if c.After != nil && c.After.Message().(*configv1.Toy).GetGateway() == w.gateway {
			w.listener = true
		}
	},
	alone: func(k *checker, o *resource.Object) {
		if o.Message().(*configv1.Toy).GetLabel() == "square" {
			k.add("$.label", "toy", "does not roll")
		}
	},
}
