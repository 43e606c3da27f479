package ads

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

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
	// Retry is the first pause before a rejected resource is tried again, alone, on the Envoys that lack
	// it: the cause may be the Envoy's surroundings, a port in use for instance. It doubles up to 32
	// times; 15s where 0.
	Retry time.Duration
	// OnChange is called, without locks held, when what the Envoys have applied or rejected has changed.
	OnChange func()
	// Seats are those of all gateways; no license has a limit where nil.
	Seats *seats.Seats
	// Log must not be nil.
	Log *zap.Logger
}

// Proxy is one connected Envoy.
type Proxy struct {
	// Number is the connection's, in this process.
	Number      uint64
	ID          string
	Address     string
	Version     string
	ConnectedAt time.Time
	// Applied is the revision that it serves in full.
	Applied int64
	// Drain is how long its connections may go on where what they came through has changed; 0 where it does not say.
	Drain time.Duration
	// OverLimit says that it has no seat under its gateway's license. Since is its seniority among all Envoys.
	OverLimit bool
	Since     time.Time
}

// Gateway is the resources of one fleet of Envoys, and its streams. It is the transport: it holds the lock, and what
// is below it, a [table] and a [plan] for each stream, is called under that.
type Gateway struct {
	name string
	opt  Options

	mu      sync.Mutex
	table   *table
	streams map[*deltaStream]struct{}
	// woken is the number of the last change that streams were woken for.
	woken   int64
	catchUp catchUp
	// responses are the encoded resources of responses, which the streams share. They have a lock of their own, and so
	// have the route tables of state-of-the-world clients.
	responses   encodings
	routeTables routeTables
	levels      levels
	// notifying says that OnChange is about to be called.
	notifying atomic.Bool
	changes   proxyChanges
	times     revisionTimes
	traces    traces
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
	var types []tableRules
	for _, r := range allRules {
		types = append(types, r.tableRules)
	}
	return &Gateway{
		name: name, opt: opt, table: newTable(types, opt.Log.With(zap.String("gateway", name)).Warn),
		streams: map[*deltaStream]struct{}{}, watchers: map[chan struct{}]struct{}{},
		catchUp: catchUp{active: map[*deltaStream]time.Time{}},
	}
}

// Name is the gateway's.
func (g *Gateway) Name() string { return g.name }

// Apply makes a delta, the result of a revision, what the Envoys should have. A revision below the
// last one (after a database was restored) is a new beginning: what is pending counts as its own. Who calls it has it
// reported: a commit concerns several gateways, and is reported once.
func (g *Gateway) Apply(revision int64, d translate.Delta) {
	g.mu.Lock()
	defer g.unlock()
	if revision < g.table.revision {
		g.table.restart(revision)
		for s := range g.streams {
			s.plan.restart(revision)
		}
	}
	g.times.add(revision, time.Now())
	g.table.apply(revision, d)
}

// maxLag is how many changes a stream may be behind before the gateway has it look at them: an Envoy that
// does not answer any more costs at most that much of the log, and then one record a resource.
const maxLag = 4096

// unlock ends a change of the table: it wakes the streams that have something new to look at.
func (g *Gateway) unlock() {
	defer g.mu.Unlock()
	tail := g.table.tail
	if g.woken == tail.number {
		return
	}
	g.woken = tail.number
	for s := range g.streams {
		if s.plan.at == tail {
			continue
		}
		if s.plan.lag() > maxLag {
			s.plan.sync()
		}
		s.wake()
	}
	if at := g.routeTables.at; at != nil && tail.number-at.number > maxLag {
		g.routeTables.at = nil
	}
	for c := range g.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Revision is the last one applied to this gateway.
func (g *Gateway) Revision() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.table.revision
}

// Live is the revision that every connected Envoy serves in full; without any, the gateway's own.
func (g *Gateway) Live() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	live := g.table.revision
	for s := range g.streams {
		live = min(live, s.plan.applied())
	}
	return live
}

// Rejections lists what is quarantined, and what is held back for that.
func (g *Gateway) Rejections() []Rejection {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.table.rejections()
}

// Resources lists what is served, as the state's checkers compare it with Envoy's own dump.
func (g *Gateway) Resources() []*translate.Resource {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.table.resources()
}

// Policies are those that routes name which are served in place of rejected ones: they must stay in the ECDS filter
// configs, whatever the configuration says of them.
func (g *Gateway) Policies() map[string]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.table.policies()
}

// Snapshot lists what is quarantined, so that a restart does not forget it.
func (g *Gateway) Snapshot() []Quarantined {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.table.snapshot()
}

// Restore takes the quarantine snapshot of the process before. It is for the time before any Envoy is connected.
func (g *Gateway) Restore(all []Quarantined, now time.Time) {
	g.mu.Lock()
	defer g.unlock()
	g.table.restore(all, now)
}
