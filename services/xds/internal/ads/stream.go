package ads

import (
	"cmp"
	"context"
	"strconv"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/xds/internal/seats"
)

func compare(a, b string) int { return cmp.Compare(a, b) }

// ShortType is the last word of a type URL: Cluster.
func ShortType(t translate.Type) string {
	return string(t[strings.LastIndexByte(string(t), '.')+1:])
}

// deltaStream is the gRPC stream, as far as it is needed here.
type deltaStream interface {
	Send(*discoveryv3.DeltaDiscoveryResponse) error
	SendMsg(any) error
	Recv() (*discoveryv3.DeltaDiscoveryRequest, error)
	Context() context.Context
}

// item is one resource in a response in flight.
type item struct {
	// e is nil for a secret under a leased name.
	e        *entry
	name     string
	resource *translate.Resource // nil: removal
	revision int64
}

type response struct {
	nonce string
	items []item
}

// typeState is what a stream knows of one type.
type typeState struct {
	subscribed bool
	wildcard   bool
	// fresh says that what the Envoy lacks has not been noted yet.
	fresh bool
	// window is how many responses may be in flight at once.
	window int
	// names are those asked for, current those of which the Envoy has what is served, both by the entries' numbers.
	names, current ids
	// records are the others that the Envoy has, and all that it has to be told of.
	records map[*entry]*record
	// leaving are endpoints whose cluster is being removed: the Envoy will forget them, and ask again if the
	// cluster comes back. What is sent in between it acknowledges and drops.
	leaving map[string]bool
	// inflight are the responses that the Envoy has not answered. There is one of a type, and up to [window] of
	// secrets, each of which goes alone.
	inflight []*response
	// groups are sent one after the other, each by itself: the parts of a refused response.
	groups [][]*entry
	// answer is owed even where there is nothing to say.
	answer bool
	// spoiled are versions that the Envoy has refused, and so takes the next time without looking.
	spoiled map[string]string
	// absent names were asked for and do not exist.
	absent []string
	// queue are those to look at: dirty ones, and what they wait for may have come.
	queue []*record
	// leases are the names that stand for no secret of their own, the oldest first; lent those to be sent, and
	// lending those in flight.
	leases  []lease
	lent    []string
	lending map[string]bool
}

// stream is one Envoy's connection. Its state belongs to the gateway's lock; only its own goroutine
// sends.
type stream struct {
	g       *Gateway
	conn    deltaStream
	cancel  context.CancelFunc
	log     *zap.Logger
	number  uint64
	id      string
	address string
	version string
	since   time.Time
	lagged  time.Time // since when it has been seen to lack something
	// runtime says that the Envoy follows the gateway's runtime, and places that a place for a filter may be empty;
	// drain is its drain time, 0 where it is not known.
	runtime, places bool
	drain           time.Duration

	// surplus says that the Envoy has no seat under its gateway's license; place is since when it has the one
	// that it has among all Envoys.
	surplus bool
	place   time.Time
	types   map[translate.Type]*typeState
	// at is the last change that it has looked at.
	at *change
	// uses counts, by cluster, the scopes and listeners that send traffic there and that this Envoy has, or may have when
	// it has answered, in another version than the one that is served: those of the served ones the gateway counts.
	uses map[string]int
	// awaited are what waits for a cluster, by its name, and slotted what waits for slots.
	awaited map[string][]*record
	slotted []*record
	// missing is what [stream.applied] found: the first revision that the Envoy lacks; it is good until the epoch
	// of the gateway is another.
	missing, epoch int64
	// reported is what it was when others were last told of it.
	reported int64
	// unknown counts the held versions whose clusters are not known.
	unknown int
	// says counts the route tables that the Envoy holds or may be about to hold and that name something (a policy,
	// none, a feature); fresh is one that came without anything.
	says  int
	fresh bool
	// free notes since when clusters that are to be removed are unused, the first one first.
	free  []lingering
	nonce uint64
	wakes chan struct{}
	// admitted says that it has had its turn in the gateway's intake, which ends when the Envoy serves goal.
	admitted bool
	goal     int64
	// raw says that the stream takes what is marshalled already.
	raw bool
}

func newStream(g *Gateway, conn deltaStream, cancel context.CancelFunc, now time.Time) *stream {
	s := &stream{
		g: g, conn: conn, cancel: cancel, log: g.opt.Log, since: now, number: numbers.Add(1), types: map[translate.Type]*typeState{}, reported: -1,
		wakes: make(chan struct{}, 1),
	}
	for _, t := range order {
		s.types[t] = &typeState{fresh: true, window: 1}
	}
	s.types[translate.TypeSecret].window = window
	return s
}

// join makes the stream one of the gateway's; until it has everything it has applied revision 0.
func (s *stream) join() {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	s.at = s.g.tail
	s.g.streams[s] = struct{}{}
	s.g.moved(s)
}

// refresh notes what an Envoy lacks that has come: all but what it has said that it has.
func (s *stream) refresh(t translate.Type, ts *typeState) {
	ts.fresh = false
	for _, e := range s.g.kinds[t].byID {
		if s.needs(ts, e) {
			s.mark(s.open(e, nil), 1)
		}
	}
}

// needs says whether an Envoy that has come has to be told of a resource. Of secrets it asks for those that it wants.
func (s *stream) needs(ts *typeState, e *entry) bool {
	if e == nil || e.gone() || ts.current.has(e.id) || ts.records[e] != nil {
		return false
	}
	return e.Type != translate.TypeSecret || ts.names.has(e.id) || (e.desired != nil && e.desired.Carrier != "")
}

func (s *stream) leave() {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	delete(s.g.streams, s)
	s.g.went(s)
	s.g.levels.move(s.reported, -1)
	s.g.intake.leave(s)
	for t, ts := range s.types {
		for e := range ts.records {
			s.g.unref(e)
		}
		all := s.g.kinds[t].byID
		for _, set := range []ids{ts.names, ts.current} {
			for i := range set.all {
				s.g.unref(all[i])
			}
		}
	}
}

func (s *stream) wakeUp() {
	select {
	case s.wakes <- struct{}{}:
	default:
	}
}

// form is a resource as this Envoy gets it.
func (s *stream) form(r *translate.Resource) *translate.Resource {
	if s.surplus && r != nil && r.Surplus != nil {
		return r.Surplus
	}
	if r != nil && r.Careful != nil && s.careful() {
		return r.Careful
	}
	if r != nil && r.Plain != nil && !s.latest(r.Type) {
		return r.Plain
	}
	return r
}

// latest says whether the Envoy's bootstrap is such that it can be given a type's resources as they are.
func (s *stream) latest(t translate.Type) bool {
	if t == translate.TypeExtension {
		return s.places
	}
	return s.runtime
}

// careful says whether the Envoy may have routes that name something, or get some in the place of refused ones.
func (s *stream) careful() bool {
	return s.says > 0 || (!s.fresh && !s.types[translate.TypeScope].subscribed) || s.g.speaks()
}

// speaks says whether something that is served in the place of something refused names something.
func (g *Gateway) speaks() bool {
	if g.speaking.epoch != g.epoch {
		g.speaking.epoch, g.speaking.is = g.epoch, false
		for _, e := range g.substitutes {
			g.speaking.is = g.speaking.is || says(e.good)
		}
	}
	return g.speaking.is
}

// tooEarly says whether a slot's content has to wait until the Envoy has other routes; has is whether it has a content.
func (s *stream) tooEarly(r *translate.Resource, has bool) bool { return has && r.Late && s.careful() }

// reform has slots looked at again whose other form may be due: what it waited for may have changed by any message.
func (s *stream) reform() {
	for e, rec := range s.types[translate.TypeExtension].records {
		switch r := s.form(e.served); {
		case rec.dirty:
			s.enqueue(rec)
		case r != nil && e.served.Careful != nil && rec.have != nil && rec.have.Version != r.Version:
			s.mark(rec, s.g.revision)
		}
	}
}

func (s *stream) effective(k translate.Key) *translate.Resource { return s.form(s.g.effective(k)) }

// sync looks at the changes since the last time.
func (s *stream) sync() {
	var secrets []*change
	for n := s.at.next; n != nil; n = n.next {
		s.at = n
		if n.e.id < 0 {
			continue // it was forgotten: no Envoy had anything to do with it
		}
		s.touch(n.e, n.was, n.revision, n.again)
		switch n.e.Type {
		case translate.TypeSecret:
			if !n.again {
				secrets = append(secrets, n)
			}
		case translate.TypeEndpoint:
			s.lookAgain(translate.TypeCluster, n.e.Name)
		case translate.TypeExtension:
			s.slotsMoved()
		}
	}
	for _, n := range secrets {
		s.changedSecret(s.types[translate.TypeSecret], n.e, n.revision)
	}
}

// touch notes that a revision changed a resource, or that it is to be looked at again. Was is what the Envoy has if
// it has what was served until then.
func (s *stream) touch(e *entry, was *translate.Resource, revision int64, again bool) {
	ts := s.types[e.Type]
	if !ts.current.has(e.id) && ts.records[e] == nil && (ts.fresh || !s.needs(ts, e)) {
		return // it has nothing of it, and needs nothing of it now
	}
	rec := s.open(e, was)
	if !again && rec.dirty && rec.next == 0 && rec.flying {
		rec.next = revision
		s.recount()
		return
	}
	s.mark(rec, revision)
}

// wants says whether the Envoy follows a resource.
func (ts *typeState) wants(e *entry) bool {
	return ts.wildcard || (ts.names.has(e.id) && !ts.leaving[e.Name])
}

// run serves the stream until it ends.
func (s *stream) run(first *discoveryv3.DeltaDiscoveryRequest) error {
	defer s.cancel()
	s.join()
	s.g.opt.Seats.Join(seats.Proxy{Gateway: s.g.name, ID: s.id, Address: s.address, Connected: s.since}, s)
	s.g.tell(false)
	defer s.g.tell(false)
	defer s.leave()
	defer s.g.opt.Seats.Leave(s)
	requests := make(chan *discoveryv3.DeltaDiscoveryRequest)
	failed := make(chan error, 1)
	ctx := s.conn.Context()
	read := func() {
		for {
			r, err := s.conn.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}
	reading := false
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	judged := false
	take := func(r *discoveryv3.DeltaDiscoveryRequest) { judged = s.handle(r) }
	take(first)
	for {
		next, err := s.pump(judged)
		if err != nil {
			return err
		}
		judged = false
		timer.Reset(next)
		if !reading && s.admitted { // what an Envoy says that it has is much: it is read when its turn comes
			reading = true
			go read()
		}
		select {
		case r := <-requests:
			take(r)
		case <-s.wakes:
		case <-timer.C:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pump sends everything that may be sent now, and says when to look again at the latest. Judged says that what is known
// of the resources is another now, which is told with what the Envoy has applied by that.
func (s *stream) pump(judged bool) (time.Duration, error) {
	for {
		now := time.Now()
		s.g.mu.Lock()
		var msg *push
		wait, mine := s.g.intake.admit(s, now)
		if mine {
			s.sync()
			msg = s.next(now)
			wait = min(wait, s.nextTimer(now))
		}
		applied, was := s.applied(), s.reported
		s.g.intake.settle(s, applied)
		s.reported = applied
		urgent := applied != was && s.g.levels.move(was, applied)
		s.g.mu.Unlock()
		if applied != was || judged {
			s.g.tell(urgent || judged)
			judged = false
		}
		if msg == nil {
			return wait, nil
		}
		if err := s.send(msg); err != nil {
			return 0, err
		}
	}
}

// send sends nothing to an Envoy whose stream was ended here: one that reads slowly would get what is waiting for it.
func (s *stream) send(p *push) error {
	if err := s.conn.Context().Err(); err != nil {
		return err
	}
	if s.raw {
		return s.conn.SendMsg(p.encoded(&s.g.encodings))
	}
	return s.conn.Send(p.message())
}

func (s *stream) newNonce() string {
	s.nonce++
	return strconv.FormatUint(s.nonce, 10)
}
