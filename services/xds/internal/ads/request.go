package ads

import (
	"slices"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// handle takes one request of the Envoy: a subscription, an ACK, a NACK, or several of these at once. It says whether
// what is known of the resources is another now.
func (s *stream) handle(r *discoveryv3.DeltaDiscoveryRequest) bool {
	if s.stoodBefore(r) {
		s.g.opt.Seats.Stood(s)
	}
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	t := translate.Type(r.GetTypeUrl())
	ts := s.types[t]
	if ts == nil {
		s.log.Warn("envoy asks for a type that is not served", zap.String("type", r.GetTypeUrl()))
		return false
	}
	s.g.intake.heard(s, time.Now())
	s.sync()
	s.recount()
	epoch := s.g.epoch
	if in := ts.answered(r.GetResponseNonce()); in != nil {
		if e := r.GetErrorDetail(); e != nil {
			s.refused(ts, in, e.GetMessage())
		} else {
			s.acked(t, ts, in)
		}
	}
	s.subscribe(t, ts, r)
	s.slotsMoved()
	return s.g.epoch != epoch
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
		if it.e == nil {
			delete(ts.lending, it.name)
		} else {
			ts.records[it.e].flying = false
		}
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
		if t == translate.TypeScope || t == translate.TypeEndpoint {
			s.lookAtAll(translate.TypeCluster) // they may have waited for what the Envoy says that it has
		}
	}
	for _, name := range r.GetResourceNamesSubscribe() {
		if ts.wildcard || name == "*" {
			continue
		}
		s.follow(t, ts, name, r.GetInitialResourceVersions()[name] != "")
	}
	for _, name := range r.GetResourceNamesUnsubscribe() {
		s.unfollow(t, ts, name)
	}
}

// follow takes a name that the Envoy asks for; said is whether it said what it has of it.
func (s *stream) follow(t translate.Type, ts *typeState, name string, said bool) {
	e := s.g.entry(translate.Key{Type: t, Name: name})
	if !ts.names.has(e.id) {
		ts.names.set(e.id)
		e.refs++
	}
	if e.bad != nil {
		ts.spoil(name, s.form(e.bad.Resource).Version) // perhaps by this Envoy, on another stream
	}
	delete(ts.leaving, name)
	have, eff := s.have(e), s.form(e.served)
	if said && have != nil && eff != nil && (have.Version == eff.Version || outlives(have, eff)) {
		return
	}
	if t == translate.TypeSecret && e.gone() {
		s.lend(ts, name)
		return
	}
	if eff == nil {
		// A secret that was refused has no other version to be served: without a word the Envoy would keep
		// its listeners closed until the secret's initial_fetch_timeout.
		if t == translate.TypeSecret || (e.gone() && t != translate.TypeEndpoint) {
			ts.absent = append(ts.absent, name)
		}
		return
	}
	rec := s.record(e)
	s.mark(rec, e.revision)
	rec.force = true
}

func (s *stream) unfollow(t translate.Type, ts *typeState, name string) {
	e := s.g.entry(translate.Key{Type: t, Name: name})
	delete(ts.leaving, name)
	if s.have(e) != nil && !ts.wildcard {
		rec := s.record(e)
		s.drop(rec)
		s.tidy(rec)
	}
	if ts.names.has(e.id) {
		ts.names.clear(e.id)
		e.refs--
	}
	if t == translate.TypeEndpoint {
		s.lookAgain(translate.TypeCluster, name)
	}
	if t == translate.TypeSecret {
		ts.unlend(name)
		s.bring(e, s.g.revision) // it may have come since the Envoy was told that there is none
	}
	s.g.forget(e)
}

// adopt takes over what an Envoy says it has, from another stream or another life of this server.
func (s *stream) adopt(t translate.Type, ts *typeState, name, version string) {
	k := translate.Key{Type: t, Name: name}
	if t == translate.TypeSecret && s.g.entries[t][name] == nil {
		return // it is asked for, too
	}
	e := s.g.entry(k)
	// It has accepted it: an Envoy names only versions that it has taken.
	switch {
	case e.desired.Is(version) && (e.bad != nil || !e.good.Is(version)):
		s.accept(e.desired, e.revision)
	case e.contained != nil && e.contained.form.Is(version) && !e.good.Is(version):
		s.accept(e.contained.form, e.revision)
	}
	if eff := s.form(e.served); eff != nil && eff.Version == version && e.uniform() && ts.records[e] == nil && !ts.current.has(e.id) {
		ts.current.set(e.id)
		e.refs++
		s.speak(eff, 1)
		if len(s.awaited) > 0 {
			s.arrived(name)
		}
		return
	}
	rec := s.record(e)
	s.hold(rec, adopted(k, version, e.desired, e.served, e.good)) // whichever form it is
	switch eff := s.form(e.served); {
	case eff != nil && eff.Version == version:
		s.clean(rec)
	case ts.fresh && !e.gone():
		s.mark(rec, 1)
	default:
		s.mark(rec, s.g.revision)
	}
	if t == translate.TypeCluster || t == translate.TypeEndpoint {
		s.arrived(name)
	}
}

// accept notes that this Envoy has taken a version.
func (s *stream) accept(r *translate.Resource, revision int64) {
	s.g.accept(r, revision)
	if e := s.g.entries[r.Type][r.Name]; e != nil && e.contained.judging() && e.contained.form.Is(r.Version) {
		s.g.cleared(e, s)
	}
	s.sync()
}

// refuse notes that this Envoy has refused a version.
func (s *stream) refuse(r *translate.Resource, reason string) {
	s.g.refuse(s, r, reason, time.Now())
	s.sync()
}

// record opens a record of something that the Envoy has, if it has it, as it is served.
func (s *stream) record(e *entry) *record {
	s.sync()
	return s.open(e, e.served)
}

// spoil notes that the Envoy has refused a version.
func (ts *typeState) spoil(name, version string) {
	if ts.spoiled == nil {
		ts.spoiled = map[string]string{}
	}
	ts.spoiled[name] = version
}

func (s *stream) acked(t translate.Type, ts *typeState, in *response) {
	for _, it := range in.items {
		rec := ts.records[it.e]
		if it.resource == nil {
			s.drop(rec)
			rec.anew = false
			s.settle(rec)
			continue
		}
		if ts.spoiled[it.name] != it.resource.Version {
			delete(ts.spoiled, it.name)
		}
		if it.e == nil {
			s.takenSecret(ts, it)
			continue
		}
		s.accept(it.resource, it.revision)
		if !ts.wants(it.e) {
			s.landed(it.resource)
			s.tidy(rec)
			continue // it was dropped; if it is wanted again, it is asked for again
		}
		s.hold(rec, it.resource)
		s.landed(it.resource) // counted when it was sent, and again as held
		rec.force, rec.again = rec.again, false
		s.settle(rec)
		switch t {
		case translate.TypeSecret:
			s.takenSecret(ts, it)
		case translate.TypeCluster, translate.TypeEndpoint:
			s.arrived(it.name)
		}
	}
}

// landed takes back what was counted when a resource was sent.
func (s *stream) landed(r *translate.Resource) {
	s.claim(r, -1)
	s.speak(r, -1)
}

// settle forgets a resource's dirt, or moves it on to the revision that has come since.
func (s *stream) settle(rec *record) {
	if !rec.dirty {
		s.tidy(rec)
		return
	}
	eff := s.form(rec.e.served)
	if (eff == nil && rec.have == nil) || (eff != nil && rec.have != nil && eff.Version == rec.have.Version && !rec.force) {
		if !rec.e.quarantined() {
			s.clean(rec)
		}
		return
	}
	if rec.next != 0 {
		rec.first, rec.next = rec.next, 0
	}
	s.enqueue(rec)
}

// refused finds the culprit of a NACK: the only resource of its response, or one that its halves will
// show. Removals are never at fault; what else was in the response is sent again.
func (s *stream) refused(ts *typeState, in *response, reason string) {
	var upserts []item
	for _, it := range in.items {
		rec := ts.records[it.e]
		if it.resource == nil {
			if ts == s.types[translate.TypeCluster] {
				delete(s.types[translate.TypeEndpoint].leaving, it.name) // the removal may not have been done
				s.lookAgain(translate.TypeEndpoint, it.name)
			}
			s.enqueue(rec)
			continue
		}
		upserts = append(upserts, it)
		if it.e != nil {
			s.landed(it.resource)
			s.mark(rec, it.revision)
		}
	}
	switch len(upserts) {
	case 0:
		s.log.Error("envoy refused a response without resources", zap.String("reason", reason))
		for _, it := range in.items { // asking again would go on for ever
			rec := ts.records[it.e]
			s.drop(rec)
			s.clean(rec)
		}
	case 1:
		ts.spoil(upserts[0].name, upserts[0].resource.Version)
		if ts == s.types[translate.TypeSecret] {
			s.refusedSecret(ts, upserts[0], reason)
		} else {
			s.refuse(upserts[0].resource, reason)
		}
	default:
		ts.groups = append(split(upserts, reason), ts.groups...)
	}
}

// split parts a refused response: those that the text names each alone, the rest in halves.
func split(items []item, reason string) [][]*entry {
	var named, rest []*entry
	for _, it := range items {
		if len(named) < 8 && len(items) > 2 && mentions(reason, it.name) {
			named = append(named, it.e)
		} else {
			rest = append(rest, it.e)
		}
	}
	var out [][]*entry
	if len(named) > 0 {
		// What is not named is probably good: all of it goes first.
		if len(rest) > 0 {
			out = append(out, rest)
		}
		for _, n := range named {
			out = append(out, []*entry{n})
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
