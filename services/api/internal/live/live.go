// Package live adds up what the xDS servers and the agents report: which revision the Envoys of each
// gateway serve in full, what they refused, and what the nodes' kernels enforce.
package live

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// Target is what to wait for.
type Target struct {
	Epoch    string
	Revision int64
	// State is the digest of the configuration at the revision; "" where it is not known.
	State string
	// Gateways concerned.
	Gateways []string
	// Limits are the rate limit policies concerned.
	Limits []Limit
	// Objects that are to be live, and their revisions: if one of them is refused, that is the answer.
	Objects map[resource.Ref]int64
	// Names are the DNS names that have to have an address, each with a service that has it.
	Names map[string]string

	read readings
}

type server struct {
	*status.View
	id            string
	seen, unsaved time.Time
	clock         clock
	// learned says that it was taken from its reports who had gone before this api was there.
	learned bool
}

// Board is safe for concurrent use.
type Board struct {
	now func() time.Time
	// Keep is how long an Envoy is remembered that is gone; an hour unless it is set before the first report.
	Keep time.Duration
	// History is what reports are compared with. Without one every report is believed.
	History History

	mu      sync.Mutex
	servers map[string]*server
	agents  map[string]agent
	absent  []absent                                // the last one first
	names   map[string]map[string]status.NameStatus // by server and name
	traffic map[string]*traffic                     // by gateway
	drops   [intervals]drops
	changed chan struct{} // closed, and replaced, at each report
	// the connected Envoys in their order; nil where it has to be made anew
	list []listed
}

// NewBoard returns an empty board; now is time.Now outside tests.
func NewBoard(now func() time.Time) *Board {
	return &Board{
		now: now, Keep: Remember, servers: map[string]*server{}, agents: map[string]agent{},
		names: map[string]map[string]status.NameStatus{}, changed: make(chan struct{}), traffic: map[string]*traffic{},
	}
}

func (b *Board) server(id string) *server {
	if b.servers[id] == nil {
		b.servers[id] = &server{View: status.NewView(), id: id, seen: b.now()}
	}
	return b.servers[id]
}

// Report implements [status.Follower].
func (b *Board) Report(s status.XdsStatus, fresh bool) (missing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.servers[s.ID] == nil && s.Stopping {
		return false
	}
	x := b.server(s.ID)
	was := x.Head.Unsaved
	d, ok := x.View.Report(s, fresh)
	if !ok {
		return false
	}
	now := b.now()
	b.moved(x, d)
	defer b.tell()
	if s.Stopping {
		b.gone(x)
		return false
	}
	x.seen, x.unsaved = now, begun(s.Unsaved, was, x.unsaved, now)
	if fresh {
		x.clock = x.clock.heard(s.At, now)
	}
	b.learnAbsent(x)
	return !x.Whole()
}

// Page implements [status.Follower].
func (b *Board) Page(p status.XdsPage, fresh bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.servers[p.ID] == nil && !fresh {
		return // nobody has reported it
	}
	x := b.server(p.ID)
	d, _ := x.View.Page(p, fresh)
	b.moved(x, d)
}

// Pages implements [status.Follower].
func (b *Board) Pages(id string, there map[int32]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if x := b.servers[id]; x != nil {
		b.moved(x, x.Prune(there))
		b.learnAbsent(x)
		b.tell()
	}
}

// moved follows the Envoys of a server.
func (b *Board) moved(x *server, d status.Difference) {
	if d.Moved() {
		b.list = nil
	}
	for _, p := range d.Went {
		gone := absent{ProxyStatus: p, xds: x.id, seen: x.seen}
		if d.Anew { // its Envoys have to come back
			gone.until = x.seen.Add(Return)
		}
		b.miss(gone)
	}
	for _, p := range d.Came {
		b.found(p)
	}
}

// gone forgets a server, and has its Envoys waited for.
func (b *Board) gone(x *server) {
	delete(b.servers, x.id)
	b.list = nil
	for p := range x.Proxies {
		p.AppliedRevision = x.Applied(p)
		b.miss(absent{ProxyStatus: p, xds: x.id, seen: x.seen, until: x.seen.Add(Return)})
	}
}

func (b *Board) tell() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Changed returns what is closed at the next report.
func (b *Board) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// fresh lists the servers that have reported lately, in the order of their ids.
func (b *Board) fresh() []*server {
	now := b.now()
	out := make([]*server, 0, len(b.servers))
	for _, s := range b.servers {
		switch {
		case now.Sub(s.seen) > status.Stale:
			b.gone(s)
		case s.Head.ID != "": // otherwise its pages came, and its report is about to
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(x, y *server) int { return cmp.Compare(x.id, y.id) })
	return out
}

// Wait answers when every connected Envoy of the gateways serves the revision and every connected node that
// the policies select enforces them, when one of them refuses, when none is connected, or when the context
// ends.
func (b *Board) Wait(ctx context.Context, t Target) api.Live {
	start := b.now()
	recheck := time.NewTicker(time.Second)
	defer recheck.Stop()
	for {
		l, done, changed := b.ask(ctx, &t)
		l.WaitedMS = float64(b.now().Sub(start).Microseconds()) / 1000
		if done {
			return l
		}
		select {
		case <-changed:
		case <-recheck.C:
		case <-ctx.Done():
			l.State = "timeout"
			return l
		}
	}
}

// Now answers as [Board.Wait] would without waiting; its state is pending where that would wait.
func (b *Board) Now(t Target) api.Live {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, done := b.judge(t)
	if !done {
		l.State = "pending"
	}
	return l
}

func (b *Board) judge(t Target) (l api.Live, done bool) {
	if t.State != "" && !b.had(t, t.Revision, t.State) {
		l.Reason = "an older backup of the database was restored, which does not have the write"
		return l, false
	}
	agents, agentsDone := b.judgeAgents(t)
	if len(t.Gateways) == 0 && len(t.Limits) > 0 {
		return agents, agentsDone
	}
	l, done = b.judgeProxies(t)
	absent, sentence := b.named(t.Gateways)
	l.Agents, l.Absent = agents.Agents, absent
	if sentence != "" && (l.State == "live" || l.State == "no_proxies") {
		l.Reason = strings.TrimPrefix(l.Reason+"; "+sentence+", and not waited for", "; ")
	}
	switch {
	case !done || l.State == "rejected" || agents.Agents == 0:
		return l, done
	case !agentsDone || agents.State == "rejected":
		agents.Proxies, agents.Absent = l.Proxies, l.Absent
		return agents, agentsDone
	}
	// No Envoy is connected, but nodes are.
	l.Live, l.State, l.Reason = true, "live", join(cmp.Or(agents.Reason, sentence), b.kept(t, b.fresh()))
	return l, true
}

func (b *Board) judgeProxies(t Target) (l api.Live, done bool) {
	servers := b.fresh()
	if len(servers) == 0 {
		l.Reason = "no xDS server has reported in the last 15 seconds"
		return l, false
	}
	ready, waits := true, ""
	for _, s := range servers {
		here := int32(0)
		for _, g := range t.Gateways {
			here += s.Connected(g)
		}
		l.Proxies += here
		if s.Head.Epoch != t.Epoch || s.Head.Revision < t.Revision {
			ready = false
			l.Reason = "xDS server " + s.id + " has not read the revision yet" + doing(s.Head.Behind)
			continue
		}
		if !b.had(t, s.Head.Revision, s.Head.State) {
			ready = false
			l.Reason = "xDS server " + s.id + " has a revision that the database does not have: an older backup was restored"
			continue
		}
		if !s.Whole() { // what is missing may be a refusal
			ready = false
			l.Reason = "a part of what xDS server " + s.id + " reports is on its way"
			continue
		}
		for _, g := range t.Gateways {
			if live, known := s.Head.Live[g]; known && live < t.Revision {
				ready = false
				l.Reason = "an Envoy of gateway " + g + " has not confirmed everything yet"
			}
		}
		if w := b.waits(t, s); w != "" {
			waits = w
			if here > 0 { // without Envoys nobody is served what the name was before
				ready, l.Reason = false, w
			}
		}
		if r, refused := s.refuses(t); refused {
			return api.Live{State: "rejected", Reason: r, Proxies: l.Proxies}, true
		}
	}
	if p, any := b.missing(t.Gateways); any {
		ready = false
		l.Reason = "Envoy " + p.ID + " of gateway " + p.Gateway + " is not back yet since its xDS server went"
	}
	switch {
	case !ready:
		b.waited(&l, t, servers)
		return l, false
	case l.Proxies == 0:
		return api.Live{State: "no_proxies", Reason: join("no Envoy of the gateways concerned is connected", waits)}, true
	default:
		return api.Live{Live: true, State: "live", Reason: b.kept(t, servers), Proxies: l.Proxies}, true
	}
}

// refuses is the reason where one of the objects is refused.
func (s *server) refuses(t Target) (string, bool) {
	if s.Objects() == 0 {
		return "", false
	}
	var first status.Refused
	for o, since := range t.Objects {
		for _, r := range s.Refused(o.Kind, o.Name) {
			if r.Revision >= since && slices.Contains(t.Gateways, r.Gateway) &&
				(first.Gateway == "" || r.Resource < first.Resource) {
				first = r
			}
		}
	}
	return first.Reason, first.Gateway != ""
}

// Counts counts the connected Envoys by gateway.
func (b *Board) Counts() map[string]status.Count {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string]status.Count{}
	for _, s := range b.fresh() {
		for g, n := range maps.All(s.View.Counts()) {
			c := out[g]
			out[g] = status.Count{Proxies: c.Proxies + n.Proxies, OverLimit: c.OverLimit + n.OverLimit}
		}
	}
	return out
}
