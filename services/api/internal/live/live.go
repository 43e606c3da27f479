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
	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// Target is what to wait for.
type Target struct {
	Epoch    string
	Revision int64
	// Gateways concerned.
	Gateways []string
	// Limits are the rate limit policies concerned.
	Limits []Limit
	// Objects that are to be live, and their revisions: if one of them is refused, that is the answer.
	Objects map[resource.Ref]int64
	// Names are the DNS names that have to have an address, each with a service that has it.
	Names map[string]string
}

type server struct {
	status.XdsStatus
	seen, unsaved time.Time
	clock         clock
}

// Board is safe for concurrent use.
type Board struct {
	now func() time.Time
	// Keep is how long an Envoy is remembered that is gone; an hour unless it is set before the first report.
	Keep time.Duration

	mu      sync.Mutex
	servers map[string]server
	agents  map[string]agent
	absent  []absent                                // the last one first
	names   map[string]map[string]status.NameStatus // by server and name
	changed chan struct{}                           // closed, and replaced, at each report
}

// NewBoard returns an empty board; now is time.Now outside tests.
func NewBoard(now func() time.Time) *Board {
	return &Board{
		now: now, Keep: Remember, servers: map[string]server{}, agents: map[string]agent{},
		names: map[string]map[string]status.NameStatus{}, changed: make(chan struct{}),
	}
}

// Report takes a server's report. Fresh says that it comes as it is sent.
func (b *Board) Report(s status.XdsStatus, fresh bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	was, known := b.servers[s.ID]
	if !known {
		b.recall(s)
	}
	if s.Stopping || s.StartedAt != was.StartedAt {
		b.lost(was)
		was = server{clock: was.clock}
	}
	if s.Stopping {
		delete(b.servers, s.ID)
	} else {
		for _, p := range status.Gone(was.Proxies, s.Proxies) {
			b.miss(absent{ProxyStatus: p, xds: s.ID, seen: was.seen})
		}
		is := server{XdsStatus: s, seen: now, unsaved: begun(s.Unsaved, was.Unsaved, was.unsaved, now), clock: was.clock}
		if fresh {
			is.clock = is.clock.heard(s.At, now)
		}
		b.servers[s.ID] = is
		b.found(s.Proxies, was.Proxies)
	}
	b.tell()
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
func (b *Board) fresh() []server {
	now := b.now()
	maps.DeleteFunc(b.servers, func(_ string, s server) bool {
		silent := now.Sub(s.seen) > status.Stale
		if silent {
			b.lost(s)
		}
		return silent
	})
	return slices.SortedFunc(maps.Values(b.servers), func(x, y server) int {
		if x.ID < y.ID {
			return -1
		}
		return 1
	})
}

// Wait answers when every connected Envoy of the gateways serves the revision and every connected node that
// the policies select enforces them, when one of them refuses, when none is connected, or when the context
// ends.
func (b *Board) Wait(ctx context.Context, t Target) api.Live {
	start := b.now()
	recheck := time.NewTicker(time.Second)
	defer recheck.Stop()
	for {
		b.mu.Lock()
		l, done := b.judge(t)
		changed := b.changed
		b.mu.Unlock()
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
		for _, p := range s.Proxies {
			if slices.Contains(t.Gateways, p.Gateway) {
				here++
			}
		}
		l.Proxies += here
		if s.Epoch != t.Epoch || s.Revision < t.Revision {
			ready = false
			l.Reason = "xDS server " + s.ID + " has not read the revision yet"
			continue
		}
		for _, g := range t.Gateways {
			if live, known := s.Live[g]; known && live < t.Revision {
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
		for _, r := range s.Rejected {
			for _, o := range r.Objects {
				if since, ours := t.Objects[resource.Ref{Kind: o.Kind, Name: o.Name}]; ours && o.Revision >= since && slices.Contains(t.Gateways, r.Gateway) {
					return api.Live{State: "rejected", Reason: r.Reason, Proxies: l.Proxies}, true
				}
			}
		}
	}
	if p, any := b.missing(t.Gateways); any {
		ready = false
		l.Reason = "Envoy " + p.ID + " of gateway " + p.Gateway + " is not back yet since its xDS server went"
	}
	switch {
	case !ready:
		return l, false
	case l.Proxies == 0:
		return api.Live{State: "no_proxies", Reason: join("no Envoy of the gateways concerned is connected", waits)}, true
	default:
		return api.Live{Live: true, State: "live", Reason: b.kept(t, servers), Proxies: l.Proxies}, true
	}
}

// DrainTimes are the shortest and the longest drain time of a gateway's connected Envoys; 0 without any.
func (b *Board) DrainTimes(gateway string) (shortest, longest time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.fresh() {
		for _, p := range s.Proxies {
			if p.Gateway != gateway {
				continue
			}
			d := time.Duration(p.DrainTimeSeconds) * time.Second
			if d == 0 {
				d = bootstrap.DefaultDrainTime // it does not say, and Envoy's own is that
			}
			if shortest == 0 || d < shortest {
				shortest = d
			}
			longest = max(longest, d)
		}
	}
	return shortest, longest
}

// Summary is the system's state as GET /v1/status shows it, without the database's part.
func (b *Board) Summary() (servers []api.XdsServer, proxies []api.Proxy, rejected []api.Rejection) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.fresh() {
		servers = append(servers, api.XdsServer{ID: s.ID, Revision: s.Revision, Proxies: int32(len(s.Proxies)), At: s.At})
		for _, r := range s.Rejected {
			x := api.Rejection{Gateway: r.Gateway, Resource: r.Resource, Reason: r.Reason}
			if len(r.Objects) > 0 {
				x.Kind, x.Name, x.Revision = r.Objects[0].Kind, r.Objects[0].Name, r.Objects[0].Revision
			}
			rejected = append(rejected, x)
		}
		for _, p := range s.Proxies {
			out := api.Proxy{
				ID: p.ID, Gateway: p.Gateway, Xds: s.ID, Connected: true, Address: p.Address,
				AppliedRevision: p.AppliedRevision, Version: p.Version, ConnectedAt: p.ConnectedAt, Surplus: p.Surplus,
				DrainTimeSeconds: p.DrainTimeSeconds,
			}
			for _, r := range rejected {
				if r.Gateway == p.Gateway {
					out.Rejected = append(out.Rejected, r)
				}
			}
			proxies = append(proxies, out)
		}
	}
	return servers, proxies, rejected
}
