package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/api"

	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// memory is an api that keeps objects by owner, as apply does; refuse says why it refuses one, "" where it does not.
// The real one is asked in test/e2e.
type memory struct {
	mu      sync.Mutex
	objects map[string]api.Object // by kind and name
	refuse  func(o api.Object) string
	away    error
	applies int
	head    int64
}

// Revision implements Writer.
func (m *memory) Revision(context.Context) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.head, m.away
}

func (m *memory) Apply(_ context.Context, r api.ApplyRequest) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applies++
	if m.away != nil {
		return 0, m.away
	}
	m.head++
	next := maps.Clone(m.objects)
	if r.Prune {
		maps.DeleteFunc(next, func(_ string, o api.Object) bool { return o.Owner == r.Owner })
	}
	for _, o := range r.Resources {
		if why := m.refuse(o); why != "" {
			return 0, &Refused{Status: 422, Message: why}
		}
		o.Owner, o.Revision = r.Owner, m.head
		next[o.Kind+"/"+o.Name] = o
	}
	m.objects = next
	return m.head, nil
}

// rollback has somebody else make objects what they were.
func (m *memory) rollback(to map[string]api.Object) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.head++
	next := map[string]api.Object{}
	for name, o := range m.objects {
		if o.Kind == "EndpointSet" && to["Service/"+strings.TrimSuffix(o.Name, "-here")].Name != "" {
			next[name] = o // what was found stays, where what it adds to does
		}
	}
	for name, o := range to {
		if o.Kind != "EndpointSet" {
			o.Revision = m.head
			next[name] = o
		}
	}
	m.objects = next
}

func (m *memory) Labelled(_ context.Context, kind, name, value string) (out []api.Object, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range m.objects {
		if o.Kind == kind && o.Labels[name] == value {
			out = append(out, o)
		}
	}
	return out, m.away
}

// says is what there is, in order.
func (m *memory) says() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m.objects)) {
		o := m.objects[k]
		what := k
		if o.Kind == "EndpointSet" {
			var spec struct{ Endpoints []source.Endpoint }
			_ = json.Unmarshal(o.Spec, &spec) // an empty one is shown then
			for _, e := range spec.Endpoints {
				what += " " + e.Host + map[source.State]string{source.Draining: "-"}[e.State]
			}
		}
		out = append(out, what)
	}
	return strings.Join(out, ", ")
}

func (m *memory) until(t *testing.T, want string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for m.says() != want {
		if time.Now().After(deadline) {
			t.Fatalf("there is\n%s\nwant\n%s", m.says(), want)
		}
		time.Sleep(time.Millisecond) // until it is so
	}
}

func workload(key string, more map[string]string, hosts ...string) source.Workload {
	w := source.Workload{Key: key, Name: strings.ReplaceAll(key, "/", "-"), Labels: map[string]string{
		"marchproxy.enable": "true", "marchproxy.routes.0.hosts": strings.ReplaceAll(key, "/", "-") + ".test",
	}}
	maps.Copy(w.Labels, more)
	for _, h := range hosts {
		e := source.Endpoint{Port: 80, State: source.Ready}
		var drains bool
		if e.Host, drains = strings.CutPrefix(h, "-"); drains {
			e.State = source.Draining
		}
		w.Endpoints = append(w.Endpoints, e)
	}
	return w
}

func start(t *testing.T, m *memory, site, owner string) *Reconciler {
	t.Helper()
	if m.refuse == nil {
		m.refuse = func(api.Object) string { return "" }
	}
	if m.objects == nil {
		m.objects = map[string]api.Object{}
	}
	r := New(m, Options{
		Naming: Naming{Site: site, Owner: owner}, Remove: 50 * time.Millisecond,
		Again: 50 * time.Millisecond, Look: 20 * time.Millisecond, Parallel: 4, Log: zap.NewNop(),
	})
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// TestReconcile: what is found is written, changed, and goes when it has been gone for a while; its endpoints go at
// once.
func TestReconcile(t *testing.T) {
	m := &memory{}
	r := start(t, m, "here", "discover/here")
	r.Found("docker", []source.Workload{workload("shop/web", nil, "10.0.0.1", "10.0.0.2"), workload("shop/api", nil)})
	m.until(t, "EndpointSet/shop-api-here, EndpointSet/shop-web-here 10.0.0.1 10.0.0.2, Route/shop-api-0, "+
		"Route/shop-web-0, Service/shop-api, Service/shop-web")
	if o := m.objects["Route/shop-web-0"].Owner; o != "discover/here/shop/web" {
		t.Errorf("the owner is %s", o)
	}
	r.Found("docker", []source.Workload{workload("shop/web", nil, "10.0.0.1", "-10.0.0.2"), workload("shop/api", nil)})
	m.until(t, "EndpointSet/shop-api-here, EndpointSet/shop-web-here 10.0.0.1 10.0.0.2-, Route/shop-api-0, "+
		"Route/shop-web-0, Service/shop-api, Service/shop-web")
	r.Found("docker", []source.Workload{workload("shop/web", map[string]string{"marchproxy.routes.1.hosts": "b.test"},
		"10.0.0.1")})
	m.until(t, "EndpointSet/shop-web-here 10.0.0.1, Route/shop-web-0, Route/shop-web-1, Service/shop-web")
	applies := m.applies
	r.Found("docker", []source.Workload{workload("shop/web", map[string]string{"marchproxy.routes.1.hosts": "b.test"},
		"10.0.0.1")})
	r.Found("docker", nil)
	m.until(t, "")
	if n := m.applies - applies; n != 2 { // without endpoints, and not at all
		t.Errorf("%d applies for a workload that goes", n)
	}
}

// TestProblems: a bad label and a refusal by the api take only what they are about; the rest is served, the route keeps
// its last form, and what is wrong is said on the set and in the status.
func TestProblems(t *testing.T) {
	m := &memory{refuse: func(o api.Object) string {
		if o.Kind == "Route" && strings.Contains(string(o.Spec), "taken.test") {
			return "host taken.test is served by another route"
		}
		return ""
	}}
	r := start(t, m, "here", "discover/here")
	both := map[string]string{"marchproxy.routes.1.hosts": "one.test"}
	r.Found("docker", []source.Workload{workload("web", both, "10.0.0.1"), workload("other", nil, "10.0.0.9")})
	all := "EndpointSet/other-here 10.0.0.9, EndpointSet/web-here %s, Route/other-0, Route/web-0, Route/web-1, " +
		"Service/other, Service/web"
	m.until(t, fmt.Sprintf(all, "10.0.0.1"))
	both["marchproxy.routes.1.paht.prefix"] = "/"
	r.Found("docker", []source.Workload{workload("web", both, "10.0.0.2"), workload("other", nil, "10.0.0.9")})
	m.until(t, fmt.Sprintf(all, "10.0.0.2"))
	if p := m.objects["EndpointSet/web-here"].Labels[ProblemLabel]; !strings.Contains(p,
		"label marchproxy.routes.1.paht.prefix: Route has no field") {
		t.Errorf("the set says %q", p)
	}
	delete(both, "marchproxy.routes.1.paht.prefix")
	both["marchproxy.routes.1.hosts"] = "taken.test"
	r.Found("docker", []source.Workload{workload("web", both, "10.0.0.3"), workload("other", nil, "10.0.0.9")})
	m.until(t, fmt.Sprintf(all, "10.0.0.3"))
	if got := string(m.objects["Route/web-1"].Spec); !strings.Contains(got, "one.test") {
		t.Errorf("the route that was refused is %s", got)
	}
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(fmt.Sprint(r.Status().Problems["web"]), "taken.test is served by another route") {
		if time.Now().After(deadline) {
			t.Fatalf("the status says %v", r.Status().Problems)
		}
		time.Sleep(time.Millisecond) // until it is said
	}
	m.mu.Lock()
	m.refuse = func(api.Object) string { return "" } // the other route has gone
	m.mu.Unlock()
	for !strings.Contains(m.spec("Route/web-1"), "taken.test") {
		if time.Now().After(deadline) {
			t.Fatal("what was refused is not tried again")
		}
		time.Sleep(time.Millisecond) // until it is written
	}
}

func (m *memory) spec(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.objects[name].Spec)
}

// TestLeft: what an earlier life has left goes when a source has found others without it, and stays while a source has
// found nothing at all; an api that is away delays everything and loses nothing.
func TestLeft(t *testing.T) {
	m := &memory{objects: map[string]api.Object{}, away: errors.New("the api is away")}
	for _, key := range []string{"gone", "stays"} {
		owner := "discover/here/" + key
		m.objects["Service/"+key] = api.Object{Kind: "Service", Name: key, Owner: owner}
		m.objects["EndpointSet/"+key+"-here"] = api.Object{
			Kind: "EndpointSet", Name: key + "-here", Owner: owner, Labels: map[string]string{SiteLabel: "here"},
			Spec: json.RawMessage(`{"service":"` + key + `"}`),
		}
	}
	r := start(t, m, "here", "discover/here")
	r.Found("docker", nil)
	m.mu.Lock()
	m.away = nil
	m.mu.Unlock()
	deadline := time.Now().Add(10 * time.Second)
	for s := r.Status(); !s.Began || s.Workloads != 2; s = r.Status() {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", s)
		}
		time.Sleep(time.Millisecond) // until it has asked
	}
	r.mu.Lock() // as if they were gone for long
	for _, x := range r.items {
		x.gone = time.Now().Add(-time.Hour)
	}
	r.mu.Unlock()
	if len(r.due(time.Now())) > 0 {
		t.Error("after a list without anything something goes")
	}
	r.Found("docker", []source.Workload{workload("stays", nil, "10.0.0.1")})
	m.until(t, "EndpointSet/stays-here 10.0.0.1, Route/stays-0, Service/stays")
}

// TestRollback: what somebody else changes, takes away or brings back is made what was found, without a change of it.
func TestRollback(t *testing.T) {
	m := &memory{}
	r := start(t, m, "here", "discover/here")
	r.Found("docker", []source.Workload{workload("old", nil, "10.0.0.1"), workload("web", nil, "10.0.0.2")})
	m.until(t, "EndpointSet/old-here 10.0.0.1, EndpointSet/web-here 10.0.0.2, Route/old-0, Route/web-0, Service/old, "+
		"Service/web")
	m.mu.Lock()
	before := maps.Clone(m.objects)
	m.mu.Unlock()
	delete(before, "Route/web-0")
	r.Found("docker", []source.Workload{workload("new", nil, "10.0.0.3"), workload("web", nil, "10.0.0.2")})
	const now = "EndpointSet/new-here 10.0.0.3, EndpointSet/web-here 10.0.0.2, Route/new-0, Route/web-0, Service/new, " +
		"Service/web"
	m.until(t, now)
	m.rollback(before) // brings back old, and takes new and a route away
	if m.says() == now {
		t.Fatal("nothing was rolled back")
	}
	m.until(t, now)
	m.mu.Lock() // somebody changes one
	m.head++
	o := m.objects["Service/web"]
	o.Spec, o.Revision = json.RawMessage(`{"protocol":"http2"}`), m.head
	m.objects["Service/web"] = o
	m.mu.Unlock()
	deadline := time.Now().Add(10 * time.Second)
	for m.spec("Service/web") != "{}" {
		if time.Now().After(deadline) {
			t.Fatalf("it is still %s", m.spec("Service/web"))
		}
		time.Sleep(time.Millisecond) // until it is written again
	}
	for len(r.Status().Problems) > 0 || r.Status().Pending > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", r.Status())
		}
		time.Sleep(time.Millisecond) // until it is at rest
	}
	m.mu.Lock()
	applies := m.applies
	m.mu.Unlock()
	time.Sleep(100 * time.Millisecond) // in which it looks five times, and finds what it wrote
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.applies != applies {
		t.Errorf("%d applies while nothing changes", m.applies-applies)
	}
}

// TestShared: two sites have endpoints of one service, whose routes go with the last of them.
func TestShared(t *testing.T) {
	m := &memory{}
	a, b := start(t, m, "a", "discover/shared"), start(t, m, "b", "discover/shared")
	m.mu.Lock()
	m.refuse = func(api.Object) string { return "" }
	m.mu.Unlock()
	a.Found("docker", []source.Workload{workload("shop/web", nil, "10.0.0.1")})
	m.until(t, "EndpointSet/shop-web-a 10.0.0.1, Route/shop-web-0, Service/shop-web")
	b.Found("docker", []source.Workload{workload("shop/web", nil, "10.0.1.1")})
	m.until(t, "EndpointSet/shop-web-a 10.0.0.1, EndpointSet/shop-web-b 10.0.1.1, Route/shop-web-0, Service/shop-web")
	if x, y := m.objects["EndpointSet/shop-web-a"].Owner,
		m.objects["Service/shop-web"].Owner; x != "discover/a/shop/web" || y != "discover/shared/shop/web" {
		t.Errorf("owners %s and %s", x, y)
	}
}

// TestNames: what is written has names that the api takes, however long those are that they come of.
func TestNames(t *testing.T) {
	long := strings.Repeat("project_with_a_long_name", 4) + "/" + strings.Repeat("service.", 9)
	n := Naming{Site: "a-site-with-a-long-name", Owner: "discover/a-site-with-a-long-name"}
	w := n.of(source.Workload{Key: long, Name: strings.ReplaceAll(long, "/", "-"), Labels: workload("x", nil).Labels})
	for _, o := range append(w.others, *w.set) {
		if len(o.Name) > 63 || strings.Trim(o.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" ||
			strings.HasSuffix(o.Name, "-") || len(o.Owner) > 63 {
			t.Errorf("%s %q of %q", o.Kind, o.Name, o.Owner)
		}
	}
	other := n.of(source.Workload{
		Key: long + "2", Name: strings.ReplaceAll(long, "/", "-") + "2",
		Labels: workload("x", nil).Labels,
	})
	if other.set.Name == w.set.Name || other.set.Owner == w.set.Owner {
		t.Error("two have one name")
	}
}
