package live

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

const (
	// maxLagging is how many an answer names.
	maxLagging = 20
	// maxRejected is how many refusals the status lists, and maxRejectedEach how many an Envoy's description.
	maxRejected     = 100
	maxRejectedEach = 10
)

// listed is a connected Envoy in the order of the list.
type listed struct {
	status.ProxyStatus
	xds string
}

func order(a, b api.Proxy) int {
	return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Xds, b.Xds))
}

// connected lists the Envoys that are connected; it is not changed any more.
func (b *Board) connected() []listed {
	servers := b.fresh()
	if b.list == nil {
		b.list = []listed{}
		for _, s := range servers {
			for p := range s.Proxies {
				b.list = append(b.list, listed{p, s.id})
			}
		}
		slices.SortFunc(b.list, func(x, y listed) int {
			return cmp.Or(cmp.Compare(x.ID, y.ID), cmp.Compare(x.Address, y.Address), cmp.Compare(x.xds, y.xds))
		})
	}
	return b.list
}

// Filter picks Envoys; empty fields let all through.
type Filter struct {
	Gateway string
	// State is connected, absent, lagging or surplus.
	State string
	// After is where to go on, the cursor of the page before; Limit is how many there may be, all of them where 0.
	After string
	Limit int
}

// Proxies lists Envoys in the order of their ids, those that are gone among them. The cursor is "" where there are no
// more, and total counts all that are let through.
func (b *Board) Proxies(f Filter) (items []api.Proxy, cursor string, total int) {
	b.mu.Lock()
	list := b.connected()
	heads, rejected := map[string]*status.View{}, map[string][]api.Rejection{}
	for _, s := range b.fresh() {
		heads[s.id] = &status.View{Head: s.Head}
		for _, r := range s.Rejected() {
			if len(rejected[r.Gateway]) < maxRejectedEach {
				rejected[r.Gateway] = append(rejected[r.Gateway], rejection(r))
			}
		}
	}
	b.age()
	gone := slices.Clone(b.absent)
	b.mu.Unlock()

	absents := make([]api.Proxy, 0, len(gone))
	for _, a := range gone {
		absents = append(absents, a.proxy())
	}
	slices.SortStableFunc(absents, order)
	items = []api.Proxy{}
	take := func(x api.Proxy) {
		switch {
		case (f.Gateway != "" && x.Gateway != f.Gateway) || !inState(x, f.State):
			return
		case f.After != "" && key(x) <= f.After:
		case f.Limit > 0 && len(items) == f.Limit:
			cursor = key(items[f.Limit-1])
		default:
			if x.Connected {
				x.Rejected = rejected[x.Gateway]
			}
			items = append(items, x)
		}
		total++
	}
	for _, p := range list {
		x := api.Proxy{
			ID: p.ID, Gateway: p.Gateway, Xds: p.xds, Connected: true, Address: p.Address, Version: p.Version,
			ConnectedAt: p.ConnectedAt,
			Surplus:     p.OverLimit, DrainTimeSeconds: p.DrainTimeSeconds,
		}
		if v := heads[p.xds]; v != nil {
			x.AppliedRevision = v.Applied(p.ProxyStatus)
			if l, lags := v.Lags(p.ProxyStatus); lags {
				x.LaggingSince, x.Lacks = l.Since, l.Resource
			}
		}
		for len(absents) > 0 && order(absents[0], x) < 0 {
			take(absents[0])
			absents = absents[1:]
		}
		take(x)
	}
	for _, x := range absents {
		take(x)
	}
	return items, cursor, total
}

// key is where an Envoy is in the list.
func key(x api.Proxy) string {
	return x.ID + "\x00" + x.Address + "\x00" + x.Xds
}

func inState(x api.Proxy, state string) bool {
	switch state {
	case "connected":
		return x.Connected
	case "absent":
		return !x.Connected
	case "lagging":
		return x.LaggingSince != ""
	case "surplus":
		return x.Connected && x.Surplus
	}
	return true
}

// DrainTimes are the shortest and the longest drain time of a gateway's connected Envoys; 0 without any.
func (b *Board) DrainTimes(gateway string) (shortest, longest time.Duration) {
	b.mu.Lock()
	list := b.connected()
	b.mu.Unlock()
	for _, p := range list {
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
	return shortest, longest
}

func rejection(r status.RejectedResource) api.Rejection {
	x := api.Rejection{Gateway: r.Gateway, Resource: r.Resource, Reason: r.Reason}
	if len(r.Objects) > 0 {
		x.Kind, x.Name, x.Revision = r.Objects[0].Kind, r.Objects[0].Name, r.Objects[0].Revision
	}
	return x
}

// Summary is the Envoys' state as GET /v1/status shows it. What it costs does not grow with their number.
type Summary struct {
	Servers []api.XdsServer
	// Proxies counts the connected Envoys, and Live is the revision that all of them serve; 0 without any.
	Proxies int32
	Live    int64
	// Rejected is a part of the refusals, RejectedObjects their number.
	Rejected        []api.Rejection
	RejectedObjects int32
	// Lagging are Envoys that have lacked something for more than [status.Long], the longest first, LaggingProxies their
	// number.
	Lagging        []api.LaggingProxy
	LaggingProxies int32
	// Progress is what the servers do that are behind.
	Progress []api.Progress
}

// Summary sums the reports up.
func (b *Board) Summary() (out Summary) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	any := false
	for _, s := range b.fresh() {
		x := api.XdsServer{ID: s.id, Revision: s.Head.Revision, At: s.Head.At, LaggingProxies: s.Head.LaggingProxies}
		for g, live := range s.Head.Live {
			n := s.Connected(g)
			if n == 0 {
				continue
			}
			if x.Proxies == 0 || live < x.LiveRevision {
				x.LiveRevision = live
			}
			x.Proxies += n
			if !any || live < out.Live {
				any, out.Live = true, live
			}
		}
		out.Servers = append(out.Servers, x)
		out.Proxies += x.Proxies
		out.LaggingProxies += x.LaggingProxies
		rejected := s.Rejected()
		out.RejectedObjects += int32(len(rejected))
		for _, r := range rejected[:min(len(rejected), maxRejected-len(out.Rejected))] {
			out.Rejected = append(out.Rejected, rejection(r))
		}
		for _, l := range s.Head.Lagging {
			if since, err := time.Parse(time.RFC3339, l.Since); err == nil && now.Sub(since) > status.Long {
				out.Lagging = append(out.Lagging, lagging(l, s.id))
			}
		}
		if p := s.Head.Behind; p != nil {
			out.Progress = append(out.Progress, api.Progress{
				Who: "xds " + s.id, What: p.What, Done: p.Done, Total: p.Total,
				Since: p.Since,
			})
		}
	}
	longest(&out.Lagging)
	return out
}

func lagging(l status.LaggingEnvoy, xds string) api.LaggingProxy {
	return api.LaggingProxy{
		ID: l.ID, Gateway: l.Gateway, Xds: xds, Address: l.Address, AppliedRevision: l.AppliedRevision, Since: l.Since,
		Resource: l.Resource, Sent: l.Sent,
	}
}

// longest puts those first that have lagged longest, and keeps some.
func longest(list *[]api.LaggingProxy) {
	slices.SortStableFunc(*list, func(x, y api.LaggingProxy) int { return cmp.Compare(x.Since, y.Since) })
	*list = (*list)[:min(len(*list), maxLagging)]
}

// waited names the Envoys that are waited for.
func (b *Board) waited(l *api.Live, t Target, servers []*server) {
	for _, s := range servers {
		for _, x := range s.Head.Lagging {
			if s.Head.Epoch == t.Epoch && x.AppliedRevision < t.Revision && slices.Contains(t.Gateways, x.Gateway) {
				l.WaitingFor = append(l.WaitingFor, lagging(x, s.id))
			}
		}
	}
	longest(&l.WaitingFor)
	if len(l.WaitingFor) == 0 || !strings.HasPrefix(l.Reason, "an Envoy of gateway ") {
		return
	}
	x := l.WaitingFor[0]
	l.Reason = fmt.Sprintf("Envoy %s (%s) of gateway %s serves revision %d", x.ID, cmp.Or(x.Address, "-"), x.Gateway,
		x.AppliedRevision)
	switch {
	case x.Resource != "" && x.Sent:
		l.Reason += fmt.Sprintf(": it has not answered %s, and is waited for since %s", x.Resource, x.Since)
	case x.Resource != "":
		l.Reason += fmt.Sprintf(": it is to get %s, which waits for what that relies on, since %s", x.Resource, x.Since)
	default:
		l.Reason += ", since " + x.Since
	}
	if n := len(l.WaitingFor) - 1; n > 0 {
		l.Reason += fmt.Sprintf(" (and %d more)", n)
	}
}

// doing is what a server is busy with, as the end of a sentence.
func doing(p *status.Behind) string {
	switch {
	case p == nil:
		return ""
	case p.Total == 0:
		return ": " + p.What
	}
	return fmt.Sprintf(": %s, %d of %d", p.What, p.Done, p.Total)
}

// proxy is an Envoy that is gone as the list shows it.
func (a absent) proxy() api.Proxy {
	return api.Proxy{
		ID: a.ID, Gateway: a.Gateway, Xds: a.xds, Address: a.Address, AppliedRevision: a.AppliedRevision, Version: a.Version,
		ConnectedAt: a.ConnectedAt, Surplus: a.OverLimit, LastSeenAt: resource.Time(a.seen),
	}
}
