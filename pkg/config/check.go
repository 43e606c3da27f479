package config

import (
	"fmt"
	"slices"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Problem is a violation and the object that has it; the path is below the object's spec.
type Problem struct {
	Object resource.Ref
	resource.Violation
}

// Check looks at what a change, already applied, has done to the state: dangling references (of what
// changed, and towards what was deleted), unknown listeners, and what each kind checks itself.
func (s *State) Check(changes []Change) []Problem {
	var out []Problem
	for _, c := range changes {
		k := KindOf(c.Ref().Kind)
		if k.taken != nil {
			out = append(out, k.taken(s, c)...)
		}
		if c.After == nil {
			out = append(out, s.checkDeleted(k, c.Before)...)
			continue
		}
		_, come := differ(c)
		for _, r := range come {
			if s.Get(r.To) == nil {
				out = append(out, problem(
					c.After,
					r.Path(),
					"reference.dangling",
					"names the %s %q, which does not exist; create it first or in the same apply",
					strings.ToLower(r.To.Kind),
					r.To.Name,
				))
			}
		}
		out = append(out, s.checkListeners(c.After)...)
		if k.check != nil {
			out = append(out, k.check(s, c)...)
		}
		out = append(out, s.checkPresented(c.After, come)...)
	}
	return out
}

func problem(o *resource.Object, path, rule, format string, args ...any) Problem {
	return Problem{o.Ref(), resource.Violation{Path: path, Message: fmt.Sprintf(format, args...), Rule: rule}}
}

func (s *State) checkDeleted(k *Kind, o *resource.Object) []Problem {
	if k.stays != nil {
		if rule, message := k.stays(o); rule != "" {
			return []Problem{problem(o, "$", rule, "%s", message)}
		}
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
	return []Problem{problem(o, "$", "reference.in_use", "is still used by %s%s; change or delete them first or in the "+
		"same apply", strings.Join(names, ", "), more)}
}

// checkListeners refuses listeners that none of the gateways has.
func (s *State) checkListeners(o *resource.Object) []Problem {
	var out []Problem
	names, which := listenersOf(o), "has"
	if names.https {
		which = "has for https"
	}
	for i, l := range names.listeners {
		if !s.anyListener(names.gateways, l, names.https) {
			out = append(out, problem(
				o,
				fmt.Sprintf("$.listeners[%d]", i),
				"reference.listener",
				"names the listener %q, which none of its gateways (%s) %s",
				l,
				strings.Join(names.gateways, ", "),
				which,
			))
		}
	}
	return out
}

// anyListener says whether one of some gateways has a listener, of https where that is asked for.
func (s *State) anyListener(gateways []string, name string, https bool) bool {
	for _, gw := range gateways {
		for _, l := range gatewayOf(s.Get(resource.Ref{Kind: resource.KindGateway, Name: gw})).GetListeners() {
			if l.GetName() == name && (!https || l.GetProtocol() == configv1.Listener_https) {
				return true
			}
		}
	}
	return false
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
		names, what := listenersOf(s.Get(user)), "listener"
		if names.https {
			what = "https listener"
		}
		if !s.anyListener(names.gateways, was.GetName(), names.https) {
			out = append(out, problem(o, "$.listeners", "reference.in_use", "lacks the %s %q, which %s %q names", what,
				was.GetName(), strings.ToLower(user.Kind), user.Name))
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
		if c := s.Get(r.To); c != nil && certificateOf(c).GetPrivateKey() == "" {
			out = append(out, problem(
				o,
				r.Path(),
				"certificate.key",
				"names certificate %q, which has no private key and so cannot be presented; write the certificate again "+
					"with its private_key",
				r.To.Name,
			))
		}
	}
	return out
}
