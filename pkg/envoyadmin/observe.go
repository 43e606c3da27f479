package envoyadmin

import (
	"context"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

const (
	// kept is how many intervals a report has.
	kept = 3
	// together is how many services are asked about at once, and atMost how long that may go on in one look: Envoy
	// answers in the thread that applies its configuration.
	together = 100
	atMost   = time.Second
)

// figures are the statistics that a look reads: what the listeners count, and the failures of those services that have
// had any. Of the others Envoy says nothing (usedonly), so that a look is as long as what has happened. The admin
// interface counts its own requests as http.admin.
const figures = `^(server\.uptime|http\.[^.]+\.downstream_rq_(total|[1-5]xx|time)|cluster\.[a-z0-9-]+\.` +
	`(health_check\.failure|outlier_detection\.ejections_(active|enforced_total)))$`

// Observer looks at an Envoy every ten seconds, and says what it sees. The zero value but for Admin is ready.
type Observer struct {
	Admin Admin
	// Probes is the socket by which latencies are measured ([bootstrap.ProbeSocket]); none are where "".
	Probes string
	// Place is where the Envoy is.
	Place locality.Place

	mu     sync.Mutex
	report *status.EnvoyReport
	meter  *meter // nil before Run, and without Probes

	// By Run alone.
	began  time.Time
	number int64
	last   sample
	// failed is what each service's failures were when it was asked about last, and bad its endpoints that fail.
	failed map[string]int64
	bad    map[string][]status.UnhealthyEndpoint
}

// sample is what an Envoy has counted since it was started.
type sample struct {
	at       time.Time
	uptime   int64
	requests int64
	answers  [5]int64
	times    []int64
}

// Report is what was seen last, and nil before the Envoy has answered. Nobody changes it any more.
func (o *Observer) Report() *status.EnvoyReport {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.report == nil || o.meter == nil {
		return o.report
	}
	r := *o.report
	r.Latencies = o.meter.latencies()
	return &r
}

// Requests is how many requests a second the Envoy has had in the last interval, 0 where that is not known.
func (o *Observer) Requests() float64 {
	r := o.Report()
	if r == nil || len(r.Intervals) == 0 {
		return 0
	}
	if last := r.Intervals[len(r.Intervals)-1]; last.Seconds > 0 {
		return float64(last.Requests) / last.Seconds
	}
	return 0
}

// Run looks until the context ends, when the clock has whole tens of seconds: so the intervals of all Envoys are the same
// ones. An Envoy that does not answer is asked again at the next turn: until then the report is what it was, and its time
// says so.
func (o *Observer) Run(ctx context.Context) error {
	o.began, o.failed, o.bad = time.Now(), map[string]int64{}, map[string][]status.UnhealthyEndpoint{}
	if o.Probes != "" {
		m := newMeter(o.Admin, o.Probes)
		o.mu.Lock()
		o.meter = m
		o.mu.Unlock()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			m.run(ctx)
		}()
		defer func() { <-ended }()
	}
	for {
		o.look(ctx)
		select {
		case <-time.After(time.Until(time.Now().Truncate(status.TrafficInterval).Add(status.TrafficInterval))):
		case <-ctx.Done():
			return nil
		}
	}
}

func (o *Observer) look(ctx context.Context) {
	now, failures, err := o.read(ctx)
	if err != nil {
		return
	}
	next := &status.EnvoyReport{
		At: resource.Time(now.at), Since: resource.Time(o.began),
		Cloud: o.Place.Cloud, Region: o.Place.Region, Zone: o.Place.Zone,
	}
	if was := o.Report(); was != nil {
		next.Intervals = append(next.Intervals, was.Intervals[max(0, len(was.Intervals)-kept+1):]...)
	}
	if !o.last.at.IsZero() {
		o.number++
		next.Intervals = append(next.Intervals, o.last.until(now, o.number))
	}
	o.last = now
	o.ask(ctx, failures)
	for _, service := range slices.Sorted(maps.Keys(o.bad)) {
		room := status.MaxUnhealthy - len(next.Unhealthy)
		here := o.bad[service]
		next.Unhealthy = append(next.Unhealthy, here[:min(room, len(here))]...)
		next.UnhealthyMore += int32(max(0, len(here)-room))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.report = next
}

// until is what was counted from one sample to another. An Envoy that was started again counts from 0.
func (s sample) until(now sample, number int64) status.Traffic {
	seconds := now.at.Sub(s.at).Seconds()
	if now.uptime < s.uptime {
		s = sample{}
	}
	t := status.Traffic{
		Number: number, Seconds: seconds, Requests: max(0, now.requests-s.requests), Answers: make([]int64, len(s.answers)),
	}
	for i := range s.answers {
		t.Answers[i] = max(0, now.answers[i]-s.answers[i])
	}
	times, some := slices.Clone(now.times), false
	for i := range times {
		if i < len(s.times) {
			times[i] = max(0, times[i]-s.times[i])
		}
		some = some || times[i] > 0
	}
	if some {
		t.Times = times
	}
	return t
}

// read is what the Envoy has counted, and the failures of its services.
func (o *Observer) read(ctx context.Context) (sample, map[string]int64, error) {
	s := sample{at: time.Now(), times: make([]int64, len(status.TimeBounds)+1)}
	families, err := o.Admin.Metrics(ctx, figures)
	if err != nil {
		return s, nil, err
	}
	each := func(family string, add func(m *dto.Metric, n int64)) {
		for _, m := range families[family].GetMetric() {
			if !admin(m) {
				add(m, value(m))
			}
		}
	}
	each("envoy_server_uptime", func(_ *dto.Metric, n int64) { s.uptime = n })
	each("envoy_http_downstream_rq_total", func(_ *dto.Metric, n int64) { s.requests += n })
	each("envoy_http_downstream_rq_xx", func(m *dto.Metric, n int64) {
		if class := label(m, "envoy_response_code_class"); len(class) == 1 && class[0] >= '1' && class[0] <= '5' {
			s.answers[class[0]-'1'] += n
		}
	})
	each("envoy_http_downstream_rq_time", func(m *dto.Metric, _ int64) {
		below := uint64(0)
		for _, b := range m.GetHistogram().GetBucket() { // in order, each with those before it
			s.times[sort.SearchFloat64s(status.TimeBounds, b.GetUpperBound())] += int64(b.GetCumulativeCount() - below)
			below = b.GetCumulativeCount()
		}
	})
	failures := map[string]int64{}
	for family, weight := range map[string]int64{
		"envoy_cluster_health_check_failure":                       1,
		"envoy_cluster_outlier_detection_ejections_enforced_total": 1,
		// It goes down again, and is not to be made up for by what goes up.
		"envoy_cluster_outlier_detection_ejections_active": 1 + 1<<32,
	} {
		each(family, func(m *dto.Metric, n int64) { failures[label(m, "envoy_cluster_name")] += weight * n })
	}
	return s, failures, nil
}

// ask looks at the endpoints of the services whose failures are others than when they were asked about last, and of
// those that had a failing one. What does not get its turn gets it at the next look.
func (o *Observer) ask(ctx context.Context, failures map[string]int64) {
	var due []string
	for service, n := range failures {
		if n != o.failed[service] || o.bad[service] != nil {
			due = append(due, service)
		}
	}
	// A service that is gone, as after a restart of Envoy, has nothing any more.
	maps.DeleteFunc(o.failed, func(s string, _ int64) bool { _, there := failures[s]; return !there })
	maps.DeleteFunc(o.bad, func(s string, _ []status.UnhealthyEndpoint) bool { _, there := failures[s]; return !there })
	// Those that have not been asked about for longest come first: what was asked about has its failures noted.
	slices.SortFunc(due, func(a, b string) int {
		if x, y := o.failed[a] != 0, o.failed[b] != 0; x != y {
			if y {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	for began := time.Now(); len(due) > 0 && time.Since(began) < atMost; {
		now := due[:min(together, len(due))]
		due = due[len(now):]
		bad, err := o.endpoints(ctx, now)
		if err != nil {
			return
		}
		for _, service := range now {
			o.failed[service] = failures[service]
			if delete(o.bad, service); len(bad[service]) > 0 {
				o.bad[service] = bad[service]
			}
		}
	}
}

// endpoints are those of some services that fail.
func (o *Observer) endpoints(ctx context.Context, services []string) (map[string][]status.UnhealthyEndpoint, error) {
	clusters, err := o.Admin.clusters(ctx, services)
	if err != nil {
		return nil, err
	}
	out := map[string][]status.UnhealthyEndpoint{}
	for _, c := range clusters {
		for _, h := range c.Hosts {
			var reason string
			switch x := h.Health; {
			case x.Failed && x.Pending:
				reason = "not_checked_yet"
			case x.Failed && x.Timeout:
				reason = "health_check_timeout"
			case x.Failed:
				reason = "health_check"
			case x.Ejected:
				reason = "ejected"
			default:
				continue
			}
			out[c.Name] = append(out[c.Name], status.UnhealthyEndpoint{
				Service: c.Name, Address: h.address(), Host: h.Hostname, Reason: reason,
			})
		}
		slices.SortFunc(out[c.Name], func(x, y status.UnhealthyEndpoint) int { return strings.Compare(x.Address, y.Address) })
	}
	return out, nil
}
