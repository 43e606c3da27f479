package ads

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/xds/internal/seats"
)

// DefaultLinger is [Options.Linger] where it is 0.
const DefaultLinger = 5 * time.Second

// Options tune a gateway. The zero value is good for production.
type Options struct {
	// Linger is how long a cluster stays after the last route left it, for requests in flight and their
	// retries; 5s where 0.
	Linger time.Duration
	// Retry is the first pause before a refused resource is tried again, alone, on the Envoys that lack
	// it: the cause may be the Envoy's surroundings, a port in use for instance. It doubles up to 32
	// times; 15s where 0.
	Retry time.Duration
	// OnChange is called, without locks held, when what the Envoys have applied or refused has changed.
	OnChange func()
	// Seats are those of all gateways; no license has a limit where nil.
	Seats *seats.Seats
	// Log must not be nil.
	Log *zap.Logger
}

// Refusal is a resource that an Envoy refused.
type Refusal struct {
	Resource *translate.Resource
	// Revision that made this version.
	Revision int64
	// Good is the last revision whose version was good, 0 where there is none: what has not been changed since
	// is not at fault, and is served.
	Good int64
	// Reason in Envoy's words.
	Reason string
	// Closed are the policies at fault, which refuse every request; none where all of the resource was refused.
	Closed []string
	at     time.Time
	tries  int
	// others says that all Envoys but one may try it at once.
	others bool
	by     *stream
}

// Proxy is one connected Envoy.
type Proxy struct {
	// Number is the connection's, in this life of the server.
	Number      uint64
	ID          string
	Address     string
	Version     string
	ConnectedAt time.Time
	// Applied is the revision that it serves in full.
	Applied int64
	// Drain is how long its connections may go on where what they came through has changed; 0 where it does not say.
	Drain time.Duration
	// Surplus says that it has no seat under its gateway's license; Since is its place among all Envoys.
	Surplus bool
	Since   time.Time
}

// Gateway is the resources of one fleet of Envoys, and its streams.
type Gateway struct {
	name string
	opt  Options

	mu       sync.Mutex
	entries  map[translate.Type]map[string]*entry
	kinds    map[translate.Type]*kind
	revision int64
	streams  map[*stream]struct{}
	// tail is the last change; epoch counts whatever may change what a stream thinks of its resources.
	tail  *change
	epoch int64
	// users are what is served and sends traffic to a cluster, by its name.
	users map[string]map[*entry]struct{}
	// speaking says of an epoch whether something that is served in another's place names something.
	speaking struct {
		epoch int64
		is    bool
	}
	intake intake
	// encodings are shared by the streams; they have a lock of their own.
	encodings encodings
	tables    tables
	levels    levels
	// telling says that OnChange is about to be called.
	telling atomic.Bool
	// refused are the keys of entries that may be bad, so that nobody has to look at all the others.
	refused map[translate.Key]struct{}
	// held and pinned are what [Gateway.hold] and [Gateway.repin] hold and keep.
	held, pinned map[translate.Key]bool
	// together are the secrets that share a TLS context with a secret, by name; contested those of which one such
	// context, but not they, was refused, with the refusal of what is at fault.
	together  map[string]map[string]bool
	contested map[string]*Refusal
	moves     moves
	applies   applies
	// watchers are the streams of state-of-the-world clients.
	watchers map[chan struct{}]struct{}
	// clients are all streams, as *client; they need no lock.
	clients sync.Map
}

// NewGateway returns a gateway without resources.
func NewGateway(name string, opt Options) *Gateway {
	if opt.Linger == 0 {
		opt.Linger = DefaultLinger
	}
	if opt.Retry == 0 {
		opt.Retry = 15 * time.Second
	}
	if opt.Seats == nil {
		opt.Seats = seats.New("")
	}
	g := &Gateway{
		name: name, opt: opt, entries: map[translate.Type]map[string]*entry{}, kinds: map[translate.Type]*kind{}, tail: &change{}, epoch: 1,
		users: map[string]map[*entry]struct{}{}, streams: map[*stream]struct{}{}, refused: map[translate.Key]struct{}{},
		contested: map[string]*Refusal{}, watchers: map[chan struct{}]struct{}{}, intake: intake{holders: map[*stream]time.Time{}},
	}
	for _, t := range order {
		g.entries[t], g.kinds[t] = map[string]*entry{}, &kind{}
	}
	return g
}

// order is that in which types are looked at for something to send.
var order = []translate.Type{
	translate.TypeRuntime, translate.TypeCluster, translate.TypeEndpoint, translate.TypeSecret, translate.TypeExtension, translate.TypeListener, translate.TypeScope,
}

// Apply makes a delta, the result of a revision, what the Envoys should have. A revision below the
// last one (after a database was restored) is a new beginning: what is pending counts as its own. Who calls it has it
// reported: a commit concerns several gateways, and is reported once.
func (g *Gateway) Apply(revision int64, d translate.Delta) {
	g.mu.Lock()
	if revision < g.revision {
		g.restart(revision)
	}
	g.revision = revision
	g.applies.add(revision, time.Now())
	for _, r := range d.Upserts {
		g.put(r, revision)
	}
	var removed []*entry
	for _, k := range d.Removes {
		if e := g.entries[k.Type][k.Name]; e != nil && e.desired != nil {
			g.regroup(e.desired, nil)
			e.desired, e.bad, e.contained, e.revision = nil, nil, nil, revision
			g.changed(e, revision)
			removed = append(removed, e)
		}
	}
	g.repin()
	for _, e := range removed {
		g.forget(e)
	}
	g.wake()
	g.mu.Unlock()
}

func (g *Gateway) restart(revision int64) {
	for _, byName := range g.entries {
		for _, e := range byName {
			e.revision, e.goodRevision = min(e.revision, revision), min(e.goodRevision, revision)
		}
	}
	for s := range g.streams {
		s.sync()
		for _, ts := range s.types {
			for _, rec := range ts.records {
				rec.first, rec.next = min(rec.first, revision), min(rec.next, revision)
			}
		}
		s.recount()
	}
}

func (g *Gateway) put(r *translate.Resource, revision int64) {
	e := g.entry(r.Key)
	if r.Same(e.desired) {
		return
	}
	if r.Type == translate.TypeSecret && e.desired != nil && e.desired.Version == r.Version {
		// Another carrier for the same content: what is known of that stays.
		if e.good.Is(r.Version) {
			e.good = r
		}
		e.desired = r
		g.changed(e, 0)
		return
	}
	if e.good != nil && e.desired != nil && e.good.Version == e.desired.Version {
		e.goodRevision = revision - 1
	}
	g.regroup(e.desired, r)
	e.carry(r)
	e.revision = revision
	g.changed(e, revision)
}

// behind is how many changes a stream may be behind before the gateway has it look at them: an Envoy that takes
// nothing any more keeps no more of the log than that, and no more than one record a resource.
const behind = 4096

func (g *Gateway) wake() {
	for s := range g.streams {
		if s.at == g.tail {
			continue
		}
		if g.tail.number-s.at.number > behind {
			s.sync()
		}
		s.wakeUp()
	}
	for c := range g.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// accept notes that an Envoy has taken a version, made by a revision.
func (g *Gateway) accept(r *translate.Resource, revision int64) {
	e := g.entries[r.Type][r.Name]
	if e == nil {
		return
	}
	if e.desired.Is(r.Version) {
		e.parts = e.desired.Parts
		if r = e.desired; e.bad != nil {
			e.bad, e.contained = nil, nil
			defer g.wake() // for what it held back
			defer g.repin()
			defer g.changed(e, 0)
		}
	} else if e.contained != nil && e.contained.form.Is(r.Version) {
		r = e.contained.form
		if e.contained.judged {
			e.parts = r.Parts
		}
	} else if e.good != nil && (revision < e.goodRevision || e.good.Version == r.Version) {
		return // a slower Envoy, where a later version is known to be good; or nothing new
	}
	if !e.good.Is(r.Version) {
		g.epoch++
	}
	if e.good, e.goodRevision = r, revision; e.effective() != e.served {
		g.changed(e, 0)
	}
}

// refuse notes that an Envoy, s, has refused a version, and has every stream look at the resource again.
func (g *Gateway) refuse(s *stream, r *translate.Resource, reason string, now time.Time) {
	e := g.entries[r.Type][r.Name]
	if e != nil && e.contained != nil && e.contained.form.Is(r.Version) {
		g.divide(e, s)
		return
	}
	if e == nil || !e.desired.Is(r.Version) || e.contained != nil {
		return // it has been replaced in the meantime
	}
	r = e.desired
	tries := 0
	if e.bad != nil {
		tries = e.bad.tries + 1
	}
	if e.bad == nil {
		g.opt.Log.Warn("envoy refused a resource", zap.String("gateway", g.name), zap.String("type", ShortType(r.Type)),
			zap.String("name", r.Name), zap.String("reason", reason), zap.Stringers("objects", refs(r.Objects)))
	}
	g.refused[r.Key] = struct{}{}
	e.bad = &Refusal{Resource: r, Revision: e.revision, Reason: reason, at: now, tries: tries}
	if e.good != nil && e.good.Version == r.Version {
		e.good = nil // one Envoy took it, another did not: nothing is known good
	} else if g.contain(e, s) {
		g.repin()
		return
	}
	g.changed(e, 0)
	g.repin()
	g.wake()
}

func refs(in []resource.Ref) []resource.Ref { return in[:min(len(in), 5)] }

// Revision is the last one applied to this gateway.
func (g *Gateway) Revision() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.revision
}

// Live is the revision that every connected Envoy serves in full; without any, the gateway's own.
func (g *Gateway) Live() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	live := g.revision
	for s := range g.streams {
		live = min(live, s.applied())
	}
	return live
}

// Refusals lists what is quarantined, and what waits for a quarantined cluster or slot.
func (g *Gateway) Refusals() []Refusal {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Refusal
	for k := range g.refused {
		e := g.entries[k.Type][k.Name]
		if e == nil || e.desired == nil || e.bad == nil {
			delete(g.refused, k)
			continue
		}
		r := *e.bad
		r.Good, r.Closed = e.lastGood(), e.blamed()
		if e.contained.judging() || e.contained != nil && len(r.Closed) == 0 {
			continue // it is not known yet who is at fault, or is corrected
		}
		out = append(out, r)
	}
	out = append(append(out, g.heldBack()...), g.disputes()...)
	slices.SortFunc(out, func(a, b Refusal) int { return compare(a.Resource.Name, b.Resource.Name) })
	return out
}

// Resources lists what is served, as the state's checkers compare it with Envoy's own dump.
func (g *Gateway) Resources() []*translate.Resource {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []*translate.Resource
	for _, t := range order {
		for _, name := range slices.Sorted(maps.Keys(g.entries[t])) {
			if r := g.entries[t][name].effective(); r != nil {
				out = append(out, r)
			}
		}
	}
	return out
}

func (g *Gateway) effective(k translate.Key) *translate.Resource {
	if e := g.entries[k.Type][k.Name]; e != nil {
		return e.served
	}
	return nil
}
