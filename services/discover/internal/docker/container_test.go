package docker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// container is one of a compose service, as engines list it.
func container(t *testing.T, id, more string) Container {
	t.Helper()
	var c Container
	if err := json.Unmarshal([]byte(`{"Id":"`+id+`","Names":["/shop-web-`+id+`"],"State":"running","Status":"Up 5 seconds",
		"Ports":[{"PrivatePort":80,"Type":"tcp"}],"NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.18.0.2"}}},
		"Labels":{"marchproxy.enable":"true","com.docker.compose.project":"shop","com.docker.compose.service":"web"}}`),
		&c); err != nil {
		t.Fatal(err)
	}
	if more != "" {
		if strings.Contains(more, `"Labels"`) { // what is given replaces it
			c.Labels = nil
		}
		if err := json.Unmarshal([]byte(more), &c); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// TestEndpoints: which containers take requests, and where.
func TestEndpoints(t *testing.T) {
	const networks = `{"NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.18.0.2"},` +
		`"front":{"IPAddress":"172.19.0.2"}}}`
	for name, c := range map[string]struct{ more, address, want string }{
		"an ordinary one":           {"", "", "172.18.0.2:80 ready"},
		"one that has ended":        {`{"State":"exited"}`, "", ""},
		"a paused one":              {`{"State":"paused"}`, "", ""},
		"one that is not healthy":   {`{"Status":"Up 1 minute (unhealthy)"}`, "", ""},
		"one that starts":           {`{"Status":"Up 1 second (health: starting)"}`, "", ""},
		"a healthy one":             {`{"Status":"Up 1 minute (healthy)"}`, "", "172.18.0.2:80 ready"},
		"the same from 1.52 on":     {`{"Status":"Up 1 minute","Health":{"Status":"unhealthy"}}`, "", ""},
		"without checks, from 1.52": {`{"Health":{"Status":"none"}}`, "", "172.18.0.2:80 ready"},
		"two ports": {
			`{"Ports":[{"PrivatePort":80,"Type":"tcp"},{"PrivatePort":81,"Type":"tcp"}]}`, "",
			"exposes several ports (80, 81); say marchproxy.port",
		},
		"a port twice": {`{"Ports":[{"PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":80,` +
			`"PublicPort":8080,"Type":"tcp"}]}`, "", "172.18.0.2:80 ready"},
		"no port": {
			`{"Ports":[{"PrivatePort":53,"Type":"udp"}]}`, "",
			"exposes no port; say marchproxy.port",
		},
		"a port by a label": {
			`{"Ports":[],"Labels":{"marchproxy.enable":"true","marchproxy.port":"9000"}}`, "",
			"172.18.0.2:9000 ready",
		},
		"two networks": {networks + `}`, "", "is in several networks (front, shop_default); say " +
			"marchproxy.network"},
		"a network by a label": {
			networks + `,"Labels":{"marchproxy.enable":"true","com.docker.compose.project":"shop",` +
				`"marchproxy.network":"default"}}`, "", "172.18.0.2:80 ready",
		},
		"another network": {
			networks + `,"Labels":{"marchproxy.enable":"true","marchproxy.network":"back"}}`, "",
			`has no address in network "back"; it has one in front, shop_default`,
		},
		"the host's network": {
			`{"HostConfig":{"NetworkMode":"host"}}`, "",
			"say by which address Envoys reach it (DISCOVER_ADDRESS)",
		},
		"the host's network and an address": {`{"HostConfig":{"NetworkMode":"host"}}`, "192.0.2.1", "192.0.2.1:80 ready"},
		"a published port": {
			`{"Ports":[{"PrivatePort":80,"PublicPort":32768,"Type":"tcp"}]}`, "192.0.2.1",
			"192.0.2.1:32768 ready",
		},
		"one that is not published": {"", "192.0.2.1", "port 80 is not published"},
	} {
		d := &Docker{opt: Options{Address: c.address}, killed: map[string]time.Time{}}
		x := container(t, "1", c.more)
		e, err := d.endpoint(x)
		got := ""
		if err != nil {
			got = err.Error()
		} else if e != nil {
			got = fmt.Sprintf("%s:%d %s", e.Host, e.Port, e.State)
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestWorkloads: the containers of a compose service are one workload, whose newest says what is wanted; one that was
// told to end drains; what nobody asked for, and one-off containers, are left alone.
func TestWorkloads(t *testing.T) {
	d := &Docker{killed: map[string]time.Time{
		"1":      time.Now().Add(time.Minute),
		"2":      time.Now().Add(-time.Second), // it has taken the signal for something else
		"coming": time.Now().Add(time.Minute),  // it is too new for this list
	}, stops: map[string]stop{"1": {known: true}, "gone": {known: true}}}
	old := container(t, "1", `{"Created":1}`)
	now := container(t, "2", `{"Created":2,"NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.18.0.3"}}},
		"Labels":{"marchproxy.enable":"true","marchproxy.name":"new","com.docker.compose.project":"shop","com.docker.compose.service":"web"}}`)
	all := d.workloads([]Container{
		old, now,
		container(t, "3", `{"Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"db"}}`),
		container(t, "4", `{"Labels":{"marchproxy.enable":"true","com.docker.compose.project":"shop",`+
			`"com.docker.compose.service":"web","com.docker.compose.oneoff":"True"}}`),
		container(t, "5", `{"Names":["/alone"],"State":"exited","Labels":{"marchproxy.enable":"true"}}`),
	}, time.Now())
	if len(all) != 2 || all[0].Key != "alone" || len(all[0].Endpoints) != 0 || all[1].Key != "shop/web" {
		t.Fatalf("%+v", all)
	}
	web := all[1]
	if web.Labels["marchproxy.name"] != "new" || len(web.Endpoints) != 2 || web.Endpoints[0].State != source.Draining ||
		web.Endpoints[1].State != source.Ready {
		t.Errorf("%+v", web)
	}
	if len(d.killed) != 2 || len(d.stops) != 1 {
		t.Errorf("who has gone is still remembered: %v, %v", d.killed, d.stops)
	}
}

// TestEvents: signals that end a container have it drain, others do not, and what health checks do is no change.
func TestEvents(t *testing.T) {
	for _, c := range []struct {
		event   string
		drains  bool
		changed bool
	}{
		{`{"Type":"container","Action":"kill","Actor":{"ID":"x","Attributes":{"signal":"15"}}}`, true, true},
		{`{"Type":"container","Action":"kill","Actor":{"ID":"x","Attributes":{"signal":"SIGKILL"}}}`, true, true},
		{`{"Type":"container","Action":"kill","Actor":{"ID":"x","Attributes":{"signal":"1"}}}`, false, true},
		{`{"Type":"container","Action":"exec_start: /bin/check","Actor":{"ID":"x"}}`, false, false},
		{`{"Type":"container","Action":"health_status: unhealthy","Actor":{"ID":"x"}}`, false, true},
		{`{"Type":"network","Action":"disconnect","Actor":{"ID":"n"}}`, false, true},
	} {
		d := &Docker{killed: map[string]time.Time{}}
		changed := make(chan struct{}, 1)
		if err := d.events(strings.NewReader(c.event), changed); err == nil || !strings.Contains(err.Error(), "closed it") {
			t.Errorf("%s: %v", c.event, err)
		}
		if drains := len(d.killed) > 0; drains != c.drains || len(changed) > 0 != c.changed {
			t.Errorf("%s: drains %t, changed %t", c.event, drains, len(changed) > 0)
		}
	}
}

// TestStop: a container drains for as long as it may take to end, from the signal on that its image ends by.
func TestStop(t *testing.T) {
	answers := map[string]string{
		"/containers/a/json": `{"Config":{"StopTimeout":120}}`,
		"/containers/b/json": `{"Config":{"StopSignal":"SIGQUIT","StopTimeout":-1}}`,
		"/containers/c/json": `{"Config":{"StopSignal":"SIGRTMIN+3"}}`,
		"/containers/d/json": `{"Config":{"StopSignal":"WINCH"}}`,
	}
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a, there := answers[r.URL.Path]; there {
			_, _ = io.WriteString(w, a)
			return
		}
		http.Error(w, "this is not passed on", http.StatusForbidden)
	}))
	defer engine.Close()
	d, err := New(Options{Host: strings.Replace(engine.URL, "http://", "tcp://", 1), Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	var all []Container
	for _, id := range []string{"a", "b", "c", "d", "refused"} {
		all = append(all, container(t, id, ""))
	}
	all = append(all, container(t, "other", `{"Labels":{"com.docker.compose.project":"shop"}}`))
	d.learn(t.Context(), all)
	for _, c := range []struct {
		id, signal string
		drains     time.Duration
	}{
		{"a", "15", 130 * time.Second},
		{"a", "9", 130 * time.Second},
		{"a", "3", 0}, // Java writes down its threads
		{"b", "3", forever},
		{"b", "15", forever},
		{"c", "37", shortest},
		{"d", "28", shortest},
		{"d", "10", 0},
		{"refused", "3", shortest},
		{"refused", "28", 0},
	} {
		raw, err := json.Marshal(map[string]any{
			"Type": "container", "Action": "kill",
			"Actor": map[string]any{"ID": c.id, "Attributes": map[string]string{"signal": c.signal}},
		})
		if err != nil {
			t.Fatal(err)
		}
		d.killed = map[string]time.Time{}
		_ = d.events(bytes.NewReader(raw), make(chan struct{}, 1)) // it ends where the text does
		until, drains := d.killed[c.id]
		left := time.Until(until)
		if drains != (c.drains > 0) || drains && (left > c.drains || left < c.drains-5*time.Second) {
			t.Errorf("%s is sent %s: it drains for %s, want %s", c.id, c.signal, left, c.drains)
		}
	}
	if _, asked := d.stops["other"]; asked || len(d.stops) != 5 {
		t.Errorf("the engine was asked of %v", d.stops)
	}
}

// TestFilterReduces: of a container's own answer nothing is passed on but how it is stopped.
func TestFilterReduces(t *testing.T) {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"Id":"x","Config":{"Env":["PASSWORD=secret"],"StopTimeout":20},`+
			`"Mounts":[{"Source":"/etc"}]}`)
	}))
	defer engine.Close()
	h, err := Filter(strings.Replace(engine.URL, "http://", "tcp://", 1))
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1.47/containers/"+strings.Repeat("0a", 32)+"/json?size=1", http.NoBody))
	if got := w.Body.String(); w.Code != 200 || got != `{"Config":{"StopTimeout":20}}` {
		t.Errorf("%d %s", w.Code, got)
	}
}

// TestFilter: what is passed on are exact paths, read only.
func TestFilter(t *testing.T) {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Path)
	}))
	defer engine.Close()
	h, err := Filter(strings.Replace(engine.URL, "http://", "tcp://", 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path string
		passes       bool
	}{
		{"GET", "/_ping", true},
		{"HEAD", "/_ping", true},
		{"GET", "/v1.47/containers/json?all=1", true},
		{"GET", "/events?filters=%7B%7D", true},
		{"GET", "/networks", true},
		{"GET", "/version", true},
		{"POST", "/containers/json", false},
		{"GET", "/containers/x/json", false},
		{"GET", "/containers/" + strings.Repeat("a", 64) + "/archive", false},
		{"GET", "/containers/x/archive?path=/etc/shadow", false},
		{"GET", "/containers/json/../x/archive", false},
		{"GET", "/containers/json%2f..%2fx/archive", false},
		{"GET", "//containers/json", false},
		{"GET", "/v1.47/v1.47/containers/json", false},
		{"GET", "/containers/json/", false},
		{"GET", "/info", false},
		{"DELETE", "/networks", false},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, http.NoBody))
		if passed := w.Code == 200; passed != c.passes || !c.passes && w.Code != 403 {
			t.Errorf("%s %s: %d", c.method, c.path, w.Code)
		}
	}
}

// TestFollow: an engine that hangs, refuses or goes takes nothing away; when it is back all of it is read again.
func TestFollow(t *testing.T) {
	answer := make(chan string)
	list := `[{"Id":"1","Names":["/web"],"State":"running","Ports":[{"PrivatePort":80,"Type":"tcp"}],"Labels":{"marchproxy.enable":"true"},
		"NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}}}}]`
	hangs := make(chan struct{})
	var pings atomic.Int64
	var mute atomic.Bool
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		switch r.URL.Path {
		case "/_ping":
			if pings.Add(1); mute.Load() {
				<-r.Context().Done()
			}
			return
		case "/containers/1/json":
			http.NotFound(w, r)
			return
		}
		switch a := <-answer; a {
		case "hang":
			select {
			case <-hangs:
			case <-r.Context().Done():
			}
		case "refuse":
			http.Error(w, "no", http.StatusInternalServerError)
		default:
			_, _ = io.WriteString(w, a)
		}
	}))
	defer engine.Close()
	defer close(hangs)
	d, err := New(Options{
		Host: strings.Replace(engine.URL, "http://", "tcp://", 1), Relist: 20 * time.Millisecond, Patience: time.Second,
		Ping: 50 * time.Millisecond, Log: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	found, health := make(chan int, 100), make(chan error, 100)
	done := make(chan error, 1)
	go func() {
		done <- d.Run(t.Context(), func(all []source.Workload) { found <- len(all) }, func(err error) { health <- err })
	}()
	say := func(a string) {
		select {
		case answer <- a:
		case <-time.After(10 * time.Second):
			t.Fatalf("nobody asks for the list any more, before %.20q", a)
		}
	}
	for _, a := range []string{list, "hang", "refuse", "not JSON", list, "[]"} {
		say(a)
	}
	say(list)
	say(list) // the one before has been taken
	var got []int
	for len(found) > 0 {
		got = append(got, <-found)
	}
	if want := "[1 1 0 1]"; !strings.HasPrefix(fmt.Sprint(got)+"]", strings.TrimSuffix(want, "]")) {
		t.Errorf("workloads %v, want %s", got, want)
	}
	failed := 0
	for len(health) > 0 {
		if <-health != nil {
			failed++
		}
	}
	if failed != 3 {
		t.Errorf("%d failures were told, of 3", failed)
	}
	// One that hangs is noticed by that it does not answer, long before the list is asked for again.
	d.opt.Relist = time.Hour
	mute.Store(true)
	for failed = 0; failed == 0; {
		select {
		case err := <-health:
			if err != nil && strings.Contains(err.Error(), "does not answer") {
				failed++
			}
		case answer <- list:
		case <-time.After(10 * time.Second):
			t.Fatalf("an engine that hangs is not noticed, after %d questions", pings.Load())
		}
	}
}
