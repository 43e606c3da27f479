package fleet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/xds/internal/laststate"
)

// latencies are what the agents of Envoys report of how soon places of services answer. Each agent keeps its figures
// steady by itself (package envoyadmin), and what they come to depends on the last reports alone: so every server has
// the same, without asking another one. Who is silent has the last word: an order stays until somebody has measured
// another one.
type latencies struct {
	// inForce is by service and by where the Envoys are. It is guarded by the fleet's build.
	inForce map[string]map[locality.Place]locality.Latencies
	// orders counts changes of the order of places.
	orders atomic.Int64
	// waiting is signalled when something is due.
	waiting chan struct{}

	mu sync.Mutex // guards what follows
	// reports are the last ones of agents that have measured, and due the places of whose Envoys another one has come,
	// by service.
	reports map[string]measured
	due     map[string]map[locality.Place]bool
}

// measured is what an agent has reported.
type measured struct {
	from   locality.Place
	at     time.Time
	steady map[string]locality.Latencies
}

// says whether a report says the same.
func (m measured) says(r *status.EnvoyReport) bool {
	all := r.Latencies[:min(len(r.Latencies), status.MaxLatencies)]
	for _, x := range all {
		if ms, known := m.steady[x.Service][x.Place()]; !known || ms != x.Steady {
			return false
		}
	}
	n := 0
	for _, places := range m.steady {
		n += len(places)
	}
	return n == len(all) && m.from == r.Place()
}

func newLatencies() *latencies {
	return &latencies{
		inForce: map[string]map[locality.Place]locality.Latencies{}, waiting: make(chan struct{}, 1),
		reports: map[string]measured{}, due: map[string]map[locality.Place]bool{},
	}
}

// of is what is in force of a service, for a builder.
func (l *latencies) of(service string) map[locality.Place]locality.Latencies {
	return l.inForce[service]
}

// forget drops what was measured of services that are gone.
func (l *latencies) forget(changes []config.Change) {
	for _, c := range changes {
		if c.Ref().Kind == resource.KindService && c.After == nil {
			delete(l.inForce, c.Ref().Name)
		}
	}
}

// together is for how long reports are gathered: those of many Envoys that notice the same come within seconds.
const together = 2 * time.Second

// Measured takes an agent's report. It costs as much as has been measured, and nothing is built before
// [Fleet.FollowLatencies] has seen that an order is another one.
func (f *Fleet) Measured(s status.AgentEnvoy, _ bool) {
	l := f.latencies
	l.mu.Lock()
	defer l.mu.Unlock()
	was, known := l.reports[s.ID]
	if s.EnvoyReport == nil || !known && len(s.EnvoyReport.Latencies) == 0 {
		return
	}
	now := time.Now()
	if known && now.Sub(was.at) < status.Stale && was.says(s.EnvoyReport) { // as nearly always
		was.at = now
		l.reports[s.ID] = was
		return
	}
	is := measured{s.EnvoyReport.Place(), now, s.EnvoyReport.Steady()}
	if l.reports[s.ID] = is; len(is.steady) == 0 {
		delete(l.reports, s.ID)
	}
	for _, r := range []measured{was, is} {
		for service := range r.steady {
			if l.due[service] == nil {
				l.due[service] = map[locality.Place]bool{}
			}
			l.due[service][r.from] = true
		}
	}
	raise(l.waiting)
}

// FollowLatencies has the Envoys use places in the order in which they answer, until the context ends.
func (f *Fleet) FollowLatencies(ctx context.Context) error {
	for {
		select {
		case <-f.latencies.waiting:
		case <-ctx.Done():
			return nil
		}
		select {
		case <-time.After(together):
		case <-ctx.Done():
			return nil
		}
		f.reorder()
	}
}

// reorder takes over what is due, and builds the endpoints of services whose places have another order by that.
func (f *Fleet) reorder() {
	f.build.Lock()
	defer f.build.Unlock()
	var moved []string
	for service, places := range f.latencies.take(time.Now()) {
		// A service that is not there yet, as while the event stream is read, has them when it is built.
		policy := f.ordered(service)
		for from, now := range places {
			was := f.latencies.inForce[service][from]
			if f.latencies.inForce[service] == nil {
				f.latencies.inForce[service] = map[locality.Place]locality.Latencies{}
			}
			f.latencies.inForce[service][from] = now
			order := translate.Nearness(policy, now)
			if policy == nil || maps.Equal(order, translate.Nearness(policy, was)) {
				continue
			}
			f.latencies.orders.Add(1)
			f.opt.Log.Info("places answer in another order", zap.String("service", service),
				zap.Stringer("from", from), zap.String("order", inWords(order, now)))
			if !slices.Contains(moved, service) {
				moved = append(moved, service)
			}
		}
	}
	if len(moved) == 0 {
		return
	}
	if f.opt.Reordered != nil {
		f.opt.Reordered()
	}
	for _, m := range f.members {
		m.gateway.Apply(f.commit.Revision, m.builder.Reordered(f.state, moved))
	}
	f.signal()
}

// ordered is what a service says of latencies; nil where there is no such service, or it says nothing.
func (f *Fleet) ordered(service string) *configv1.LocalityLatency {
	o := f.state.Get(resource.Ref{Kind: resource.KindService, Name: service})
	return resource.Spec[*configv1.Service](o).GetLocality().GetLatency()
}

// take is what is due: of each service and each place with Envoys what those have measured, without the places of which
// nobody there says anything now.
func (l *latencies) take(now time.Time) map[string]map[locality.Place]locality.Latencies {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]map[locality.Place]locality.Latencies{}
	for service, places := range l.due {
		for from := range places {
			var all []locality.Latencies
			for _, r := range l.reports {
				if r.from == from && now.Sub(r.at) < status.Stale && r.steady[service] != nil {
					all = append(all, r.steady[service])
				}
			}
			if len(all) == 0 {
				continue // what was in force stays
			}
			if out[service] == nil {
				out[service] = map[locality.Place]locality.Latencies{}
			}
			out[service][from] = locality.Median(all)
		}
	}
	clear(l.due)
	maps.DeleteFunc(l.reports, func(_ string, r measured) bool { return now.Sub(r.at) > time.Hour })
	return out
}

// inWords is an order for people: the places of one nearness together.
func inWords(order map[locality.Place]int, ms locality.Latencies) string {
	places := slices.SortedFunc(maps.Keys(order), func(a, b locality.Place) int {
		if order[a] != order[b] {
			return order[a] - order[b]
		}
		return a.Compare(b)
	})
	var out strings.Builder
	for i, p := range places {
		switch {
		case i == 0:
		case order[p] == order[places[i-1]]:
			out.WriteString(", ")
		default:
			out.WriteString("; then ")
		}
		fmt.Fprintf(&out, "%s (%.2f ms)", p, ms[p])
	}
	return out.String()
}

// Orders counts how often an order of places has changed.
func (f *Fleet) Orders() int64 { return f.latencies.orders.Load() }

// Latencies are those in force, to be kept on disk. It is for [Options.Reordered].
func (f *Fleet) Latencies() (out []laststate.Latency) {
	for service, places := range f.latencies.inForce {
		if f.ordered(service) == nil {
			continue
		}
		for from, all := range places {
			for to, ms := range all {
				out = append(out, laststate.Latency{Service: service, From: from, To: to, Milliseconds: ms})
			}
		}
	}
	return out
}

// RestoreLatencies takes those that an earlier process has kept, before anything is served.
func (f *Fleet) RestoreLatencies(all []laststate.Latency) {
	f.build.Lock()
	defer f.build.Unlock()
	in := f.latencies.inForce
	for _, l := range all {
		if in[l.Service] == nil {
			in[l.Service] = map[locality.Place]locality.Latencies{}
		}
		if in[l.Service][l.From] == nil {
			in[l.Service][l.From] = locality.Latencies{}
		}
		in[l.Service][l.From][l.To] = l.Milliseconds
	}
}
