package config

import (
	"fmt"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Envoy selects the route of a request again once a filter has changed a header of it, and what has been asked of the
// request until then was asked for the route that it had before: its policy, its feature, its limits. So no route may
// match by a header that a policy or a license of its gateway changes. Otherwise a client that sends such a header
// would choose the route whose policy is asked, and be served by another one, without its policy.

// headerKey is a header of a gateway's requests, by its [headerWord].
type headerKey struct{ gateway, header string }

// headerWord is equal for all names that the filters take for the same header: a server that speaks CGI reads X_User
// as it reads x-user.
func headerWord(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// LicenseHeaders begin the names of the headers that a gateway with a license takes off.
const LicenseHeaders = "x-license-"

// checkMatched looks at the headers by which a route matches.
func (s *State) checkMatched(o *resource.Object) (out []Problem) {
	r := routeOf(o)
	for i, h := range r.GetHeaders() {
		word, path := headerWord(h.GetName()), fmt.Sprintf("$.headers[%d].name", i)
		if strings.HasPrefix(word, LicenseHeaders) {
			out = append(out, problem(o, path, "route.header", "is %q, which a license takes off every request; match by "+
				"another header", h.GetName()))
			continue
		}
		if policy, gateway := s.changer(word, Gateways(r)); policy != "" {
			out = append(out, problem(o, path, "route.header", "is %q, which the auth policy %q of gateway %q changes, after "+
				"the route has been selected; match by another header", h.GetName(), policy, gateway))
		}
	}
	return out
}

// changer finds a policy that one of some gateways needs and that changes a header, the first by name.
func (s *State) changer(word string, gateways []string) (policy, gateway string) {
	for _, gw := range gateways {
		for p := range s.changing[word].all() {
			if s.policies[gw].has(p) && (policy == "" || p < policy) {
				policy, gateway = p, gw
			}
		}
	}
	return policy, gateway
}

// checkNeeded looks at the headers which a policy changes that an object names, at a path, for some gateways.
func (s *State) checkNeeded(o *resource.Object, path, policy string, gateways []string) []Problem {
	named := s.Get(resource.Ref{Kind: resource.KindAuthPolicy, Name: policy})
	if named == nil {
		return nil
	}
	for _, h := range changedHeaders(authPolicyOf(named)) {
		if route, gw := s.matcher(h.word, gateways); route != "" {
			return []Problem{problem(o, path, "route.header", "is %q, which changes the header %q, by which route %q of "+
				"gateway %q matches; let that match by another one first", policy, h.word, route, gw)}
		}
	}
	return nil
}

// matcher finds a route of one of some gateways that matches by a header, the first by name.
func (s *State) matcher(word string, gateways []string) (route, gateway string) {
	for _, gw := range gateways {
		for o := range s.matching[headerKey{gw, word}].all() {
			if route == "" || o < route {
				route, gateway = o, gw
			}
		}
	}
	return route, gateway
}

// checkChanged looks at the headers that a policy changes.
func (s *State) checkChanged(o *resource.Object) (out []Problem) {
	gateways := s.PolicyGateways(o.Name)
	for _, h := range changedHeaders(authPolicyOf(o)) {
		if route, gw := s.matcher(h.word, gateways); route != "" {
			out = append(out, problem(o, h.path, "route.header", "changes the header %q, by which route %q of gateway %q "+
				"matches; let that match by another one first", h.word, route, gw))
		}
	}
	return out
}

// indexMatched notes the headers by which a route matches.
func (s *State) indexMatched(o *resource.Object, by int) {
	r := routeOf(o)
	if len(r.GetHeaders()) == 0 { // as most
		return
	}
	for _, gw := range Gateways(r) {
		for _, h := range r.GetHeaders() {
			put(s.matching, headerKey{gw, headerWord(h.GetName())}, o.Name, by)
		}
	}
}

// indexChanged notes the headers that a policy changes.
func (s *State) indexChanged(o *resource.Object, by int) {
	for _, h := range changedHeaders(authPolicyOf(o)) {
		put(s.changing, h.word, o.Name, by)
	}
}
