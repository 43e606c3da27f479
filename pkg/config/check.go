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

// Problem is a violation and the object that has it; the path is below the object's spec.
type Problem struct {
	Object resource.Ref
	resource.Violation
}

// claim is the digest of a host with a match: two routes that make the same one on a common listener would leave
// it to chance which of them serves.
type claim [16]byte

func claimOf(h HostKey, match string) claim {
	sum := sha256.Sum256([]byte(h.Gateway + "\x00" + h.Host + "\x00" + match))
	return claim(sum[:])
}

// matchKey is equal for two routes exactly where they match the same requests of a host by the same
// words.
func matchKey(r *configv1.Route) string {
	methods := slices.Clone(r.GetMethods())
	slices.Sort(methods)
	only := &configv1.Route{Path: r.GetPath(), Methods: methods, Headers: byName(r.GetHeaders(), true), Query: byName(r.GetQuery(), false)}
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

// Check looks at what a change, already applied, has done to the state: dangling references (of what
// changed, and towards what was deleted), unknown listeners, and claims made twice.
func (s *State) Check(changes []Change) []Problem {
	var out []Problem
	for _, c := range changes {
		if c.After == nil {
			out = append(out, s.checkDeleted(c.Before)...)
			continue
		}
		for _, r := range References(c.After) {
			if s.Get(r.To) == nil {
				out = append(out, problem(c.After, r.Path, "reference.dangling", "names the %s %q, which does not exist; create it first or in the same apply", strings.ToLower(r.To.Kind), r.To.Name))
			}
		}
		switch m := c.After.Message().(type) {
		case *configv1.Route:
			out = append(out, s.checkRoute(c.After, m)...)
		case *configv1.Service:
			out = append(out, s.checkPresented(c.After)...)
		case *configv1.Certificate:
			out = append(out, s.checkNeeded(c.After, m)...)
		case *configv1.Gateway:
			out = append(out, s.checkGateway(c.After, m)...)
			out = append(out, s.checkPresented(c.After)...)
		case *configv1.AuthPolicy:
			out = append(out, s.checkAuthPolicy(c.After, m)...)
		case *configv1.RateLimitPolicy:
			out = append(out, s.checkRateLimit(c.After, m)...)
		}
	}
	return out
}

func problem(o *resource.Object, path, rule, format string, args ...any) Problem {
	return Problem{o.Ref(), resource.Violation{Path: path, Message: fmt.Sprintf(format, args...), Rule: rule}}
}

func (s *State) checkDeleted(o *resource.Object) []Problem {
	if o.Kind == resource.KindGateway && o.Name == resource.DefaultGateway {
		return []Problem{problem(o, "$", "gateway.default", "is the default gateway, which always exists; change it instead")}
	}
	users := s.Users(o.Ref())
	if len(users) == 0 {
		return nil
	}
	names := make([]string, 0, 5)
	for _, u := range users[:min(len(users), cap(names))] {
		names = append(names, u.String())
	}
	more := ""
	if len(users) > len(names) {
		more = fmt.Sprintf(" and %d more", len(users)-len(names))
	}
	return []Problem{problem(o, "$", "reference.in_use", "is still used by %s%s; change or delete them first or in the same apply", strings.Join(names, ", "), more)}
}

func (s *State) checkRoute(o *resource.Object, r *configv1.Route) []Problem {
	var out []Problem
	for i, l := range r.GetListeners() {
		if !s.anyListener(Gateways(r), l) {
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d]", i), "reference.listener", "names the listener %q, which none of its gateways (%s) has", l, strings.Join(Gateways(r), ", ")))
		}
	}
	match := matchKey(r)
	for _, gw := range Gateways(r) {
		for i, host := range Hosts(r) {
			rivals := s.claims[claimOf(HostKey{gw, host}, match)]
			if rivals.len() < 2 {
				continue
			}
			for rival := range rivals.all() {
				if rival.Name != o.Name && shareListener(r, rival.Message().(*configv1.Route)) {
					out = append(out, problem(o, fmt.Sprintf("$.hosts[%d]", i), "route.conflict", "host %q with this match is already served by route %q on gateway %q; change the match or the other route", host, rival.Name, gw))
					break
				}
			}
		}
	}
	return out
}

func (s *State) anyListener(gateways []string, name string) bool {
	for _, gw := range gateways {
		o := s.Get(resource.Ref{Kind: resource.KindGateway, Name: gw})
		if o == nil {
			continue
		}
		for _, l := range o.Message().(*configv1.Gateway).GetListeners() {
			if l.GetName() == name {
				return true
			}
		}
	}
	return false
}

func shareListener(a, b *configv1.Route) bool {
	if len(a.GetListeners()) == 0 || len(b.GetListeners()) == 0 {
		return true
	}
	return slices.ContainsFunc(a.GetListeners(), func(l string) bool { return slices.Contains(b.GetListeners(), l) })
}

func (s *State) checkGateway(o *resource.Object, g *configv1.Gateway) []Problem {
	var out []Problem
	names, ports := map[string]bool{}, map[uint32]bool{}
	for i, l := range g.GetListeners() {
		if names[l.GetName()] {
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d].name", i), "gateway.listener", "is the name of two listeners"))
		}
		if ports[l.GetPort()] {
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d].port", i), "gateway.listener", "is the port of two listeners"))
		}
		names[l.GetName()], ports[l.GetPort()] = true, true
		tls := l.GetProtocol() == configv1.Listener_https
		if tls && len(l.GetCertificates()) == 0 {
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d].certificates", i), "gateway.certificates", "is empty; an https listener needs at least one certificate"))
		}
		if !tls && (len(l.GetCertificates()) > 0 || len(l.GetClientAuth()) > 0) {
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d].protocol", i), "gateway.certificates", "must be https for certificates to have an effect"))
		}
	}
	for _, user := range s.Users(o.Ref()) {
		if r := s.Get(user); r != nil && r.Kind == resource.KindRoute {
			route := r.Message().(*configv1.Route)
			for _, l := range route.GetListeners() {
				if !s.anyListener(Gateways(route), l) {
					out = append(out, problem(o, "$.listeners", "reference.in_use", "lacks the listener %q, which route %q names", l, r.Name))
				}
			}
		}
	}
	return out
}

// presented are the certificates that an object has Envoys present, by the place where it names them.
func presented(o *resource.Object) []Reference {
	return slices.DeleteFunc(References(o), func(r Reference) bool {
		return r.To.Kind != resource.KindCertificate || strings.HasSuffix(r.Path, ".ca_certificate")
	})
}

// checkPresented refuses to present a certificate that is only there to be trusted.
func (s *State) checkPresented(o *resource.Object) []Problem {
	var out []Problem
	for _, r := range presented(o) {
		if c := s.Get(r.To); c != nil && c.Message().(*configv1.Certificate).GetPrivateKey() == "" {
			out = append(out, problem(o, r.Path, "certificate.key", "names certificate %q, which has no private key and so cannot be presented; write the certificate again with its private_key", r.To.Name))
		}
	}
	return out
}

// checkNeeded refuses a certificate without a key where something presents it.
func (s *State) checkNeeded(o *resource.Object, c *configv1.Certificate) []Problem {
	if c.GetPrivateKey() != "" {
		return nil
	}
	for _, user := range s.Users(o.Ref()) {
		if u := s.Get(user); u != nil && slices.ContainsFunc(presented(u), func(r Reference) bool { return r.To == o.Ref() }) {
			return []Problem{problem(o, "$.private_key", "certificate.key", "is missing, and %s presents this certificate; give it", user)}
		}
	}
	return nil
}
