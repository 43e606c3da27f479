package config

import (
	"fmt"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

var gatewayKind = Kind{
	Name:       resource.KindGateway,
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
}

// gatewayOf is an object's spec; nil where there is none.
func gatewayOf(o *resource.Object) *configv1.Gateway {
	if o == nil {
		return nil
	}
	return o.Message().(*configv1.Gateway)
}

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
	r.add(resource.KindAuthPolicy, m.GetAuthPolicy(), "$.auth_policy")
	r.add(resource.KindLicense, m.GetLicense(), "$.license")
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
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d].name", i), "gateway.listener", "is the name of two listeners"))
		}
		if ports[l.GetPort()] {
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d].port", i), "gateway.listener", "is the port of two listeners"))
		}
		names[l.GetName()], ports[l.GetPort()] = true, true
		tls := l.GetProtocol() == configv1.Listener_https
		if tls && len(s.ServerNames(o.Name).Listener(l.GetName()).First()) == 0 {
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d].certificates", i), "gateway.certificates", "is empty, and no certificate names this listener; an https listener needs at least one certificate"))
		}
		if !tls && (len(l.GetCertificates()) > 0 || len(l.GetClientAuth()) > 0) {
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d].protocol", i), "gateway.certificates", "must be https for certificates to have an effect"))
		}
	}
	for _, l := range gatewayOf(c.Before).GetListeners() {
		out = append(out, s.checkLeft(o, l)...)
	}
	return out
}
