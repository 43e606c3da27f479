package config

import (
	"fmt"
	"time"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

var gatewayKind = Kind{
	Name:       resource.KindGateway,
	Example:    `{"spec": {"listeners": [{"name": "http", "port": 10080}]}}`,
	Apart:      "api_keys",
	references: gatewayReferences,
	common:     sameCertificates,
	index: func(s *State, o *resource.Object, by int) {
		s.need(o.Name, gatewayOf(o).GetAuthPolicy(), by)
	},
	follow: func(s *State, c Change) { s.serve(c.Ref().Name, gatewayOf(c.After)) },
	check:  (*State).checkGateway,
	stays: func(o *resource.Object) (rule, message string) {
		if o.Name == resource.DefaultGateway {
			return "gateway.default", "is the default gateway, which always exists; change it instead"
		}
		return "", ""
	},
	Concerns: func(c Change) ([]string, bool) { return []string{c.Ref().Name}, false },
	Reach: func(o *resource.Object) Reach {
		return Reach{Gateways: []Place{{"$", o.Name}}, EveryHost: &Why{"$", "serves every host"}}
	},
	Credentials: func(o *resource.Object, _ func(sealed, field string) string) (out []Credential) {
		for i, k := range gatewayOf(o).GetApiKeys() {
			out = append(out, Credential{
				Path: fmt.Sprintf("$.api_keys[%d]", i), ID: k.GetSha256(),
				What: fmt.Sprintf("api_key %q, which opens the gateway's configuration and private keys", k.GetName()),
			})
		}
		return out
	},
	Warn: func(c Change, _ time.Duration) []Problem { return lockedOut(c) },
}

func gatewayOf(o *resource.Object) *configv1.Gateway { return resource.Spec[*configv1.Gateway](o) }

// gatewayReferences has the lists of the listeners' certificates as its long ones.
func gatewayReferences(o *resource.Object, r *refs) {
	m := gatewayOf(o)
	for i, l := range m.GetListeners() {
		from, to := 0, len(l.GetCertificates())
		if r.common != nil {
			from, to = r.common[i][0], to-r.common[i][1]
		}
		for j, c := range l.GetCertificates()[from:to] {
			r.add(resource.KindCertificate, c, "$.listeners[%d].certificates[%d]", i, from+j)
		}
		for j, a := range l.GetClientAuth() {
			r.trust(a.GetCaCertificate(), "$.listeners[%d].client_auth[%d].ca_certificate", i, j)
			for k, c := range a.GetCertificates() {
				r.add(resource.KindCertificate, c, "$.listeners[%d].client_auth[%d].certificates[%d]", i, j, k)
			}
		}
	}
	r.add(resource.KindService, m.GetTracing().GetService(), "$.tracing.service")
	for _, c := range collectorsOf(m) {
		r.add(resource.KindService, c.service, c.path)
	}
	r.add(resource.KindAuthPolicy, m.GetAuthPolicy(), "$.auth_policy")
	r.add(resource.KindLicense, m.GetLicense(), "$.license")
	r.add(resource.KindIssuer, m.GetCertificateIssuer(), "$.certificate_issuer")
}

// sameCertificates counts, by listener, what the lists of certificates have in common before and after; nil where the
// listeners are not as many.
func sameCertificates(before, after *resource.Object) [][2]int {
	was, now := gatewayOf(before).GetListeners(), gatewayOf(after).GetListeners()
	if len(was) != len(now) {
		return nil
	}
	out := make([][2]int, len(now))
	for i := range now {
		from, to := servername.Common(was[i].GetCertificates(), now[i].GetCertificates(), servername.Equal)
		out[i] = [2]int{from, to}
	}
	return out
}

func (s *State) checkGateway(c Change) []Problem {
	o := c.After
	var out []Problem
	names, ports := map[string]bool{}, map[uint32]bool{}
	for i, l := range gatewayOf(o).GetListeners() {
		if names[l.GetName()] {
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d].name", i), "gateway.listener",
				"is the name of two listeners"))
		}
		if ports[l.GetPort()] {
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d].port", i), "gateway.listener",
				"is the port of two listeners"))
		}
		names[l.GetName()], ports[l.GetPort()] = true, true
		tls := l.GetProtocol() == configv1.Listener_https
		if tls && len(s.ServerNames(o.Name).Listener(l.GetName()).First()) == 0 &&
			gatewayOf(o).GetCertificateIssuer() == "" {
			out = append(out, problem(
				o,
				fmt.Sprintf("$.listeners[%d].certificates", i),
				"gateway.certificates",
				"is empty, and no certificate names this listener; an https listener needs at least one certificate, or a "+
					"certificate_issuer in its gateway",
			))
		}
		if !tls && (len(l.GetCertificates()) > 0 || len(l.GetClientAuth()) > 0) {
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d].protocol", i), "gateway.certificates",
				"must be https for certificates to have an effect"))
		}
	}
	if gatewayOf(o).GetCertificateIssuer() == "" && gatewayOf(c.Before).GetCertificateIssuer() != "" {
		if r := s.automaticAt(o.Name); r != "" {
			out = append(out, problem(o, "$.certificate_issuer", "reference.in_use", "is missing, and route %q asks for "+
				"certificates of it (tls: auto); change that first or in the same apply", r))
		}
	}
	for _, l := range gatewayOf(c.Before).GetListeners() {
		out = append(out, s.checkLeft(o, l)...)
	}
	out = append(out, s.checkCollectors(o)...)
	return append(out, s.checkNeeded(o, "$.auth_policy", gatewayOf(o).GetAuthPolicy(), []string{o.Name})...)
}

// lockedOut warns of a gateway that keeps none of its keys: its Envoys lose their streams at once, serve what they
// have, and get nothing new.
func lockedOut(x Change) []Problem {
	if x.Before == nil || x.After == nil {
		return nil
	}
	before := gatewayOf(x.Before).GetApiKeys()
	after := gatewayOf(x.After).GetApiKeys()
	had := map[string]bool{}
	for _, k := range before {
		had[k.GetSha256()] = true
	}
	for _, k := range after {
		if had[k.GetSha256()] {
			return nil
		}
	}
	message := "keeps none of the api_keys that it had: an Envoy that shows one of those is refused from " +
		"now on, and keeps " +
		"what it serves; have both the old and the new keys until every Envoy shows a new one"
	switch {
	case len(before) == 0 && len(after) == 0:
		return nil
	case len(after) == 0:
		message = "has no api_keys any more: no Envoy gets its configuration, and those that are there keep what they serve"
	case len(before) == 0:
		message = "has api_keys now: an Envoy that shows none of them is refused"
	}
	return []Problem{problem(x.After, "$.api_keys", "gateway.api_keys", "%s", message)}
}
