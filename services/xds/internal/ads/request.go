package ads

import (
	"slices"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// handle takes one request of the Envoy: a subscription, an ACK, a NACK, or several of these at once.
func (s *stream) handle(r *discoveryv3.DeltaDiscoveryRequest) {
	if s.stoodBefore(r) {
		s.g.opt.Seats.Stood(s)
	}
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	t := translate.Type(r.GetTypeUrl())
	ts := s.types[t]
	if ts == nil {
		s.log.Warn("envoy asks for a type that is not served", zap.String("type", r.GetTypeUrl()))
		return
	}
	if in := ts.answered(r.GetResponseNonce()); in != nil {
		if e := r.GetErrorDetail(); e != nil {
			s.refused(ts, in, e.GetMessage())
		} else {
			s.acked(t, ts, in)
		}
	}
	s.subscribe(t, ts, r)
}

// answered takes the response of a nonce out of those in flight; nil where there is none.
func (ts *typeState) answered(nonce string) *response {
	i := slices.IndexFunc(ts.inflight, func(in *response) bool { return in.nonce == nonce })
	if i < 0 {
		return nil
	}
	in := ts.inflight[i]
	ts.inflight = slices.Delete(ts.inflight, i, i+1)
	for _, it := range in.items {
		delete(ts.flying, it.name)
	}
	return in
}

// stoodBefore says whether the Envoy comes back with a form that those without a seat get.
func (s *stream) stoodBefore(r *discoveryv3.DeltaDiscoveryRequest) bool {
	if translate.Type(r.GetTypeUrl()) != translate.TypeExtension {
		return false
	}
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	for name, version := range r.GetInitialResourceVersions() {
		if e := s.g.effective(translate.Key{Type: translate.TypeExtension, Name: name}); e != nil && e.Surplus != nil && e.Surplus.Version == version {
			return true
		}
	}
	return false
}

func (s *stream) subscribe(t translate.Type, ts *typeState, r *discoveryv3.DeltaDiscoveryRequest) {
	if !ts.subscribed {
		ts.subscribed = true
		// Clusters, listeners and scopes are always asked for as a whole.
		ts.wildcard = t == translate.TypeCluster || t == translate.TypeListener || t == translate.TypeScope
		ts.answer = ts.wildcard
		s.fresh = s.fresh || (t == translate.TypeListener && len(r.GetInitialResourceVersions()) == 0)
		for name, version := range r.GetInitialResourceVersions() {
			s.adopt(t, ts, name, version)
		}
	}
	for _, name := range r.GetResourceNamesSubscribe() {
		if ts.wildcard || name == "*" {
			continue
		}
		ts.names[name] = true
		if e := s.g.entries[t][name]; e != nil && e.bad != nil {
			ts.spoiled[name] = s.form(e.bad.Resource).Version // perhaps by this Envoy, on another stream
		}
		delete(ts.leaving, name)
		have, has := ts.known[name]
		eff := s.effective(translate.Key{Type: t, Name: name})
		if has && eff != nil && (have.version == eff.Version || have.outlives(eff)) && r.GetInitialResourceVersions()[name] != "" {
			continue
		}
		if t == translate.TypeSecret && s.g.entries[t][name] == nil {
			s.lend(ts, name)
			continue
		}
		if eff == nil {
			// A secret that was refused has no other version to be served: without a word the Envoy would keep
			// its listeners closed until the secret's initial_fetch_timeout.
			if t == translate.TypeSecret || (s.g.entries[t][name] == nil && t != translate.TypeEndpoint) {
				ts.absent = append(ts.absent, name)
			}
			continue
		}
		d := ts.dirty[name]
		if d == nil {
			d = &dirt{first: s.g.entries[t][name].revision}
		}
		d.force = true
		ts.mark(name, d)
	}
	for _, name := range r.GetResourceNamesUnsubscribe() {
		delete(ts.names, name)
		delete(ts.leaving, name)
		if !ts.wildcard {
			delete(ts.known, name)
		}
		if t == translate.TypeSecret {
			ts.unlend(name)
			s.bring(ts, name, s.g.revision) // it may have come since the Envoy was told that there is none
		}
	}
}

// adopt takes over what an Envoy says it has, from another stream or another life of this server.
func (s *stream) adopt(t translate.Type, ts *typeState, name, version string) {
	e := s.g.entries[t][name]
	if e == nil && t == translate.TypeSecret {
		return // it is asked for, too
	}
	var h held
	switch {
	case e != nil && e.desired.Is(version):
		// It has accepted it: an Envoy names only versions that it has taken.
		s.g.accept(e.desired, e.revision)
		h = holding(e.desired)
	case e != nil && e.good.Is(version):
		h = holding(e.good)
	default:
		h.unknown = t == translate.TypeScope || t == translate.TypeListener
		h.says, h.foreign = t == translate.TypeScope, t == translate.TypeEndpoint
	}
	h.version = version // whichever form it is
	s.hold(ts, name, h)
	if eff := s.form(e.effective()); eff == nil || eff.Version != version {
		if ts.dirty[name] == nil {
			ts.mark(name, &dirt{first: s.g.revision})
		}
	} else {
		delete(ts.dirty, name)
	}
}

// hold replaces what the Envoy has under a name.
func (s *stream) hold(ts *typeState, name string, h held) {
	s.drop(ts, name)
	ts.known[name] = h
	s.claim(h)
}

func (s *stream) drop(ts *typeState, name string) {
	if old, has := ts.known[name]; has {
		delete(ts.known, name)
		s.release(old)
	}
}

func (s *stream) acked(t translate.Type, ts *typeState, in *response) {
	for _, it := range in.items {
		if it.resource == nil {
			s.drop(ts, it.name)
			if d := ts.dirty[it.name]; d != nil {
				d.anew = false
			}
			s.settle(t, ts, it.name)
			continue
		}
		if ts.spoiled[it.name] != it.resource.Version {
			delete(ts.spoiled, it.name)
		}
		s.g.accept(it.resource, it.revision)
		if !ts.wants(it.name) {
			s.release(holding(it.resource))
			continue // it was dropped; if it is wanted again, it is asked for again
		}
		s.hold(ts, it.name, holding(it.resource))
		s.release(holding(it.resource)) // counted when it was sent, and again as held
		if d := ts.dirty[it.name]; d != nil {
			d.force, d.again = d.again, false
		}
		s.settle(t, ts, it.name)
		if t == translate.TypeSecret {
			s.takenSecret(ts, it.name)
		}
	}
}

// settle forgets a resource's dirt, or moves it on to the revision that has come since.
func (s *stream) settle(t translate.Type, ts *typeState, name string) {
	d := ts.dirty[name]
	if d == nil {
		return
	}
	eff := s.effective(translate.Key{Type: t, Name: name})
	have, has := ts.known[name]
	if (eff == nil && !has) || (eff != nil && has && eff.Version == have.version && !d.force) {
		if e := s.g.entries[t][name]; !e.quarantined() {
			delete(ts.dirty, name)
			if e != nil && e.desired == nil && !e.pinned && !s.elsewhere(t, name) {
				delete(s.g.entries[t], name)
			}
		}
		return
	}
	if d.next != 0 {
		d.first, d.next = d.next, 0
	}
	ts.enqueue(name)
}

// refused finds the culprit of a NACK: the only resource of its response, or one that its halves will
// show. Removals are never at fault; what else was in the response is sent again.
func (s *stream) refused(ts *typeState, in *response, reason string) {
	var upserts []item
	for _, it := range in.items {
		if it.resource == nil {
			if ts == s.types[translate.TypeCluster] {
				delete(s.types[translate.TypeEndpoint].leaving, it.name) // the removal may not have been done
			}
			continue
		}
		upserts = append(upserts, it)
		s.release(holding(it.resource))
		if d := ts.dirty[it.name]; d == nil {
			ts.mark(it.name, &dirt{first: it.revision})
		}
	}
	switch len(upserts) {
	case 0:
		s.log.Error("envoy refused a response without resources", zap.String("reason", reason))
		for _, it := range in.items { // asking again would go on for ever
			s.drop(ts, it.name)
			delete(ts.dirty, it.name)
		}
	case 1:
		ts.spoiled[upserts[0].name] = upserts[0].resource.Version
		if ts == s.types[translate.TypeSecret] {
			s.refusedSecret(ts, upserts[0], reason)
		} else {
			s.g.refuse(upserts[0].resource, reason, time.Now())
		}
	default:
		ts.groups = append(split(upserts, reason), ts.groups...)
	}
}

// split parts a refused response: those that the text names each alone, the rest in halves.
func split(items []item, reason string) [][]string {
	var named, rest []string
	for _, it := range items {
		if len(named) < 8 && len(items) > 2 && mentions(reason, it.name) {
			named = append(named, it.name)
		} else {
			rest = append(rest, it.name)
		}
	}
	var out [][]string
	if len(named) > 0 {
		// What is not named is probably good: all of it goes first.
		if len(rest) > 0 {
			out = append(out, rest)
		}
		for _, n := range named {
			out = append(out, []string{n})
		}
		return out
	}
	half := len(rest) / 2
	return append(out, rest[:half], rest[half:])
}

// mentions says whether a text has a name as a word of its own.
func mentions(text, name string) bool {
	for rest := text; ; {
		i := strings.Index(rest, name)
		if i < 0 {
			return false
		}
		before := i == 0 || !wordByte(rest[i-1])
		end := i + len(name)
		if before && (end == len(rest) || !wordByte(rest[end])) {
			return true
		}
		rest = rest[i+1:]
	}
}

func wordByte(c byte) bool {
	return c == '-' || c == '_' || c == '/' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
}
