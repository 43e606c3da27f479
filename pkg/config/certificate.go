package config

import (
	"slices"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

var certificateKind = Kind{
	Name: resource.KindCertificate,
	references: func(o *resource.Object, r *refs) {
		for i, g := range servername.Gateways(certificateOf(o)) {
			r.add(resource.KindGateway, g, "$.gateways[%d]", i)
		}
	},
	listeners: func(o *resource.Object) listenerNames {
		return listenerNames{servername.Gateways(certificateOf(o)), certificateOf(o).GetListeners(), true}
	},
	follow: (*State).present,
	check:  (*State).checkCertificate,
	taken:  (*State).checkLast,
}

// certificateOf is an object's spec; nil where there is none.
func certificateOf(o *resource.Object) *configv1.Certificate {
	if o == nil {
		return nil
	}
	return o.Message().(*configv1.Certificate)
}

// checkCertificate refuses one without a key where something presents it.
func (s *State) checkCertificate(change Change) []Problem {
	o := change.After
	c := certificateOf(o)
	if c.GetPrivateKey() != "" {
		return nil
	}
	if len(servername.Gateways(c)) > 0 {
		return []Problem{problem(o, "$.private_key", "certificate.key", "is missing, and the gateways that this certificate names are to present it; give it")}
	}
	for _, user := range s.Users(o.Ref()) {
		u := s.Get(user)
		if u != nil && slices.ContainsFunc(References(u), func(r Reference) bool { return r.To == o.Ref() && !r.Trusted }) {
			return []Problem{problem(o, "$.private_key", "certificate.key", "is missing, and %s presents this certificate; give it", user)}
		}
	}
	return nil
}

// checkLast refuses to take the last certificate from an https listener, which could then serve nobody.
func (s *State) checkLast(c Change) []Problem {
	if c.Before == nil {
		return nil
	}
	for _, name := range servername.Gateways(certificateOf(c.Before)) {
		g := gatewayOf(s.Get(resource.Ref{Kind: resource.KindGateway, Name: name}))
		for _, l := range g.GetListeners() {
			if l.GetProtocol() == configv1.Listener_https && len(s.ServerNames(name).Listener(l.GetName()).First()) == 0 {
				at := problem(c.Before, "$.gateways", "reference.in_use", "was the last certificate of the https listener %q of gateway %q, which needs one; have another one name it first or in the same apply", l.GetName(), name)
				if c.After == nil {
					at.Path = "$"
				}
				return []Problem{at}
			}
		}
	}
	return nil
}
