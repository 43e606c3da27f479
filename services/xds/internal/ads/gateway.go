package ads

import (
	"maps"
	"slices"
	"sync"
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

// entry is one resource as it should be, and what is known of it.
type entry struct {
	desired *translate.Resource // nil: it is to be removed
	good    *translate.Resource // the last version that an Envoy has accepted
	bad     *Refusal            // set where the desired version was refused
	// pinned keeps the good version although nothing is desired; held, although the desired one is not at
	// fault: what it relies on was refused.
	pinned, held bool
	// revision that changed desired last, and the last one whose version the good one is known to be.
	revision, goodRevision int64
}

// effective is what is served: the desired version, or in its place the last good one.
func (e *entry) effective() *translate.Resource {
	switch {
	case e == nil:
		return nil
	case e.desired == nil:
		if e.pinned {
			return e.good
		}
		return nil
	case e.bad != nil, e.held && e.good != nil:
		return e.good
	default:
		return e.desired
	}
}

// lastGood is the revision of the good version, 0 where there is none.
func (e *entry) lastGood() int64 {
	if e.good == nil {
		return 0
	}
	return e.goodRevision
}

// quarantined says whether the desired version is not what is served.
func (e *entry) quarantined() bool { return e != nil && e.desired != nil && (e.bad != nil || e.held) }

// accepted says whether some Envoy has taken the version that is served.
func (e *entry) accepted() bool {
	eff := e.effective()
	return eff != nil && e.good != nil && e.good.Version == eff.Version
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
	at     time.Time
	tries  int
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
	revision int64
	streams  map[*stream]struct{}
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
	g := &Gateway{name: name, opt: opt, entries: map[translate.Type]map[string]*entry{}, streams: map[*stream]struct{}{}, refused: map[translate.Key]struct{}{}, contested: map[string]*Refusal{}, watchers: map[chan struct{}]struct{}{}}
	for _, t := range order {
		g.entries[t] = map[string]*entry{}
	}
	return g
}

// order is that in which types are looked at for something to send.
var order = []translate.Type{
	translate.TypeRuntime, translate.TypeCluster, translate.TypeEndpoint, translate.TypeSecret, translate.TypeExtension, translate.TypeListener, translate.TypeScope,
}

// Apply makes a delta, the result of a revision, what the Envoys should have. A revision below the
// last one (after a database was restored) is a new beginning: what is pending counts as its own.
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
	for _, k := range d.Removes {
		if e := g.entries[k.Type][k.Name]; e != nil && e.desired != nil {
			g.regroup(e.desired, nil)
			e.desired, e.bad, e.revision = nil, nil, revision
			g.touch(k, revision)
		}
	}
	g.repin()
	g.wake()
	g.mu.Unlock()
	g.opt.OnChange()
}

func (g *Gateway) restart(revision int64) {
	for _, byName := range g.entries {
		for _, e := range byName {
			e.revision, e.goodRevision = min(e.revision, revision), min(e.goodRevision, revision)
		}
	}
	for s := range g.streams {
		for _, ts := range s.types {
			for _, d := range ts.dirty {
				d.first, d.next = min(d.first, revision), min(d.next, revision)
			}
		}
	}
}

func (g *Gateway) put(r *translate.Resource, revision int64) {
	byName := g.entries[r.Type]
	if byName == nil {
		return // a type for other clients (RDS)
	}
	e := byName[r.Name]
	if e == nil {
		e = &entry{}
		byName[r.Name] = e
	}
	if r.Same(e.desired) {
		return
	}
	if r.Type == translate.TypeSecret && e.desired != nil && e.desired.Version == r.Version {
		// Another carrier for the same content: what is known of that stays.
		if e.good.Is(r.Version) {
			e.good = r
		}
		e.desired = r
		return
	}
	if e.good != nil && e.desired != nil && e.good.Version == e.desired.Version {
		e.goodRevision = revision - 1
	}
	g.regroup(e.desired, r)
	e.desired, e.bad, e.revision = r, nil, revision
	g.touch(r.Key, revision)
}

// touch marks a resource dirty on every stream.
func (g *Gateway) touch(k translate.Key, revision int64) {
	for s := range g.streams {
		s.touch(k, revision)
	}
}

func (g *Gateway) wake() {
	for s := range g.streams {
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
		if r = e.desired; e.bad != nil {
			e.bad = nil
			defer g.wake() // for what it held back
			defer g.repin()
		}
	} else if e.good != nil && (revision < e.goodRevision || e.good.Version == r.Version) {
		return // a slower Envoy, where a later version is known to be good; or nothing new
	}
	e.good, e.goodRevision = r, revision
}

// refuse notes that an Envoy has refused a version, and has every stream look at the resource again.
func (g *Gateway) refuse(r *translate.Resource, reason string, now time.Time) {
	e := g.entries[r.Type][r.Name]
	if e == nil || !e.desired.Is(r.Version) {
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
	}
	g.retouch(r.Key)
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

// Proxies lists the connected Envoys, by id and address.
func (g *Gateway) Proxies() []Proxy {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]Proxy, 0, len(g.streams))
	for s := range g.streams {
		out = append(out, Proxy{ID: s.id, Address: s.address, Version: s.version, ConnectedAt: s.since, Applied: s.applied(), Drain: s.drain, Surplus: s.surplus, Since: s.place})
	}
	slices.SortFunc(out, func(a, b Proxy) int {
		if a.ID != b.ID {
			return compare(a.ID, b.ID)
		}
		return compare(a.Address, b.Address)
	})
	return out
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
		r.Good = e.lastGood()
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

// Close ends every stream; the Envoys keep what they have.
func (g *Gateway) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range g.streams {
		s.cancel()
	}
}

func (g *Gateway) effective(k translate.Key) *translate.Resource {
	return g.entries[k.Type][k.Name].effective()
}

func (g *Gateway) retouch(k translate.Key) {
	for s := range g.streams {
		s.retouch(k)
	}
}
