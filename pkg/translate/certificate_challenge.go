package translate

import (
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

var challengeKind = kind{
	// The tables of the hosts that are to be proven, and that of the wildcards, which may serve any of them.
	changed: func(w *work, c config.Change) {
		for o := range c.Objects {
			m := o.Message().(*configv1.CertificateChallenge)
			if !slices.Contains(m.GetGateways(), w.gateway) {
				continue
			}
			w.scopes[wildcardScope] = true
			for _, r := range m.GetResponses() {
				if w.st.Serves(config.HostKey{Gateway: w.gateway, Host: r.GetHost()}) {
					w.scopes[scopeHost(r.GetHost())] = true
				}
			}
		}
	},
	alone: func(*checker, *resource.Object) {},
}

// challengeName is that of the routes with answers, in logs and metrics.
const challengeName = "certificate-challenge"

// challengePath is where an authority asks (RFC 8555, 8.3).
const challengePath = "/.well-known/acme-challenge/"

// answer has a virtual host answer authorities before all else: no redirect, no policy and no client certificate that its
// other routes demand is in their way. host is the one that it serves, and "" where it may be any. Who knows such a path
// has it from the authority, which made it up, and reads nothing that others must not know.
func (t *tableBuilder) answer(v *routev3.VirtualHost, host string) {
	var routes []*routev3.Route
	for _, o := range t.st.ChallengesAt(t.gateway) {
		of := len(routes)
		for _, r := range o.Message().(*configv1.CertificateChallenge).GetResponses() {
			if host == "" || r.GetHost() == host {
				routes = append(routes, t.route(challengeName, challengeRoute(r))...)
			}
		}
		if len(routes) > of && !slices.Contains(t.objects, o.Ref()) {
			t.objects = append(t.objects, o.Ref())
		}
	}
	if len(routes) > 0 {
		v.Routes = slices.Insert(v.Routes, slices.Index(v.Routes, noTrace)+1, routes...)
	}
}

// challengeRoute is an answer in the words of a route.
func challengeRoute(r *configv1.ChallengeResponse) *configv1.Route {
	return &configv1.Route{
		Path:       &configv1.PathMatch{Match: &configv1.PathMatch_Exact{Exact: challengePath + r.GetId()}},
		AuthPolicy: config.NoPolicy,
		DirectResponse: &configv1.DirectResponse{
			Status: 200, Body: r.GetBody(), ContentType: "application/octet-stream",
		},
	}
}
