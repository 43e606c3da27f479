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
	Recv() (*discoveryv3.DeltaDiscoveryRequest, error)
	Context() context.Context
}

// dirt is a resource that the Envoy has not (fully) got.
type dirt struct {
	// first is the oldest revision that is not on the Envoy; next the first one that came after the
	// version in flight was sent, 0 for none.
	first, next int64
	// anew is a cluster that the Envoy has to be without before it gets it again.
	anew bool
	// force sends it even where the Envoy has this version; again asks for that once more after the
	// response in flight.
	force, again bool
}

// held is a version that an Envoy has.
type held struct {
	version string
	// clusters that it uses; unknown where the version came from another server's life.
	clusters []string
	unknown  bool
	// foreign says of endpoints that another server's life has sent them.
	foreign bool
	// says is a route table that names something, or whose content is not known.
	says bool
	// byName is a secret that the Envoy forgets when it is told that it is gone.
	byName bool
}

// item is one resource in a response in flight.
type item struct {
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
	names      map[string]bool
	// leaving are endpoints whose cluster is being removed: the Envoy will forget them, and ask again if the
	// cluster comes back. What is sent in between it acknowledges and drops.
	leaving map[string]bool
	known   map[string]held
	dirty   map[string]*dirt
	// inflight are the responses that the Envoy has not answered, and flying the names in them. There is one of a
	// type, and up to [window] of secrets, each of which goes alone.
	inflight []*response
	flying   map[string]bool
	// groups are sent one after the other, each by itself: the parts of a refused response.
	groups [][]string
	// answer is owed even where there is nothing to say.
	answer bool
	// spoiled are versions that the Envoy has refused, and so takes the next time without looking.
	spoiled map[string]string
	// absent names were asked for and do not exist.
	absent []string
	// queue are the secrets to look at: dirty ones whose turn has not come. It is nil for other types.
	queue []string
	// leases are the names that stand for no secret of their own, the oldest first.
	leases []lease
}

// mark notes dirt.
func (ts *typeState) mark(name string, d *dirt) {
	ts.dirty[name] = d
	ts.enqueue(name)
}

// enqueue has a secret looked at.
func (ts *typeState) enqueue(name string) {
	if ts.queue != nil {
		ts.queue = append(ts.queue, name)
	}
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
	behind  time.Time // since when it has been seen to lack something
	// runtime says that the Envoy follows the gateway's runtime, and places that a place for a filter may be empty;
	// drain is its drain time, 0 where it is not known.
	runtime, places bool
	drain           time.Duration

	// surplus says that the Envoy has no seat under its gateway's license; place is since when it has the one
	// that it has among all Envoys.
	surplus bool
	place   time.Time
	types   map[translate.Type]*typeState
	// uses counts, by cluster, the routes and listeners that the Envoy holds or may be about to hold.
	uses map[string]int
	// unknown counts the held versions whose clusters are not known.
	unknown int
	// says counts the route tables that the Envoy holds or may be about to hold and that name something (a policy,
	// none, a feature); fresh is one that came without anything.
	says  int
	fresh bool
	// free notes since when a cluster that is to be removed is unused.
	free  map[string]time.Time
	nonce uint64
	wakes chan struct{}
}

func newStream(g *Gateway, conn deltaStream, cancel context.CancelFunc, now time.Time) *stream {
	s := &stream{
		g: g, conn: conn, cancel: cancel, log: g.opt.Log, since: now, number: numbers.Add(1),
		types: map[translate.Type]*typeState{}, uses: map[string]int{}, free: map[string]time.Time{},
		wakes: make(chan struct{}, 1),
	}
	for _, t := range order {
		s.types[t] = &typeState{
			names: map[string]bool{}, leaving: map[string]bool{}, known: map[string]held{}, dirty: map[string]*dirt{},
			flying: map[string]bool{}, spoiled: map[string]string{},
		}
	}
	s.types[translate.TypeSecret].queue = []string{}
	return s
}

// join makes the stream one of the gateway's; until it has everything it has applied revision 0.
func (s *stream) join() {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	for t, byName := range s.g.entries {
		for name, e := range byName {
			if e.desired != nil || e.pinned {
				s.types[t].mark(name, &dirt{first: 1})
			}
		}
	}
	s.g.streams[s] = struct{}{}
	s.g.moved(s)
}

func (s *stream) leave() {
	s.g.mu.Lock()
	delete(s.g.streams, s)
	s.g.went(s)
	s.g.mu.Unlock()
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
	if s.says > 0 || (!s.fresh && !s.types[translate.TypeScope].subscribed) {
		return true
	}
	for _, e := range s.g.substitutes {
		if says(e.good) {
			return true
		}
	}
	return false
}

// tooEarly says whether a slot's content has to wait until the Envoy has other routes; has is whether it has a content.
func (s *stream) tooEarly(r *translate.Resource, has bool) bool { return has && r.Late && s.careful() }

// says tells of a route table whether it names something.
func says(r *translate.Resource) bool { return r != nil && r.Says() }

// holding is what an Envoy has with a resource.
func holding(r *translate.Resource) held {
	return held{version: r.Version, clusters: r.Clusters, says: says(r), byName: r.ByName}
}

// claim counts what a version relies on that an Envoy has or is being sent, until [stream.release].
func (s *stream) claim(h held) {
	for _, c := range h.clusters {
		s.uses[c]++
	}
	if h.unknown {
		s.unknown++
	}
	if h.says {
		s.says++
	}
}

func (s *stream) release(h held) {
	for _, c := range h.clusters {
		if s.uses[c]--; s.uses[c] <= 0 {
			delete(s.uses, c)
		}
	}
	if h.unknown {
		s.unknown--
	}
	if h.says {
		s.says--
	}
}

// reform has slots looked at again whose other form is due: what it waited for may have changed by any message.
func (s *stream) reform() {
	ts := s.types[translate.TypeExtension]
	for name, e := range s.g.entries[translate.TypeExtension] {
		r := e.effective()
		if have, has := ts.known[name]; has && r != nil && r.Careful != nil && have.version != s.form(r).Version {
			s.retouch(r.Key)
		}
	}
}

func (s *stream) effective(k translate.Key) *translate.Resource { return s.form(s.g.effective(k)) }

// touch notes that a revision changed a resource.
func (s *stream) touch(k translate.Key, revision int64) {
	ts := s.types[k.Type]
	if k.Type == translate.TypeSecret {
		s.changedSecret(ts, k.Name, revision)
	}
	d := ts.dirty[k.Name]
	switch {
	case d == nil:
		ts.mark(k.Name, &dirt{first: revision})
	case d.next == 0 && ts.flying[k.Name]:
		d.next = revision
	default:
		ts.enqueue(k.Name)
	}
}

// retouch has a resource looked at again without a revision of its own.
func (s *stream) retouch(k translate.Key) {
	ts := s.types[k.Type]
	if ts.dirty[k.Name] == nil {
		ts.mark(k.Name, &dirt{first: s.g.revision})
	} else {
		ts.enqueue(k.Name)
	}
}

// wants says whether the Envoy follows a resource.
func (ts *typeState) wants(name string) bool {
	return ts.wildcard || (ts.names[name] && !ts.leaving[name])
}

// run serves the stream until it ends.
func (s *stream) run(first *discoveryv3.DeltaDiscoveryRequest) error {
	defer s.cancel()
	s.join()
	s.g.opt.Seats.Join(seats.Proxy{Gateway: s.g.name, ID: s.id, Address: s.address, Connected: s.since}, s)
	s.g.opt.OnChange()
	defer s.g.opt.OnChange()
	defer s.g.opt.Seats.Leave(s)
	defer s.leave()
	requests := make(chan *discoveryv3.DeltaDiscoveryRequest, 16)
	failed := make(chan error, 1)
	ctx := s.conn.Context()
	go func() {
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
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	s.handle(first)
	for {
		next, err := s.pump()
		if err != nil {
			return err
		}
		timer.Reset(next)
		select {
		case r := <-requests:
			s.handle(r)
			s.g.opt.OnChange()
		case <-s.wakes:
		case <-timer.C:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pump sends everything that may be sent now, and says when to look again at the latest.
func (s *stream) pump() (time.Duration, error) {
	for {
		now := time.Now()
		s.g.mu.Lock()
		msg := s.next(now)
		wait := s.nextTimer(now)
		s.g.mu.Unlock()
		if msg == nil {
			return wait, nil
		}
		if err := s.conn.Send(msg); err != nil {
			return 0, err
		}
	}
}

func (s *stream) newNonce() string {
	s.nonce++
	return strconv.FormatUint(s.nonce, 10)
}

// applied is the revision that the Envoy serves in full. A removal of a cluster is not waited for:
// nobody can see it. Nor is what was refused: its last good version is served instead, and reported.
func (s *stream) applied() int64 {
	applied := s.g.revision
	for t, ts := range s.types {
		for name, d := range ts.dirty {
			if d.first <= applied && s.counts(t, ts, name) {
				applied = d.first - 1
			}
		}
	}
	return max(applied, 0)
}

func (s *stream) counts(t translate.Type, ts *typeState, name string) bool {
	e := s.g.entries[t][name]
	eff := s.form(e.effective())
	have, has := ts.known[name]
	if eff == nil && !has && !ts.flying[name] {
		return false // it never had it, and needs it no more; or it was refused, without a predecessor
	}
	if eff == nil && e != nil && e.bad != nil {
		return false // it was refused, and the Envoy keeps what another life of this server has sent
	}
	if eff != nil && has && have.version == eff.Version && !ts.dirty[name].force {
		return false // it has what is served in place of what was refused
	}
	switch t {
	case translate.TypeCluster:
		return eff != nil && (!has || !s.waits(name))
	case translate.TypeEndpoint:
		return eff != nil && (!has || !have.outlives(eff)) && s.g.effective(translate.Key{Type: translate.TypeCluster, Name: name}) != nil
	case translate.TypeSecret:
		if eff == nil {
			return have.byName
		}
		return ts.wants(name) || s.carried(eff)
	case translate.TypeExtension, translate.TypeRuntime:
		return eff != nil && ts.wants(name) && !s.tooEarly(eff, has)
	default:
		return eff == nil || s.g.blocker(eff) == nil
	}
}
