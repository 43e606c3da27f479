package translate

import (
	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

var localityDrainKind = kind{
	// The endpoints of every service that has some there. That is looked for among all of them, so that nothing has to be
	// kept up for a change that is rare.
	changed: func(w *work, c config.Change) {
		for o := range c.Objects {
			for service := range w.st.In(locality.Of(o.Message().(*configv1.LocalityDrain))) {
				w.services[service] = true
			}
		}
	},
	alone: func(*checker, *resource.Object) {},
}
