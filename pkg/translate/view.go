package translate

import (
	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// view is a configuration as one gateway sees it. Everything that an Envoy gets is a function of it and of arguments:
// these functions change nothing, know nothing of a [Builder], and may run on several cores at once (TestDirection).
type view struct {
	gateway string
	gw      *configv1.Gateway // nil where there is none
	st      *config.State
	opt     Options
	// parts are policies as filter configs hold them.
	parts *parts
	// guards are the hosts that demand a client certificate, by listener.
	guards map[string]guard
	// wild are the wildcard hosts with routes, the default's among them: to find them takes a look at all hosts.
	wild map[string]bool
}

func look(st *config.State, gateway string, opt Options, parts *parts) view {
	return view{gateway: gateway, gw: gatewayIn(st, gateway), st: st, opt: opt, parts: parts}
}

// ref is the gateway as an object.
func (v *view) ref() resource.Ref { return resource.Ref{Kind: resource.KindGateway, Name: v.gateway} }

func (v *view) policy(name string) *configv1.AuthPolicy {
	return resource.Spec[*configv1.AuthPolicy](v.st.Get(resource.Ref{Kind: resource.KindAuthPolicy, Name: name}))
}

// module is the file of one of our filters.
func (v *view) module(name string) string {
	if v.opt.Module == nil {
		return "/var/lib/envoy/wasm/" + name + ".wasm"
	}
	return v.opt.Module(name)
}
