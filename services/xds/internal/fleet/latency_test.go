package fleet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/racetest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/xds/internal/fleet"
	"github.com/marchproxy/marchproxy/services/xds/internal/laststate"
)

// measuring is a fleet with the service web in two clouds, whose places are ordered by latency.
type measuring struct {
	*fleet.Fleet
	t     *testing.T
	saved []laststate.Latency
	saves int
}

func newMeasuring(t *testing.T, before ...laststate.Latency) *measuring {
	t.Helper()
	m := &measuring{t: t}
	m.Fleet = fleet.New(fleet.Options{ID: "x", Log: zap.NewNop(), Reordered: func() {
		m.saved = m.Latencies()
		m.saves++
	}})
	m.RestoreLatencies(before)
	s := &configv1.Service{Locality: &configv1.LocalityPolicy{Latency: &configv1.LocalityLatency{}}}
	for i, c := range []string{"aws", "gcp"} {
		s.Endpoints = append(s.Endpoints, &configv1.Endpoint{Host: fmt.Sprint("192.0.2.", i+1), Port: 80, Cloud: c})
	}
	var all []*resource.Object
	for _, o := range []struct {
		ref  resource.Ref
		spec proto.Message
	}{
		{resource.Ref{Kind: resource.KindGateway, Name: "default"}, &configv1.Gateway{
			Listeners: []*configv1.Listener{{Name: "http", Port: 10000}},
		}},
		{resource.Ref{Kind: resource.KindService, Name: "web"}, s},
		{resource.Ref{Kind: resource.KindRoute, Name: "web"}, &configv1.Route{
			Backends: []*configv1.Backend{{Service: "web"}},
		}},
	} {
		made, err := resource.New(o.ref, o.spec)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, made)
	}
	m.Apply(resource.Update{Commit: resource.Commit{Epoch: "e", Revision: 1}, Changed: all})
	return m
}

// served are the endpoints of web as they are served.
func (m *measuring) served() *translate.Resource {
	m.t.Helper()
	g, _ := m.Gateway("default")
	all := g.Resources()
	return all[slices.IndexFunc(all, func(r *translate.Resource) bool {
		return r.Type == translate.TypeEndpoint && r.Name == "web"
	})]
}

// order is that of the clouds for an Envoy in one.
func (m *measuring) order(from string) string {
	m.t.Helper()
	var cla endpointv3.ClusterLoadAssignment
	if err := m.served().At(locality.Place{Cloud: from}).Body.UnmarshalTo(&cla); err != nil {
		m.t.Fatal(err)
	}
	var out []string
	for _, l := range cla.GetEndpoints() {
		out = append(out, fmt.Sprint(l.GetLocality().GetRegion(), l.GetPriority()))
	}
	return strings.Join(out, " ")
}

// hear takes what an agent reports, of an Envoy in a cloud.
func (m *measuring) hear(agent, from string, aws, gcp float64) {
	r := &status.EnvoyReport{Cloud: from}
	for c, ms := range map[string]float64{"aws": aws, "gcp": gcp} {
		if ms > 0 {
			r.Latencies = append(r.Latencies, status.PlaceLatency{Service: "web", Cloud: c, Milliseconds: ms, Steady: ms})
		}
	}
	m.Measured(status.AgentEnvoy{ID: agent, EnvoyReport: r}, true)
}

// TestMeasured: what the Envoys at a place have measured is the order of places there, and nowhere else; what
// changes no order builds nothing and writes nothing; who is silent leaves the order as it is; and a process that
// begins anew has it.
func TestMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeasuring(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.FollowLatencies(ctx) }()
		settle := func() {
			time.Sleep(5 * time.Second)
			synctest.Wait()
		}
		is := func(what, from, want string, orders int64) {
			t.Helper()
			settle()
			if got := m.order(from); got != want || m.Orders() != orders || int64(m.saves) != orders {
				t.Errorf("%s: %s by %d orders, written %d times; want %s by %d", what, got, m.Orders(), m.saves, want, orders)
			}
		}
		is("nothing is measured", "aws", "aws0 gcp0", 0)
		m.hear("a", "aws", 40, 2)
		is("measured", "aws", "gcp0 aws1", 1)
		is("elsewhere", "gcp", "aws0 gcp0", 1)
		before := m.served()
		m.hear("a", "aws", 50, 3)
		is("the same order", "aws", "gcp0 aws1", 1)
		if m.served() != before {
			t.Error("what changes no order is built")
		}
		m.hear("b", "aws", 1, 30)
		m.hear("c", "aws", 41, 2)
		is("one of three says otherwise", "aws", "gcp0 aws1", 1)
		time.Sleep(time.Hour)
		is("all are silent", "aws", "gcp0 aws1", 1)
		m.hear("b", "aws", 1, 30)
		is("one is back, and says otherwise", "aws", "aws0 gcp1", 2)
		m.hear("b", "aws", 0, 0)
		is("it measures no more", "aws", "aws0 gcp1", 2)

		again := newMeasuring(t, m.saved...)
		if got, want := again.served().At(locality.Place{Cloud: "aws"}).Version,
			m.served().At(locality.Place{Cloud: "aws"}).Version; got != want {
			t.Errorf("a process that begins anew serves %s, another version", again.order("aws"))
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestCostOfMeasurements: 1,000 agents in twelve clouds, each with as many latencies as there may be, are an order for
// each cloud; a report that says what it has said before, as nearly always, makes nothing.
func TestCostOfMeasurements(t *testing.T) {
	const agents, clouds, services = 1000, 12, 100
	m := newMeasuring(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.FollowLatencies(ctx) }()
	var reports [][]byte
	for i := range agents {
		r := &status.EnvoyReport{Cloud: fmt.Sprint("cloud-", i%clouds)}
		for s := range services {
			name := "web"
			if s > 0 {
				name = fmt.Sprint("other-", s)
			}
			for p, c := range []string{"aws", "gcp", "own"} {
				ms := float64(10*((i+p)%3) + 1)
				r.Latencies = append(r.Latencies, status.PlaceLatency{Service: name, Cloud: c, Milliseconds: ms, Steady: ms})
			}
		}
		raw, err := json.Marshal(status.AgentEnvoy{ID: fmt.Sprint("agent-", i), EnvoyReport: r})
		if err != nil {
			t.Fatal(err)
		}
		reports = append(reports, raw)
	}
	all := func(take func(status.AgentEnvoy, bool)) time.Duration {
		began := time.Now()
		for _, raw := range reports {
			var s status.AgentEnvoy
			if err := json.Unmarshal(raw, &s); err != nil {
				t.Fatal(err)
			}
			take(s, true)
		}
		return time.Since(began) / agents
	}
	first := all(m.Measured)
	for deadline := time.Now().Add(racetest.Deadline(time.Minute)); m.Orders() < clouds; {
		if time.Now().After(deadline) {
			t.Fatalf("%d orders after a minute, want one for each of %d clouds", m.Orders(), clouds)
		}
		time.Sleep(10 * time.Millisecond)
	}
	all(m.Measured)
	var again status.AgentEnvoy
	if err := json.Unmarshal(reports[0], &again); err != nil {
		t.Fatal(err)
	}
	const runs = 100
	began := time.Now()
	n := testing.AllocsPerRun(runs-1, func() { m.Measured(again, true) })
	t.Logf("a report of %d latencies, %d bytes: %v with reading it at first, %v again without", 3*services,
		len(reports[0]), first, time.Since(began)/runs)
	if n > 0 {
		t.Errorf("a report that says nothing new allocates %v times", n)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if m.Orders() != clouds {
		t.Errorf("%d orders, want %d", m.Orders(), clouds)
	}
}
