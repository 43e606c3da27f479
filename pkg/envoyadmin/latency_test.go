package envoyadmin

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// TestTrack: a latency is what it was until another one has lasted, and then not another one again at once; what is
// noise, and single measurements, change nothing.
func TestTrack(t *testing.T) {
	const every = measureEvery
	now := time.Now()
	tr := &track{}
	feed := func(n int, ms ...float64) {
		for i := range n {
			tr.add(ms[i%len(ms)], now)
			now = now.Add(every)
		}
	}
	is := func(what string, want float64) {
		t.Helper()
		if tr.steady != want {
			t.Errorf("%s: %v ms, want %v", what, tr.steady, want)
		}
	}
	feed(2, 10)
	is("before there are enough", 0)
	feed(1, 10)
	is("the first", 10)
	feed(40, 9, 11, 10, 300, 11.9)
	is("noise, and one of five", 10)
	feed(window, 10)
	feed(lasting+1, 50)
	is("one that has not lasted", 10)
	feed(1, 50)
	is("one that has", 50)
	feed(5, 10)
	is("a change within the calm", 50)
	feed(2, 10)
	is("and after it", 10)

	// However the measured latency jumps, there is one change within each calm.
	changes, last := 0, tr.steady
	for i := range 600 {
		tr.add([]float64{10, 100}[i/6%2], now)
		now = now.Add(every)
		if tr.steady != last {
			changes, last = changes+1, tr.steady
		}
	}
	if most := int(600 * every / calm); changes == 0 || changes > most {
		t.Errorf("%d changes, want 1 to %d", changes, most)
	}

	small := &track{}
	for range 3 {
		small.add(0.1, now)
	}
	for range 20 {
		now = now.Add(every)
		small.add(1, now) // ten times as much, and no millisecond
	}
	if small.steady != 0.1 {
		t.Errorf("below the least difference: %v", small.steady)
	}
}

// measuredEnvoy answers as an Envoy with the bootstrap's listener does, of which test/e2e has a real one.
type measuredEnvoy struct {
	mu       sync.Mutex
	services []string       // those that the runtime names
	hosts    map[string]int // endpoints at each of two places, by service
	failed   bool           // the endpoints of the second place
	asked    map[string]int // requests by endpoint, and of the admin interface by path
	slow     string         // an endpoint that answers after 20 ms
}

func (e *measuredEnvoy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch r.URL.Path {
	case "/runtime":
		var out []string
		for _, s := range e.services {
			out = append(out, fmt.Sprintf(`"%s%s": {"final_value": "/healthz?a=b%%20c shop.test", "layer_values": []}`,
				bootstrap.RuntimeLatency, s))
		}
		e.asked["runtime"]++
		_, _ = fmt.Fprintf(w, `{"entries": {"other": {"final_value": "1"}, %s}, "layers": []}`,
			strings.Join(append(out, `"last": {"final_value": ""}`), ","))
	case "/clusters":
		e.asked["clusters"]++
		filter, sep := regexp.MustCompile(r.URL.Query().Get("filter")), ""
		_, _ = fmt.Fprint(w, `{"cluster_statuses": [`)
		for name, n := range e.hosts {
			if !filter.MatchString(name) {
				continue
			}
			_, _ = fmt.Fprintf(w, `%s{"name": %q, "host_statuses": [`, sep, name)
			for i := range 2 * n {
				comma := ","
				if i == 0 {
					comma = ""
				}
				_, _ = fmt.Fprintf(w, `%s{"address": {"socket_address": {"address": "10.0.%d.%d", "port_value": 80}},
					"locality": {"region": "cloud-%d", "zone": "a"}, "health_status": {"failed_active_health_check": %v,
					"eds_health_status": "HEALTHY"}}`, comma, i%2, i/2, i%2, e.failed && i%2 == 1)
			}
			_, _ = fmt.Fprint(w, `]}`)
			sep = ","
		}
		_, _ = fmt.Fprint(w, `]}`)
	}
}

// probe answers what comes by the socket.
func (e *measuredEnvoy) probe(w http.ResponseWriter, r *http.Request) {
	address, err := base64.StdEncoding.DecodeString(r.Header.Get(bootstrap.ProbeEndpoint))
	e.mu.Lock()
	if err != nil || r.Host != "shop.test" || r.RequestURI != "/healthz?a=b%20c" ||
		r.Header.Get(bootstrap.ProbeService) == "" {
		e.asked["bad "+r.Host+r.RequestURI]++
	}
	e.asked[string(address)]++
	slow := string(address) == e.slow
	e.mu.Unlock()
	if slow {
		time.Sleep(20 * time.Millisecond) // it is what is measured
	}
	w.WriteHeader(http.StatusNotFound) // an answer is an answer
}

func (e *measuredEnvoy) take() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.asked
	e.asked = map[string]int{}
	return out
}

func metered(t *testing.T, e *measuredEnvoy) *meter {
	t.Helper()
	e.asked = map[string]int{}
	admin := httptest.NewServer(e)
	t.Cleanup(admin.Close)
	socket := filepath.Join(t.TempDir(), "p")
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	probes := &httptest.Server{Listener: lis, Config: &http.Server{Handler: http.HandlerFunc(e.probe)}}
	probes.Start()
	t.Cleanup(probes.Close)
	return newMeter(New(strings.TrimPrefix(admin.URL, "http://")), socket)
}

// TestMeter: what the runtime names is measured at each place, at one endpoint after the other, and told when all
// places are known; an Envoy without such a service is asked for that alone; a place that fails keeps its latency
// for a while.
func TestMeter(t *testing.T) {
	e := &measuredEnvoy{hosts: map[string]int{"shop": 2, "other": 1}, slow: "10.0.1.0:80"}
	m := metered(t, e)
	now := time.Now()
	look := func() map[string]int {
		m.look(t.Context(), now)
		now = now.Add(measureEvery)
		return e.take()
	}
	if got := look(); got["runtime"] != 1 || len(got) != 1 || m.latencies() != nil {
		t.Errorf("nothing is to be measured: asked %v, told %v", got, m.latencies())
	}
	e.services = []string{"shop"}
	first := look()
	if first["clusters"] != 1 || first["10.0.0.0:80"] != tries || first["10.0.1.0:80"] != tries || len(first) != 4 {
		t.Errorf("the first look: %v", first)
	}
	second := look()
	if second["clusters"] != 0 || second["10.0.0.1:80"] != tries || len(second) != 3 || m.latencies() != nil {
		t.Errorf("the second look: %v, told %v", second, m.latencies())
	}
	e.slow = ""
	look()
	told := m.latencies()
	if len(told) != 2 || told[0].Service != "shop" || told[0].Cloud != "cloud-0" || told[1].Zone != "a" ||
		told[0].Steady <= 0 || told[0].Milliseconds <= 0 {
		t.Fatalf("told %+v", told)
	}
	e.failed = true
	for range 7 { // the endpoints are looked at again
		look()
	}
	if got := look(); got["10.0.1.0:80"]+got["10.0.1.1:80"] != 0 || got["10.0.0.0:80"]+got["10.0.0.1:80"] != tries {
		t.Errorf("a place that fails is asked: %v", got)
	}
	if len(m.latencies()) != 2 {
		t.Errorf("a place that fails is forgotten at once: %+v", m.latencies())
	}
	for range int(old/measureEvery) + 1 {
		look()
	}
	if got := m.latencies(); len(got) != 1 || got[0].Cloud != "cloud-0" {
		t.Errorf("what is old is told: %+v", got)
	}
	e.services = nil
	if look(); m.latencies() != nil || len(m.tracks) != 0 || len(m.services) != 0 {
		t.Errorf("what nobody asks for is kept: %v", m.latencies())
	}
}

// TestMeterIsBounded: more places than a report has room for are not measured.
func TestMeterIsBounded(t *testing.T) {
	e := &measuredEnvoy{hosts: map[string]int{}}
	for i := range status.MaxLatencies {
		name := fmt.Sprintf("s-%03d", i)
		e.hosts[name], e.services = 1, append(e.services, name)
	}
	m := metered(t, e)
	for range enough {
		m.look(t.Context(), time.Now())
	}
	if got := m.latencies(); len(got) > status.MaxLatencies || len(got) == 0 || got[0].Service != "s-000" {
		t.Errorf("%d told", len(got))
	}
	for what, n := range e.take() {
		if strings.HasPrefix(what, "bad") {
			t.Errorf("%d times %s", n, what)
		}
	}
}
