package config

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

var routeKind = Kind{
	Name:       resource.KindRoute,
	Example:    `{"spec": {"hosts": ["shop.example.com"], "path": {"prefix": "/"}, "backends": [{"service": "web"}]}}`,
	Traffic:    true,
	references: routeReferences,
	listeners: func(o *resource.Object) listenerNames {
		r := routeOf(o)
		if len(r.GetListeners()) == 0 { // as most; this is asked on each change
			return listenerNames{}
		}
		return listenerNames{Gateways(r), r.GetListeners(), false}
	},
	index: (*State).indexRoute,
	check: (*State).checkRoute,
	Concerns: func(c Change) (gateways []string, all bool) {
		for o := range c.Objects {
			gateways = append(gateways, Gateways(routeOf(o))...)
		}
		return gateways, false
	},
	Reach: func(o *resource.Object) (out Reach) {
		for i, g := range Gateways(routeOf(o)) {
			out.Gateways = append(out.Gateways, Place{fmt.Sprintf("$.gateways[%d]", i), g})
		}
		for i, h := range Hosts(routeOf(o)) {
			out.Hosts = append(out.Hosts, Place{fmt.Sprintf("$.hosts[%d]", i), h})
		}
		return out
	},
}

func routeOf(o *resource.Object) *configv1.Route { return resource.Spec[*configv1.Route](o) }

// AnyHost is the host of routes that serve every name that no other route of the listener names.
const AnyHost = "*"

// Gateways are the gateways that serve a route.
func Gateways(r *configv1.Route) []string {
	if len(r.GetGateways()) == 0 {
		return []string{resource.DefaultGateway}
	}
	return r.GetGateways()
}

// Hosts are the hosts that a route serves.
func Hosts(r *configv1.Route) []string {
	if len(r.GetHosts()) == 0 {
		return []string{AnyHost}
	}
	return r.GetHosts()
}

// OnListener says whether a route is served on a listener.
func OnListener(r *configv1.Route, listener string) bool {
	return len(r.GetListeners()) == 0 || slices.Contains(r.GetListeners(), listener)
}

func routeReferences(o *resource.Object, r *refs) {
	m := routeOf(o)
	for i, b := range m.GetBackends() {
		r.add(resource.KindService, b.GetService(), "$.backends[%d].service", i)
	}
	for i, b := range m.GetMirrors() {
		r.add(resource.KindService, b.GetService(), "$.mirrors[%d].service", i)
	}
	for i, g := range Gateways(m) {
		r.add(resource.KindGateway, g, "$.gateways[%d]", i)
	}
	if p := m.GetAuthPolicy(); p != NoPolicy {
		r.add(resource.KindAuthPolicy, p, "$.auth_policy")
	}
}

func (s *State) indexRoute(o *resource.Object, by int) {
	m := routeOf(o)
	match := matchKey(m)
	if m.GetTls() == configv1.Route_auto {
		s.automatic = s.automatic.with(o, by)
	}
	for _, gw := range Gateways(m) {
		for _, host := range Hosts(m) {
			put(s.byHost, HostKey{gw, host}, o, by)
			put(s.served, serveKeyOf(HostKey{gw, host}, match), o, by)
		}
		s.need(gw, m.GetAuthPolicy(), by)
	}
	s.indexMatched(o, by)
}

// checkRoute finds other routes that serve the same requests of a host, and headers that decide on nothing.
func (s *State) checkRoute(c Change) []Problem {
	var out []Problem
	o, r := c.After, routeOf(c.After)
	out = append(out, s.checkTLS(o)...)
	if matched := s.checkMatched(o); len(matched) > 0 {
		out = append(out, matched...)
	} else {
		out = append(out, s.checkNeeded(o, "$.auth_policy", r.GetAuthPolicy(), Gateways(r))...)
	}
	match := matchKey(r)
	for _, gw := range Gateways(r) {
		for i, host := range Hosts(r) {
			rivals := s.served[serveKeyOf(HostKey{gw, host}, match)]
			if rivals.len() < 2 {
				continue
			}
			for rival := range rivals.all() {
				if rival.Name != o.Name && shareListener(r, routeOf(rival)) {
					out = append(out, problem(
						o,
						fmt.Sprintf("$.hosts[%d]", i),
						"route.conflict",
						"host %q with this match is already served by route %q on gateway %q; change the match or the other route",
						host,
						rival.Name,
						gw,
					))
					break
				}
			}
		}
	}
	return out
}

func shareListener(a, b *configv1.Route) bool {
	if len(a.GetListeners()) == 0 || len(b.GetListeners()) == 0 {
		return true
	}
	return slices.ContainsFunc(a.GetListeners(), func(l string) bool { return slices.Contains(b.GetListeners(), l) })
}

// serveKey is the digest of a host with a match: two routes that have the same one on a common listener would leave
// it to chance which of them serves.
type serveKey [16]byte

func serveKeyOf(h HostKey, match string) serveKey {
	sum := sha256.Sum256([]byte(h.Gateway + "\x00" + h.Host + "\x00" + match))
	return serveKey(sum[:])
}

// matchKey is equal for two routes exactly where they match the same requests of a host by the same
// words.
func matchKey(r *configv1.Route) string {
	if len(r.GetMethods())+len(r.GetHeaders())+len(r.GetQuery()) == 0 { // as most are; no message begins with a zero byte
		switch m := r.GetPath().GetMatch().(type) {
		case *configv1.PathMatch_Prefix:
			return "\x00prefix" + m.Prefix
		case *configv1.PathMatch_Exact:
			return "\x00exact" + m.Exact
		case nil:
			if r.GetPath() == nil {
				return "\x00prefix/"
			}
		}
	}
	methods := slices.Clone(r.GetMethods())
	slices.Sort(methods)
	only := &configv1.Route{
		Path: r.GetPath(), Methods: methods, Headers: byName(r.GetHeaders(), true),
		Query: byName(r.GetQuery(), false),
	}
	if only.Path == nil {
		only.Path = &configv1.PathMatch{Match: &configv1.PathMatch_Prefix{Prefix: "/"}}
	}
	b, err := (proto.MarshalOptions{Deterministic: true}).Marshal(only)
	if err != nil {
		panic(fmt.Sprintf("config: marshal match: %v", err)) // strings were checked for UTF-8 when decoded
	}
	return string(b)
}

func byName(in []*configv1.NamedMatch, fold bool) []*configv1.NamedMatch {
	out := make([]*configv1.NamedMatch, len(in))
	for i, m := range in {
		out[i] = m
		if fold && strings.ToLower(m.GetName()) != m.GetName() {
			out[i] = proto.CloneOf(m)
			out[i].Name = strings.ToLower(m.GetName())
		}
	}
	slices.SortStableFunc(out, func(a, b *configv1.NamedMatch) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}
