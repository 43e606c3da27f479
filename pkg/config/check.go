package config

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
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
		if c.Ref().Kind == resource.KindCertificate {
			out = append(out, s.checkLast(c)...)
		}
		if c.After == nil {
			out = append(out, s.checkDeleted(c.Before)...)
			continue
		}
		_, come := differ(c)
		for _, r := range come {
			if s.Get(r.To) == nil {
				out = append(out, problem(c.After, r.Path(), "reference.dangling", "names the %s %q, which does not exist; create it first or in the same apply", strings.ToLower(r.To.Kind), r.To.Name))
			}
		}
		switch m := c.After.Message().(type) {
		case *configv1.Route:
			out = append(out, s.checkRoute(c.After, m)...)
		case *configv1.Service:
			out = append(out, s.checkPresented(c.After, come)...)
		case *configv1.Certificate:
			out = append(out, s.checkCertificate(c.After, m)...)
		case *configv1.Gateway:
			out = append(out, s.checkGateway(c, m)...)
			out = append(out, s.checkPresented(c.After, come)...)
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
		if !s.anyListener(Gateways(r), l, false) {
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

// anyListener says whether one of some gateways has a listener, of https where that is asked for.
func (s *State) anyListener(gateways []string, name string, https bool) bool {
	for _, gw := range gateways {
		o := s.Get(resource.Ref{Kind: resource.KindGateway, Name: gw})
		if o == nil {
			continue
		}
		for _, l := range o.Message().(*configv1.Gateway).GetListeners() {
			if l.GetName() == name && (!https || l.GetProtocol() == configv1.Listener_https) {
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

func (s *State) checkGateway(c Change, g *configv1.Gateway) []Problem {
	o := c.After
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
		if tls && len(s.ServerNames(o.Name).Listener(l.GetName()).First()) == 0 {
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d].certificates", i), "gateway.certificates", "is empty, and no certificate names this listener; an https listener needs at least one certificate"))
		}
		if !tls && (len(l.GetCertificates()) > 0 || len(l.GetClientAuth()) > 0) {
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d].protocol", i), "gateway.certificates", "must be https for certificates to have an effect"))
		}
	}
	if c.Before != nil {
		for _, l := range gatewayOf(c.Before).GetListeners() {
			out = append(out, s.checkLeft(o, l)...)
		}
	}
	return out
}

// checkLeft finds what names a listener that its gateway lacks now, or that is not what it was named for.
func (s *State) checkLeft(o *resource.Object, was *configv1.Listener) []Problem {
	at := []string{o.Name}
	if s.anyListener(at, was.GetName(), was.GetProtocol() == configv1.Listener_https) {
		return nil
	}
	var out []Problem
	users := s.onListener[ListenerKey{o.Name, was.GetName()}]
	for _, user := range slices.SortedFunc(users.all(), resource.Ref.Compare) {
		switch m := s.Get(user).Message().(type) {
		case *configv1.Route:
			if !s.anyListener(Gateways(m), was.GetName(), false) {
				out = append(out, problem(o, "$.listeners", "reference.in_use", "lacks the listener %q, which route %q names", was.GetName(), user.Name))
			}
		case *configv1.Certificate:
			if !s.anyListener(servername.Gateways(m), was.GetName(), true) {
				out = append(out, problem(o, "$.listeners", "reference.in_use", "lacks the https listener %q, which certificate %q names", was.GetName(), user.Name))
			}
		}
	}
	return out
}

// checkPresented refuses to present a certificate that is only there to be trusted.
func (s *State) checkPresented(o *resource.Object, come []Reference) []Problem {
	var out []Problem
	for _, r := range come {
		if r.To.Kind != resource.KindCertificate || r.Trusted {
			continue
		}
		if c := s.Get(r.To); c != nil && c.Message().(*configv1.Certificate).GetPrivateKey() == "" {
			out = append(out, problem(o, r.Path(), "certificate.key", "names certificate %q, which has no private key and so cannot be presented; write the certificate again with its private_key", r.To.Name))
		}
	}
	return out
}

// checkCertificate refuses one without a key where something presents it, and listeners that cannot.
func (s *State) checkCertificate(o *resource.Object, c *configv1.Certificate) []Problem {
	var out []Problem
	gateways := servername.Gateways(c)
	for i, l := range c.GetListeners() {
		if !s.anyListener(gateways, l, true) {
			out = append(out, problem(o, fmt.Sprintf("$.listeners[%d]", i), "reference.listener", "names the listener %q, which none of its gateways (%s) has for https", l, strings.Join(gateways, ", ")))
		}
	}
	if c.GetPrivateKey() != "" {
		return out
	}
	if len(gateways) > 0 {
		return append(out, problem(o, "$.private_key", "certificate.key", "is missing, and the gateways that this certificate names are to present it; give it"))
	}
	for _, user := range s.Users(o.Ref()) {
		u := s.Get(user)
		if u != nil && slices.ContainsFunc(References(u), func(r Reference) bool { return r.To == o.Ref() && !r.Trusted }) {
			return append(out, problem(o, "$.private_key", "certificate.key", "is missing, and %s presents this certificate; give it", user))
		}
	}
	return out
}

// checkLast refuses to take the last certificate from an https listener, which could then serve nobody.
func (s *State) checkLast(c Change) []Problem {
	if c.Before == nil {
		return nil
	}
	for _, name := range servername.Gateways(c.Before.Message().(*configv1.Certificate)) {
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
