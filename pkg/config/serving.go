package config

import (
	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

// ServerNames says which certificate serves a server name at a gateway. It is for reading, and what it says changes
// with the state.
func (s *State) ServerNames(gateway string) *servername.Index {
	if x := s.serving[gateway]; x != nil {
		return x
	}
	return servername.New(gateway, s.certificate)
}

// Presenters are the gateways that present a certificate, or would if they had it: those that list it, and those that
// it names before and after a change.
func (s *State) Presenters(c Change) map[string]bool {
	out := map[string]bool{}
	for u := range s.users[c.Ref()].all() {
		if u.Kind == resource.KindGateway {
			out[u.Name] = true
		}
	}
	for o := range c.Objects {
		for _, g := range servername.Gateways(certificateOf(o)) {
			out[g] = true
		}
	}
	return out
}

// certificate reads one where something presents it; nil where there is none.
func (s *State) certificate(name string) *servername.Certificate {
	if c := s.certs[name]; c != nil {
		return c
	}
	o := s.Get(resource.Ref{Kind: resource.KindCertificate, Name: name})
	if o == nil {
		return nil
	}
	c := servername.Read(o)
	s.certs[name] = c
	return c
}

// present tells the gateways that present a certificate of a change of it.
func (s *State) present(c Change) {
	name := c.Ref().Name
	delete(s.certs, name)
	for gw := range s.Presenters(c) {
		s.names(gw).SetCertificate(name, s.certificate(name)) // the gateway may come later, with the same write
		s.tidy(gw)
	}
}

// serve tells of a gateway that has changed.
func (s *State) serve(name string, g *configv1.Gateway) {
	s.names(name).SetGateway(g)
	s.tidy(name)
}

// names is a gateway's index, to be changed.
func (s *State) names(gateway string) *servername.Index {
	x := s.ServerNames(gateway)
	s.serving[gateway] = x
	return x
}

func (s *State) tidy(gateway string) {
	if s.serving[gateway].Empty() {
		delete(s.serving, gateway)
	}
}
