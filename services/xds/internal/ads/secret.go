package ads

import (
	"maps"
	"slices"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// Secrets are not sent as the other types are.
//
// Envoy keeps the content of a secret before it tries it, and compares what it is sent with that: a refused
// content that is sent again is ACKed, and not served. So each secret goes in a response of its own, that a
// refusal need not be looked for by sending it again; several such responses are under way at once. A refused
// secret is not tried again, for its content alone decides; the last good one is sent in its place at once,
// for Envoy would otherwise build every context that the secret is part of with the refused one. Where none is good,
// the Envoy is told that there is no such secret: a handshake that waits for it fails at once, and no listener waits.
//
// The secrets of one TLS context (a pair of certificates, a certificate with the authority of clients) are judged
// together, and the NACK is that of the last one that came. It is the fault of the one whose content shows it.

// window is how many responses with secrets are under way at once.
const window = 128

// open says whether another response of a type may be sent, before those that were are answered.
func (ts *typeState) open() bool {
	return ts.subscribed && len(ts.inflight) < ts.window
}

// secrets picks the next secret that may be sent, and those that are gone up to it.
func (s *stream) secrets(ts *typeState, now time.Time) []item {
	var gone []item
	for len(ts.lent) > 0 {
		name := ts.lent[0]
		ts.lent = ts.lent[1:]
		if r := s.loan(ts, name); r != nil {
			return append(gone, item{name: name, resource: r})
		}
	}
	for len(ts.queue) > 0 {
		rec := ts.queue[0]
		ts.queue = ts.queue[1:]
		rec.queued = false
		if !rec.dirty || rec.flying || ts.records[rec.e] != rec || ts.lending[rec.e.Name] || s.together(ts, rec.e.Name) {
			continue
		}
		it, ok := s.consider(translate.TypeSecret, ts, rec, now)
		switch e := rec.e; {
		case ok && it.resource != nil:
			return append(gone, it)
		case ok:
			gone = append(gone, it)
		case e.quarantined() && e.served == nil && ts.wants(e) && rec.have == nil:
			ts.absent = append(ts.absent, e.Name)
		}
	}
	return gone
}

// secret finds a secret's entry.
func (g *Gateway) secret(name string) *entry { return g.entries[translate.TypeSecret][name] }

// together says whether a secret of the same context is under way: its answer says what this one's will mean.
func (s *stream) together(ts *typeState, name string) bool {
	for other := range s.g.together[name] {
		if rec := ts.records[s.g.secret(other)]; ts.lending[other] || (rec != nil && rec.flying) {
			return true
		}
	}
	return false
}

// takenSecret notes what the ACK of a secret says of those in the same context: they are served with it.
func (s *stream) takenSecret(ts *typeState, it item) {
	if ts.leased(it.name) >= 0 {
		ts.lent = append(ts.lent, it.name) // it may have been taken back and asked for anew since
	}
	s.lookAgain(translate.TypeSecret, it.name) // it may have a secret of its own now
	for other := range s.g.together[it.name] {
		s.lookAgain(translate.TypeSecret, other) // it may have waited
		if s.g.contested[other] != nil {
			delete(s.g.contested, other)
			s.g.epoch++
			if e := s.g.secret(other); e != nil && e.desired != nil && s.have(e) != nil && s.have(e).Version == e.desired.Version {
				s.accept(e.desired, e.revision)
			}
		}
	}
}

// refusedSecret blames the refusal of a secret on it, or on another one of its context whose content shows a fault.
func (s *stream) refusedSecret(ts *typeState, it item, reason string) {
	culprit := it.e
	if !faulty(it.resource) {
		for _, other := range slices.Sorted(maps.Keys(s.g.together[it.name])) {
			if e := s.g.secret(other); e != nil && faulty(e.desired) {
				culprit = e
			}
		}
	}
	if i := ts.leased(it.name); i >= 0 {
		if of := s.g.effective(translate.Key{Type: translate.TypeSecret, Name: ts.leases[i].of}); of.Is(it.resource.Version) {
			s.refuse(of, reason)
		}
		ts.unlend(it.name)
		ts.absent = append(ts.absent, it.name)
		return
	}
	if it.e == nil { // it has been taken back since
		s.lookAgain(translate.TypeSecret, it.name)
		return
	}
	if culprit != it.e {
		// The Envoy has it, and serves it as soon as the other one is another.
		rec := ts.records[it.e]
		s.hold(rec, it.resource)
		s.settle(rec)
		if culprit.bad == nil {
			s.refuse(culprit.desired, reason)
		}
		s.g.contest(it, culprit, reason)
		delete(ts.spoiled, it.name)
		s.restore(ts, culprit)
		return
	}
	s.refuse(it.resource, reason)
	s.restore(ts, it.e)
	for other := range s.g.together[it.name] {
		s.lookAgain(translate.TypeSecret, other)
	}
}

// restore sends what is served in the place of a secret that the Envoy has refused.
func (s *stream) restore(ts *typeState, e *entry) {
	if !e.quarantined() {
		return
	}
	if e.served == nil {
		if s.have(e) != nil {
			rec := s.record(e)
			s.drop(rec)
			s.tidy(rec)
		}
		ts.absent = append(ts.absent, e.Name)
		return
	}
	rec := s.record(e)
	s.mark(rec, e.revision)
	rec.force = true
}

// contest notes that a secret is not served because another one of its context was refused.
func (g *Gateway) contest(it item, culprit *entry, reason string) {
	g.epoch++
	if e := g.entries[it.resource.Type][it.name]; e == nil || !e.desired.Is(it.resource.Version) {
		return
	}
	g.opt.Log.Warn("a secret waits for another one of its TLS context", zap.String("gateway", g.name), zap.String("name", it.name),
		zap.String("refused", culprit.desired.Name), zap.String("reason", reason))
	g.contested[it.name] = &Refusal{
		Resource: it.resource, Revision: it.revision,
		Reason: "not at fault: it shares a TLS context with " + culprit.desired.Name + ", which was refused: " + reason,
	}
}

// disputes lists the secrets that are not at fault and still not served everywhere.
func (g *Gateway) disputes() []Refusal {
	var out []Refusal
	for name, r := range g.contested {
		e := g.entries[translate.TypeSecret][name]
		bad := false
		for other := range g.together[name] {
			bad = bad || g.entries[translate.TypeSecret][other].quarantined()
		}
		if e == nil || !e.desired.Is(r.Resource.Version) || !bad {
			delete(g.contested, name)
			continue
		}
		c := *r
		c.Good = e.lastGood()
		out = append(out, c)
	}
	return out
}

// regroup keeps count of which secrets share a context, when a listener or a cluster is replaced.
func (g *Gateway) regroup(was, now *translate.Resource) {
	if (was == nil || len(was.Together) == 0) && (now == nil || len(now.Together) == 0) {
		return
	}
	g.together = map[string]map[string]bool{}
	note := func(r *translate.Resource) {
		if r == nil || r == was {
			return
		}
		for _, group := range r.Together {
			for _, a := range group {
				for _, b := range group {
					if a == b {
						continue
					}
					if g.together[a] == nil {
						g.together[a] = map[string]bool{}
					}
					g.together[a][b] = true
				}
			}
		}
	}
	note(now)
	for _, t := range []translate.Type{translate.TypeCluster, translate.TypeListener} {
		for _, e := range g.entries[t] {
			note(e.desired)
			note(e.good) // it may be served in its place
		}
	}
}

// faulty says whether a secret's content shows by itself that Envoy refuses it.
func faulty(r *translate.Resource) bool {
	var secret tlsv3.Secret
	if r == nil || r.Body.UnmarshalTo(&secret) != nil {
		return false
	}
	leaf, err := certificate.Leaf(secret.GetTlsCertificate().GetCertificateChain().GetInlineString() + secret.GetValidationContext().GetTrustedCa().GetInlineString())
	c := secret.GetTlsCertificate()
	if err != nil || c == nil {
		return err != nil
	}
	return certificate.Presentable(leaf) != nil || certificate.CheckKey(c.GetCertificateChain().GetInlineString(), c.GetPrivateKey().GetInlineString()) != nil
}
