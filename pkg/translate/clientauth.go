package translate

import (
	"maps"
	"slices"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	valuev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
)

// Hosts that demand a client certificate. Their tables are shared with every connection of a listener, so that a
// client may ask for them on a connection that was made for another server name, and a gateway's other listeners have
// tables for them as well. What makes a request good enough is the filter chain that its connection came through: one
// that demands certificates of an authority notes the authority at the connection, and the routes of a host that
// demands it match on no other. All else is sent away (421), to make a connection of its own.
//
// A listener that does not demand the certificate serves only the redirects of such a host, so that plain HTTP on
// port 80 can send its clients to HTTPS.

// clientCA is the state of a connection that holds the authority whose certificate the client has shown.
const clientCA = "marchproxy.client_ca"

// clientCAFilter notes the authority at each connection of a filter chain that demands its certificates.
func clientCAFilter(ca string) *listenerv3.Filter {
	return &listenerv3.Filter{
		Name: "envoy.filters.network.set_filter_state",
		ConfigType: &listenerv3.Filter_TypedConfig{
			TypedConfig: pack(&statev3.Config{OnNewConnection: []*valuev3.FilterStateValue{{
				Key: &valuev3.FilterStateValue_ObjectKey{ObjectKey: clientCA}, FactoryKey: "envoy.string", ReadOnly: true,
				Value: &valuev3.FilterStateValue_FormatString{FormatString: textFormat(literal(ca), "")},
			}}}),
		},
	}
}

// guard are the hosts of a listener that demand a client certificate, wildcards as they are written, with the
// authority.
type guard map[string]string

// guardsOf are the guards of a gateway's listeners, by their names; nil where none demands a certificate.
func guardsOf(g *configv1.Gateway) map[string]guard {
	var out map[string]guard
	for _, l := range g.GetListeners() {
		if len(l.GetClientAuth()) == 0 {
			continue
		}
		if out == nil {
			out = map[string]guard{}
		}
		out[l.GetName()] = guardOf(l)
	}
	return out
}

func guardOf(l *configv1.Listener) guard {
	g := guard{}
	for _, a := range l.GetClientAuth() {
		for _, h := range a.GetHosts() {
			g[h] = a.GetCaCertificate()
		}
	}
	return g
}

// of is the authority of a host, or of a wildcard; empty where it demands none. It is found as Envoy finds filter
// chains: by the host itself, then by the longest wildcard.
func (g guard) of(host string) string {
	if len(g) == 0 || g[host] != "" {
		return g[host]
	}
	for h := range above(host) {
		if ca := g[h]; ca != "" {
			return ca
		}
	}
	return ""
}

// above yields the wildcards above a host or another wildcard, the longest first.
func above(host string) func(func(string) bool) {
	return func(yield func(string) bool) {
		rest := strings.TrimPrefix(host, "*.")
		for ok := true; ok; {
			if _, rest, ok = strings.Cut(rest, "."); ok && !yield("*."+rest) {
				return
			}
		}
	}
}

// demands says which authority's certificate a host, or a wildcard, demands on a listener, and whether it demands one
// on another one only.
func (v *view) demands(l *configv1.Listener, host string) (ca string, elsewhere bool) {
	if ca := v.guards[l.GetName()].of(host); ca != "" {
		return ca, false
	}
	return "", slices.ContainsFunc(v.gw.GetListeners(),
		func(o *configv1.Listener) bool { return v.guards[o.GetName()].of(host) != "" })
}

// demanded are the hosts and wildcards of all listeners that demand a certificate and have no routes on this one but
// those of a wildcard above them: in its table they need a place of their own. It returns the wildcard of each.
func (v *view) demanded(wild map[string]bool) map[string]string {
	out := map[string]string{}
	for _, l := range v.gw.GetListeners() {
		for h := range v.guards[l.GetName()] {
			if wild[h] || out[h] != "" {
				continue
			}
			for a := range above(h) {
				if wild[a] {
					out[h] = a
					break
				}
			}
			if out[h] == "" && wild[config.AnyHost] {
				out[h] = config.AnyHost
			}
		}
	}
	return out
}

// protectHost has a host's routes match only what the host demands.
func (t *tableBuilder) protectHost(v *routev3.VirtualHost, host string) {
	ca, elsewhere := t.demands(t.listener, host)
	switch {
	case ca != "":
		shown := []*matcherv3.FilterStateMatcher{{
			Key: clientCA, Matcher: &matcherv3.FilterStateMatcher_StringMatch{StringMatch: exactly(ca)},
		}}
		for i, r := range v.GetRoutes() {
			switch r {
			case noTrace:
				continue
			case notFound:
				r = &routev3.Route{Name: r.GetName(), Match: everything(), Action: r.GetAction()}
				v.Routes[i] = r
			}
			r.Match.FilterState = shown
		}
		v.Routes = append(v.Routes, misdirected)
	case elsewhere:
		for i, r := range v.GetRoutes() {
			switch {
			case r == notFound:
				v.Routes[i] = misdirected
			case r != noTrace && r.GetRedirect() == nil:
				r.Action = misdirected.GetAction()
			}
		}
	}
}

// misdirected sends a request away that came on the wrong connection (RFC 9110, 15.5.20). It is made once, and not
// changed.
var misdirected = &routev3.Route{
	Name: noRoute, Match: everything(),
	Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
		Status: 421, Body: inline("this host needs a connection of its own\n"),
	}},
}

// wildcards builds the virtual hosts of a listener's table of wildcards, in order.
func (t *tableBuilder) wildcards() []*routev3.VirtualHost {
	routed := map[string]bool{}
	for h := range t.wild {
		routed[h] = len(t.routes(h)) > 0
	}
	source := t.demanded(routed)
	for h, has := range routed {
		if has {
			source[h] = h
		}
	}
	var out []*routev3.VirtualHost
	for _, h := range slices.Sorted(maps.Keys(source)) {
		v := t.virtualHost(h, h, t.routes(source[h]))
		t.protectHost(v, h)
		t.answer(v, "")
		out = append(out, v)
	}
	if len(source[config.AnyHost]) == 0 && len(t.st.ChallengesAt(t.gateway)) > 0 {
		v := t.virtualHost(config.AnyHost, config.AnyHost, nil) // for hosts that nothing serves yet
		t.answer(v, "")
		out = append(out, v)
	}
	return out
}
