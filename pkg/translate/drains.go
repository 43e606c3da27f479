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
	kept     map[string]map[string]bool   // by gateway, certificates that the change does not concern
	built    map[string]map[string]*listenerv3.Listener
}

// Before looks at a state before objects, nil for one that is to be gone, are applied to it. It costs what they
// change, however many certificates a listener has.
func Before(st *config.State, objects []*resource.Object) Served {
	s := Served{map[string]*configv1.Gateway{}, map[string]map[string]bool{}, map[string]map[string]*listenerv3.Listener{}}
	touched := map[string]bool{}
	after := map[string]*configv1.Gateway{}
	for _, o := range objects {
		switch o.Kind {
		case resource.KindGateway:
			after[o.Name] = nil
			if !o.Deleted {
				after[o.Name] = o.Message().(*configv1.Gateway)
			}
		case resource.KindCertificate:
			touched[o.Name] = true
			for _, u := range st.Users(o.Ref()) {
				if _, too := after[u.Name]; u.Kind == resource.KindGateway && !too {
					after[u.Name] = gatewayIn(st, u.Name)
				}
			}
		}
	}
	for name, now := range after {
		was := gatewayIn(st, name)
		if was == nil {
			continue
		}
		s.gateways[name], s.kept[name] = was, map[string]bool{}
		for _, l := range was.GetListeners() {
			stays := presented(now, l.GetName())
			for _, c := range l.GetCertificates() {
				s.kept[name][c] = !touched[c] && stays[c]
			}
		}
		s.built[name] = s.build(st, name, was)
	}
	return s
}

func gatewayIn(st *config.State, name string) *configv1.Gateway {
	o := st.Get(resource.Ref{Kind: resource.KindGateway, Name: name})
	if o == nil {
		return nil
	}
	return o.Message().(*configv1.Gateway)
}

// presented are the certificates of a gateway's listener.
func presented(g *configv1.Gateway, listener string) map[string]bool {
	out := map[string]bool{}
	for _, l := range g.GetListeners() {
		if l.GetName() == listener {
			for _, c := range l.GetCertificates() {
				out[c] = true
			}
		}
	}
	return out
}

// build builds a gateway's listeners, without the certificates that are the same before and after.
func (s Served) build(st *config.State, name string, g *configv1.Gateway) map[string]*listenerv3.Listener {
	g = proto.CloneOf(g)
	for _, l := range g.GetListeners() {
		if len(l.GetCertificates()) > 1 {
			first := l.GetCertificates()[0]
			l.Certificates = slices.DeleteFunc(l.GetCertificates(), func(c string) bool { return c != first && s.kept[name][c] })
		}
	}
	w := NewBuilder(name, Options{}).begin(st)
	w.gw = g
	w.listeners()
	out := map[string]*listenerv3.Listener{}
	for k, r := range w.out {
		if k.Type == TypeListener {
			var l listenerv3.Listener
			if err := r.Body.UnmarshalTo(&l); err == nil { // it was marshalled just now
				out[k.Name] = &l
			}
		}
	}
	return out
}

// Drains compares what was served with the state that the changes were made in.
func (s Served) Drains(st *config.State, changes []config.Change) []Drain {
	var out []Drain
	for _, name := range slices.Sorted(maps.Keys(s.gateways)) {
		was, now := s.gateways[name], gatewayIn(st, name)
		after := map[string]*listenerv3.Listener{}
		if now != nil {
			after = s.build(st, name, now)
		}
		for _, l := range slices.Sorted(maps.Keys(s.built[name])) {
			chains, drains := replaced(s.built[name][l], after[l])
			if !drains {
				continue
			}
			d := Drain{Gateway: name, Listener: l, Chains: chains, Object: resource.Ref{Kind: resource.KindGateway, Name: name}}
			if now == nil {
				d.Fields = []string{"$"}
			} else {
				d.Fields = s.because(st, name, l, was, now)
			}
			if len(d.Fields) == 0 {
				d.Object, d.Fields = certificateOf(changes), []string{"$.chain"}
			}
			out = append(out, d)
		}
	}
	return out
}

// certificateOf is the certificate that was changed; where a listener is replaced and no field of its gateway is the
// cause, one was.
func certificateOf(changes []config.Change) resource.Ref {
	for _, c := range changes {
		if c.Ref().Kind == resource.KindCertificate {
			return c.Ref()
		}
	}
	return resource.Ref{}
}

// replaced says which filter chains of a listener another one has no more; nil and true for all that it has.
func replaced(was, now *listenerv3.Listener) (chains []string, any bool) {
	if now == nil || !proto.Equal(withoutChains(was), withoutChains(now)) {
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
func (s Served) because(st *config.State, gateway, listener string, was, now *configv1.Gateway) []string {
	before := s.build(st, gateway, was)[listener]
	var out []string
	try := func(path string, variant *configv1.Gateway) {
		if _, drains := replaced(before, s.build(st, gateway, variant)[listener]); drains {
			out = append(out, path)
		}
	}
	fieldByField(was.ProtoReflect(), now.ProtoReflect(), "$", func(path string, m protoreflect.Message) {
		if path != "$.listeners" {
			try(path, m.Interface().(*configv1.Gateway))
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
	fieldByField(was.GetListeners()[i].ProtoReflect(), now.GetListeners()[j].ProtoReflect(), path, func(path string, m protoreflect.Message) {
		variant := proto.CloneOf(was)
		variant.Listeners[i] = m.Interface().(*configv1.Listener)
		try(path, variant)
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
