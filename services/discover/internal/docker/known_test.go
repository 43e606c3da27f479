package docker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marchproxy/marchproxy/pkg/engine"

	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// happens is an event of a container, with attributes in pairs.
func happens(id, action string, attributes ...string) engine.Event {
	e := engine.Event{Type: "container", Action: action}
	e.Actor.ID, e.Actor.Attributes = id, map[string]string{}
	for i := 0; i < len(attributes); i += 2 {
		e.Actor.Attributes[attributes[i]] = attributes[i+1]
	}
	return e
}

// network is an event of a container's network.
func network(id, action, name string) engine.Event {
	e := happens("n", action, "container", id, "name", name)
	e.Type = "network"
	return e
}

// told is what is handed over, in a line.
func told(all []source.Workload) string {
	var out []string
	for _, w := range all {
		for _, e := range w.Endpoints {
			out = append(out, fmt.Sprintf("%s %s:%d %s", w.Key, e.Host, e.Port, e.State))
		}
		if len(w.Endpoints) == 0 {
			out = append(out, w.Key+" none")
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// TestWorkloads: the containers of a compose service are one workload, whose newest says what is wanted; one that was
// told to end drains; what nobody asked for, and one-off containers, are left alone.
func TestWorkloads(t *testing.T) {
	k := newKnown("")
	k.killed = map[string]time.Time{
		"1":      time.Now().Add(time.Minute),
		"2":      time.Now().Add(-time.Second), // it has taken the signal for something else
		"coming": time.Now().Add(time.Minute),  // it is too new for this list
	}
	k.put(container(t, "gone", ""))
	k.list([]Container{
		container(t, "1", `{"Created":1}`),
		container(t, "2", `{"Created":2,"NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.18.0.3"}}},
			"Labels":{"marchproxy.enable":"true","marchproxy.name":"new","com.docker.compose.project":"shop","com.docker.compose.service":"web"}}`),
		container(t, "3", `{"Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"db"}}`),
		container(t, "4", `{"Labels":{"marchproxy.enable":"true","com.docker.compose.project":"shop",`+
			`"com.docker.compose.service":"web","com.docker.compose.oneoff":"True"}}`),
		container(t, "5", `{"Names":["/alone"],"State":"exited","Labels":{"marchproxy.enable":"true"}}`),
	}, nil, time.Now())
	all := k.all()
	if got := told(all); got != "alone none, shop/web 172.18.0.2:80 draining, shop/web 172.18.0.3:80 ready" {
		t.Error(got)
	}
	for _, w := range all {
		if w.Key == "shop/web" && w.Labels["marchproxy.name"] != "new" {
			t.Errorf("the oldest says what is wanted: %v", w.Labels)
		}
	}
	if len(k.killed) != 2 || len(k.containers) != 5 || len(k.groups) != 3 {
		t.Errorf("who has gone is still remembered: %v, %v, %v", k.killed, k.containers, k.groups)
	}
}

// TestHappened: what an event says of a container is so at once, and what it does not say is read.
func TestHappened(t *testing.T) {
	const ready, none = "shop/web 172.18.0.2:80 ready", "shop/web none"
	for _, c := range []struct {
		state string // before
		e     engine.Event
		want  string
		read  reading
	}{
		{"", happens("x", "kill", "signal", "15"), "shop/web 172.18.0.2:80 draining", no},
		{"", happens("x", "kill", "signal", "SIGKILL"), "shop/web 172.18.0.2:80 draining", no},
		{"", happens("x", "kill", "signal", "1"), ready, no},
		{"", happens("x", "die"), none, no},
		{"", happens("x", "destroy"), "", no},
		{"", happens("x", "pause"), none, no},
		{`{"State":"paused"}`, happens("x", "unpause"), ready, no},
		{"", happens("x", "health_status: unhealthy"), none, no},
		{`{"Status":"Up 1 second (health: starting)"}`, happens("x", "health_status: healthy"), ready, no},
		{"", happens("x", "health_status"), ready, now}, // other engines say it elsewhere
		{"", happens("x", "exec_start: /bin/check"), ready, no},
		{`{"State":"exited"}`, happens("x", "start"), none, now}, // its address is not the one that it had
		{"", happens("x", "rename"), ready, now},
		{"", network("x", "connect", "other"), ready, now},
		{"", network("x", "disconnect", "shop_default"), ready, later},
		{"", happens("new", "create"), ready, now},
		{"", happens("new", "die"), ready, now},
		{"", happens("new", "exec_die"), ready, no},
	} {
		k := newKnown("")
		k.list([]Container{container(t, "x", c.state)}, nil, time.Now())
		k.all()
		for range 2 { // the second time nothing changes any more
			if read := k.happened(subject(c.e), c.e, time.Now()); read != c.read && c.want != "" {
				t.Errorf("%s: read %d, want %d", c.e.Action, read, c.read)
			}
			if got := told(k.all()); got != c.want {
				t.Errorf("%s: %s, want %s", c.e.Action, got, c.want)
			}
		}
	}
}

// TestKillThenStart: a container that is started again has not been told to end.
func TestKillThenStart(t *testing.T) {
	k := newKnown("")
	k.put(container(t, "x", ""))
	for _, e := range []engine.Event{happens("x", "kill", "signal", "15"), happens("x", "die"), happens("x", "start")} {
		k.happened("x", e, time.Now())
	}
	if got := told(k.all()); got != "shop/web none" {
		t.Errorf("%s before its address is known", got)
	}
	k.put(container(t, "x", ""))
	if got := told(k.all()); got != "shop/web 172.18.0.2:80 ready" {
		t.Error(got)
	}
}

// TestListBesideEvents: of a container to which something happened since the list was asked for, the list's word, which
// may be of before, does not count; nor is it gone because it is not in the list.
func TestListBesideEvents(t *testing.T) {
	k := newKnown("")
	k.list([]Container{
		container(t, "died", ""), container(t, "destroyed", `{"Names":["/d"],"Labels":{"marchproxy.enable":"true"}}`),
		container(t, "missed", `{"Names":["/m"],"Labels":{"marchproxy.enable":"true"}}`),
	}, nil, time.Now())
	at := func(id, name string) Container {
		return container(t, id, `{"Names":["/`+name+`"],"Labels":{"marchproxy.enable":"true"}}`)
	}
	events := []engine.Event{happens("died", "die"), happens("destroyed", "destroy"), happens("new", "start"), happens("early", "die")}
	for _, e := range events {
		k.happened(subject(e), e, time.Now())
	}
	k.put(at("new", "new")) // it was read
	k.list([]Container{
		container(t, "died", ""), at("destroyed", "d"), at("early", "early"), at("quiet", "quiet"),
	}, append(events, happens("unknown", "destroy")), time.Now())
	const want = "early none, new 172.18.0.2:80 ready, quiet 172.18.0.2:80 ready, shop/web none"
	if got := told(k.all()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestUnchangedIsTheSame: what an event leaves as it was is handed over as the same maps and slices, so that who
// compares need not look into them.
func TestUnchangedIsTheSame(t *testing.T) {
	k := newKnown("")
	for i := range 1000 {
		k.put(container(t, fmt.Sprint(i), fmt.Sprintf(`{"Names":["/c%d"],"Labels":{"marchproxy.enable":"true"}}`, i)))
	}
	before := map[string]*source.Endpoint{}
	for _, w := range k.all() {
		before[w.Key] = &w.Endpoints[0]
	}
	k.happened("7", happens("7", "kill", "signal", "15"), time.Now())
	made := 0
	for _, w := range k.all() {
		if before[w.Key] != &w.Endpoints[0] {
			made++
		}
	}
	if made != 1 {
		t.Errorf("%d workloads were made anew after an event of one", made)
	}
}

// TestStop: a container drains for as long as it may take to end, from the signal on that its image ends by.
func TestStop(t *testing.T) {
	for _, c := range []struct {
		answer, signal string
		drains         time.Duration
	}{
		{`{"Config":{"StopTimeout":120}}`, "15", 130 * time.Second},
		{`{"Config":{"StopTimeout":120}}`, "9", 130 * time.Second},
		{`{"Config":{"StopTimeout":120}}`, "3", 0}, // Java writes down its threads
		{`{"Config":{"StopSignal":"SIGQUIT","StopTimeout":-1}}`, "3", forever},
		{`{"Config":{"StopSignal":"SIGQUIT","StopTimeout":-1}}`, "15", forever},
		{`{"Config":{"StopSignal":"SIGRTMIN+3"}}`, "37", shortest},
		{`{"Config":{"StopSignal":"WINCH"}}`, "28", shortest},
		{`{"Config":{"StopSignal":"WINCH"}}`, "10", 0},
		{"", "3", shortest}, // it was not told
		{"", "28", 0},
	} {
		k := newKnown("")
		x := k.put(container(t, "x", ""))
		if c.answer != "" {
			var is inspected
			if err := json.Unmarshal([]byte(c.answer), &is); err != nil {
				t.Fatal(err)
			}
			x.stop = is.stop()
		}
		at := time.Now()
		k.happened("x", happens("x", "kill", "signal", c.signal), at)
		until, drains := k.killed["x"]
		if drains != (c.drains > 0) || drains && until.Sub(at) != c.drains {
			t.Errorf("%s is sent %s: it drains for %s, want %s", c.answer, c.signal, until.Sub(at), c.drains)
		}
	}
	if s := (stop{known: true, signal: unix.SIGTERM}); s.ends("nonsense") {
		t.Error("what is no signal ends a container")
	}
}
