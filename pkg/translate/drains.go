package translate

import (
	"fmt"
	"maps"
	"slices"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

// Drain is a listener of which a change replaces something: connections that came through it are asked to end
// after their next response, and cut after the drain time.
type Drain struct {
	Gateway, Listener string
	// Chains are the filter chains whose connections drain; nil for all of the listener's.
	Chains []string
	// Object is what was changed, and Fields what of it, as paths in its spec; $ where it is gone.
	Object resource.Ref
	Fields []string
}

// Served is what a state's gateways are served, as far as a change of some objects can concern it.
type Served struct {
	gateways map[string]*configv1.Gateway // as they are in the state
	chains   map[string]map[string]servername.Snapshot
}

// Before looks at a state before objects, nil for one that is to be gone, are applied to it. It costs what they
// change, however many certificates a listener has.
func Before(st *config.State, objects []*resource.Object) Served {
	s := Served{map[string]*configv1.Gateway{}, map[string]map[string]servername.Snapshot{}}
	concerned := map[string]bool{}
	for _, o := range objects {
		switch o.Kind {
		case resource.KindGateway:
			concerned[o.Name] = true
		case resource.KindCertificate:
			c := config.Change{Before: st.Get(o.Ref())}
			if c.After = o; o.Deleted {
				if c.After = nil; c.Before == nil {
					continue
				}
			}
			maps.Copy(concerned, st.Presenters(c))
		}
	}
	for name := range concerned {
		g := gatewayIn(st, name)
		if g == nil {
			continue
		}
		s.gateways[name], s.chains[name] = g, map[string]servername.Snapshot{}
		for _, l := range st.ServerNames(name).Listeners() {
			s.chains[name][l.Name()] = l.Snapshot()
		}
	}
	return s
}

func gatewayIn(st *config.State, name string) *configv1.Gateway {
	return resource.Spec[*configv1.Gateway](st.Get(resource.Ref{Kind: resource.KindGateway, Name: name}))
}

// bare builds a listener without chains that have certificates of their own; nil where there is none of the name, or it is
// not open for want of a certificate.
func bare(name string, g *configv1.Gateway, l string, first []string) *listenerv3.Listener {
	for _, x := range g.GetListeners() {
		if x.GetName() == l {
			var s *serving
			if x.GetProtocol() == configv1.Listener_https {
				if len(first) == 0 {
					return nil // it opens with its first certificate
				}
				s = &serving{first: first}
			}
			return listener(name, g, x, s, false)
		}
	}
	return nil
}

// form is what a listener's connections depend on.
type form struct {
	gateway string
	of      *configv1.Gateway
	names   *servername.Index
}

// since finds what a listener of another form lacks: which filter chains, or nil and true where it is all of them.
func (now form) since(was *configv1.Gateway, listener string, chains servername.Snapshot) (lost []string, drains bool) {
	l := now.names.Listener(listener)
	if was != now.of || !slices.Equal(chains.First(), l.First()) {
		before := bare(now.gateway, was, listener, chains.First())
		if before == nil {
			return nil, false // nobody could connect to it
		}
		lost, drains = replaced(before, bare(now.gateway, now.of, listener, l.First()))
		if drains && (len(lost) == 0 || slices.Contains(lost, chainOnDemand)) {
			return nil, true // what all chains have in common is another one
		}
	}
	lost = append(chains.Gone(l), lost...)
	return lost, len(lost) > 0
}

// Drains compares what was served with the state that the changes were made in.
func (s Served) Drains(st *config.State, changes []config.Change) []Drain {
	var out []Drain
	for _, name := range slices.Sorted(maps.Keys(s.gateways)) {
		was, now := s.gateways[name], form{name, gatewayIn(st, name), st.ServerNames(name)}
		for _, x := range slices.SortedFunc(slices.Values(was.GetListeners()),
			func(a, b *configv1.Listener) int { return compare(a.GetName(), b.GetName()) }) {
			l := x.GetName()
			chains, drains := now.since(was, l, s.chains[name][l])
			if !drains {
				continue
			}
			d := Drain{Gateway: name, Listener: l, Chains: chains, Object: resource.Ref{Kind: resource.KindGateway, Name: name}}
			if now.of == nil {
				d.Fields = []string{"$"}
			} else if now.of != was {
				d.Fields = because(st, name, l, was, now.of)
			}
			if len(d.Fields) == 0 {
				d.Object, d.Fields = certificateOf(st, name, changes)
			}
			out = append(out, d)
		}
	}
	return out
}

// certificateOf is the certificate that was changed, and what of it; where a listener is replaced and no field of its
// gateway is the cause, one was.
func certificateOf(st *config.State, gateway string, changes []config.Change) (resource.Ref, []string) {
	for _, c := range changes {
		if c.Ref().Kind != resource.KindCertificate || !st.Presenters(c)[gateway] {
			continue
		}
		before, after := resource.Spec[*configv1.Certificate](c.Before), resource.Spec[*configv1.Certificate](c.After)
		switch {
		case after == nil:
			return c.Ref(), []string{"$"}
		case before.GetChain() == after.GetChain() && !slices.Equal(before.GetGateways(), after.GetGateways()):
			return c.Ref(), []string{"$.gateways"}
		case before.GetChain() == after.GetChain() && !slices.Equal(before.GetListeners(), after.GetListeners()):
			return c.Ref(), []string{"$.listeners"}
		case before.GetChain() != after.GetChain():
			return c.Ref(), []string{"$.chain"}
		}
	}
	return resource.Ref{Kind: resource.KindGateway, Name: gateway}, []string{"$"}
}

// replaced says which filter chains of a listener another one has no more; nil and true for all that it has.
func replaced(was, now *listenerv3.Listener) (chains []string, any bool) {
	if was == nil || now == nil || !proto.Equal(withoutChains(was), withoutChains(now)) {
		return nil, true
	}
	stays := map[string]bool{}
	for _, c := range allChains(now) {
		stays[string(pack(c).GetValue())] = true
	}
	all := allChains(was)
	for _, c := range all {
		if !stays[string(pack(c).GetValue())] {
			chains = append(chains, c.GetName())
		}
	}
	if len(chains) == len(all) {
		return nil, true
	}
	return chains, len(chains) > 0
}

func allChains(l *listenerv3.Listener) []*listenerv3.FilterChain {
	out := l.GetFilterChains()
	if d := l.GetDefaultFilterChain(); d != nil {
		out = append(slices.Clone(out), d)
	}
	return out
}

// withoutChains is what Envoy replaces only together with the listener: neither its chains nor what chooses one.
func withoutChains(l *listenerv3.Listener) *listenerv3.Listener {
	out := proto.CloneOf(l)
	out.FilterChains, out.DefaultFilterChain, out.FilterChainMatcher = nil, nil, nil
	return out
}

// because finds the fields of a gateway whose change alone replaces something of a listener.
func because(st *config.State, gateway, listener string, was, now *configv1.Gateway) []string {
	names := st.ServerNames(gateway)
	served := names.With(was)
	chains := served.Listener(listener).Snapshot()
	var out []string
	try := func(path string, variant *configv1.Gateway, names *servername.Index) {
		if _, drains := (form{gateway, variant, names}).since(was, listener, chains); drains {
			out = append(out, path)
		}
	}
	fieldByField(was.ProtoReflect(), now.ProtoReflect(), "$", func(path string, m protoreflect.Message) {
		if path != "$.listeners" {
			try(path, m.Interface().(*configv1.Gateway), served)
		}
	})
	at := func(g *configv1.Gateway) int {
		return slices.IndexFunc(g.GetListeners(), func(l *configv1.Listener) bool { return l.GetName() == listener })
	}
	i, j := at(was), at(now)
	if j < 0 {
		return append(out, "$.listeners")
	}
	path := fmt.Sprintf("$.listeners[%d]", j)
	fieldByField(was.GetListeners()[i].ProtoReflect(), now.GetListeners()[j].ProtoReflect(), path,
		func(path string, m protoreflect.Message) {
			variant := proto.CloneOf(was)
			variant.Listeners[i] = m.Interface().(*configv1.Listener)
			try(path, variant, names.With(variant))
		})
	return out
}

// fieldByField yields was once for each field in which now differs, with that field as it is now. Of messages that
// both have, it goes into the fields.
func fieldByField(was, now protoreflect.Message, path string, yield func(string, protoreflect.Message)) {
	fields := was.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if was.Has(f) == now.Has(f) && was.Get(f).Equal(now.Get(f)) {
			continue
		}
		at := path + "." + string(f.Name())
		set := func(v protoreflect.Value, has bool) protoreflect.Message {
			out := proto.Clone(was.Interface()).ProtoReflect()
			if out.Clear(f); has {
				out.Set(f, v)
			}
			return out
		}
		ours := f.Kind() == protoreflect.MessageKind && f.Message().ParentFile() == was.Descriptor().ParentFile()
		if ours && !f.IsList() && !f.IsMap() && was.Has(f) && now.Has(f) {
			fieldByField(was.Get(f).Message(), now.Get(f).Message(), at, func(at string, m protoreflect.Message) {
				yield(at, set(protoreflect.ValueOfMessage(m), true))
			})
			continue
		}
		yield(at, set(now.Get(f), now.Has(f)))
	}
}
