package live

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

const (
	// intervals is how many are kept: ten minutes of them.
	intervals = 60
	// current is how old what an Envoy says may be: three looks of its agent, or the report that has not come yet.
	current = 3 * status.TrafficInterval
	// maxSilent, maxUnhealthy and maxEndpoints are how many an answer names.
	maxSilent    = 20
	maxUnhealthy = 100
	maxEndpoints = 20
)

// traffic is what the Envoys of a gateway did, by interval: it is as large for one Envoy as for thousands.
type traffic [intervals]counts

// counts are those of an interval, of which number says which one: intervals are counted from 1970.
type counts struct {
	number   int64
	reports  int32
	requests int64
	answers  [5]int64
	times    [25]int64
}

// drops are the packets that the kernels dropped in an interval, by reason.
type drops struct {
	number  int64
	packets map[string]int64
}

// told is which intervals of a reporter are counted.
type told struct {
	since  string
	number int64
}

func interval(at time.Time) int64 { return at.UnixNano() / int64(status.TrafficInterval) }

// looked is when the Envoy of a report answered, by the clock here: those of reporter and api may differ.
func (a agent) looked() time.Time {
	sent, err1 := time.Parse(time.RFC3339, a.At)
	at, err2 := time.Parse(time.RFC3339, a.EnvoyReport.At)
	if err1 != nil || err2 != nil {
		return time.Time{}
	}
	return a.seen.Add(-max(0, sent.Sub(at)))
}

// count adds what a fresh report has that is new. What is kept from before this api was there, or comes a second time,
// is not counted.
func (b *Board) count(is, was agent, fresh bool) told {
	done := was.told
	if !fresh {
		return done
	}
	b.countDrops(is, was)
	r := is.EnvoyReport
	if r == nil {
		return done
	}
	if r.Since != done.since {
		done = told{since: r.Since}
	}
	end := is.looked()
	if end.IsZero() {
		return done
	}
	for i := len(r.Intervals) - 1; i >= 0; i-- {
		t := r.Intervals[i]
		if t.Number > done.number { // reporters look at whole tens of seconds, and a moment later
			b.spread(is.EnvoyGateway, interval(end.Add(status.TrafficInterval/2))-1, t)
		}
		end = end.Add(-time.Duration(t.Seconds * float64(time.Second)))
	}
	if n := len(r.Intervals); n > 0 {
		done.number = max(done.number, r.Intervals[n-1].Number)
	}
	return done
}

// spread puts what an Envoy did that had not answered for some intervals into all of them, the last of which is given.
func (b *Board) spread(gateway string, last int64, t status.Traffic) {
	of := min(intervals, max(1, int64(t.Seconds/status.TrafficInterval.Seconds()+.5)))
	for i := range of {
		part := func(n int64) int64 { return n*(i+1)/of - n*i/of }
		x := status.Traffic{Requests: part(t.Requests), Answers: slices.Clone(t.Answers), Times: slices.Clone(t.Times)}
		for _, list := range [][]int64{x.Answers, x.Times} {
			for k := range list {
				list[k] = part(list[k])
			}
		}
		b.put(gateway, last-of+1+i, x)
	}
}

func (b *Board) put(gateway string, number int64, t status.Traffic) {
	if number <= interval(b.now())-intervals {
		return
	}
	if b.traffic[gateway] == nil {
		b.forget()
		b.traffic[gateway] = &traffic{}
	}
	s := &b.traffic[gateway][number%intervals]
	if s.number > number {
		return // a later one has its place
	}
	if s.number < number {
		*s = counts{number: number}
	}
	s.reports++
	s.requests += t.Requests
	add(s.answers[:], t.Answers)
	add(s.times[:], t.Times)
}

// forget takes out the gateways of which nothing has been heard for ten minutes.
func (b *Board) forget() {
	oldest := interval(b.now()) - intervals
	maps.DeleteFunc(b.traffic, func(_ string, t *traffic) bool {
		return !slices.ContainsFunc(t[:], func(s counts) bool { return s.number > oldest })
	})
}

func add(to, what []int64) {
	for i := range min(len(to), len(what)) {
		to[i] += what[i]
	}
}

// countDrops adds what a node's kernel has dropped since its report before. A program that was loaded anew counts from 0.
func (b *Board) countDrops(is, was agent) {
	if was.seen.IsZero() || is.seen.Sub(was.seen) > status.Stale {
		return // nobody knows when that was
	}
	number := interval(is.seen)
	s := &b.drops[number%intervals]
	if s.number != number {
		*s = drops{number: number, packets: map[string]int64{}}
	}
	for reason, n := range is.Dropped {
		if before := was.Dropped[reason]; n >= before {
			n -= before
		}
		if n > 0 {
			s.packets[reason] += n
		}
	}
}

// answers of an interval, as the API has them.
func answersOf(n [5]int64) api.AnswerClasses {
	return api.AnswerClasses{Informational: n[0], Success: n[1], Redirect: n[2], ClientError: n[3], ServerError: n[4]}
}

// latency is nil without a request. Within a step requests are taken for spread evenly.
func latency(times []int64) *api.LatencyQuantiles {
	var all int64
	for _, n := range times {
		all += n
	}
	if all == 0 {
		return nil
	}
	at := func(q float64) float64 {
		rest := q * float64(all)
		for i, n := range times {
			if rest > float64(n) {
				rest -= float64(n)
				continue
			}
			low, high := 0.0, status.TimeBounds[len(status.TimeBounds)-1]
			if i > 0 {
				low = status.TimeBounds[i-1]
			}
			if i < len(status.TimeBounds) {
				high = status.TimeBounds[i]
			}
			return low + (high-low)*rest/float64(max(n, 1))
		}
		return status.TimeBounds[len(status.TimeBounds)-1]
	}
	return &api.LatencyQuantiles{P50: at(.5), P95: at(.95), P99: at(.99)}
}

// Traffic sums up what the Envoys and the kernels have done.
func (b *Board) Traffic() api.MetricsSummary {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	out := api.MetricsSummary{
		At: resource.Time(now), IntervalSeconds: int32(status.TrafficInterval / time.Second),
		Gateways: []api.GatewayTraffic{}, Silent: []api.HealthReport{}, Dropped: b.dropped(now),
	}
	connected, reporting := map[string]int32{}, map[string]int32{}
	reports := b.reports()
	for _, r := range reports {
		if r.state == stateCurrent {
			reporting[r.gateway]++
		}
	}
	proxies := b.connected()
	for _, p := range proxies {
		connected[p.Gateway]++
	}
	for _, p := range unheard(proxies, reports) {
		if out.SilentProxies++; len(out.Silent) < maxSilent {
			out.Silent = append(out.Silent, silent(p.ProxyStatus, reports))
		}
	}
	oldest := interval(now) - intervals
	b.forget()
	names := map[string]bool{}
	for _, of := range []map[string]int32{connected, reporting} {
		for g := range of {
			names[g] = true
		}
	}
	for g := range b.traffic {
		names[g] = true
	}
	var all traffic
	for _, g := range slices.Sorted(maps.Keys(names)) {
		t := b.traffic[g]
		if t == nil {
			t = &traffic{}
		}
		x := t.sum(oldest)
		x.Gateway, x.Proxies, x.Reporting = g, connected[g], reporting[g]
		out.Gateways = append(out.Gateways, x)
		all.add(t, oldest)
		out.Total.Proxies += x.Proxies
		out.Total.Reporting += x.Reporting
	}
	whole := all.sum(oldest)
	whole.Proxies, whole.Reporting = out.Total.Proxies, out.Total.Reporting
	out.Total = whole
	out.Unhealthy, out.UnhealthyServices = unhealthy(reports)
	return out
}

func (t *traffic) add(o *traffic, oldest int64) {
	for i, s := range o {
		if s.number <= oldest {
			continue
		}
		x := &t[i]
		x.number = s.number
		x.reports += s.reports
		x.requests += s.requests
		add(x.answers[:], s.answers[:])
		add(x.times[:], s.times[:])
	}
}

func (t *traffic) sum(oldest int64) api.GatewayTraffic {
	out := api.GatewayTraffic{Intervals: []api.TrafficInterval{}}
	var whole counts
	list := slices.Clone(t[:])
	slices.SortFunc(list, func(x, y counts) int { return cmp.Compare(x.number, y.number) })
	for _, s := range list {
		if s.number <= oldest {
			continue
		}
		whole.requests += s.requests
		add(whole.answers[:], s.answers[:])
		add(whole.times[:], s.times[:])
		out.Intervals = append(out.Intervals, api.TrafficInterval{
			At: atInterval(s.number), Reports: s.reports, Requests: s.requests, Answers: answersOf(s.answers),
			Latency: latency(s.times[:]),
		})
	}
	out.Requests, out.Answers, out.Latency = whole.requests, answersOf(whole.answers), latency(whole.times[:])
	return out
}

func atInterval(number int64) string {
	return resource.Time(time.Unix(0, number*int64(status.TrafficInterval)))
}

func (b *Board) dropped(now time.Time) []api.DroppedPackets {
	by := map[string]*api.DroppedPackets{}
	list := slices.Clone(b.drops[:])
	slices.SortFunc(list, func(x, y drops) int { return cmp.Compare(x.number, y.number) })
	for _, s := range list {
		if s.number <= interval(now)-intervals {
			continue
		}
		for reason, n := range s.packets {
			if by[reason] == nil {
				by[reason] = &api.DroppedPackets{Reason: reason}
			}
			by[reason].Packets += n
			by[reason].Intervals = append(by[reason].Intervals, api.PacketsInterval{At: atInterval(s.number), Packets: n})
		}
	}
	out := []api.DroppedPackets{}
	for _, d := range by {
		out = append(out, *d)
	}
	slices.SortFunc(out, func(x, y api.DroppedPackets) int {
		return cmp.Or(cmp.Compare(y.Packets, x.Packets), cmp.Compare(x.Reason, y.Reason))
	})
	return out
}

// Failing says how many endpoints fail at some Envoy, and of how many connected Envoys there is no current report.
func (b *Board) Failing() (endpoints, silentProxies int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	failing, reports := map[[2]string]bool{}, b.reports()
	for _, r := range reports {
		if r.state != stateCurrent {
			continue
		}
		for _, e := range r.unhealthy {
			failing[[2]string{e.Service, e.Address}] = true
		}
	}
	return len(failing), len(unheard(b.connected(), reports))
}
