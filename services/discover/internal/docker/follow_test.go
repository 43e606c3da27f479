package docker

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/engine"

	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// TestInspected: one container's own answer says the same as a list of it. Both are of an engine 28.5.2, shortened.
func TestInspected(t *testing.T) {
	const list = `{"Id":"9f","Names":["/shop-web-1"],"Created":1764291000,"State":"running","Status":"Up 5 seconds (healthy)",
		"Labels":{"marchproxy.enable":"true"},"HostConfig":{"NetworkMode":"shop_default"},
		"Ports":[{"PrivatePort":53,"Type":"udp"},{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":32768,"Type":"tcp"},
			{"IP":"::","PrivatePort":80,"PublicPort":32768,"Type":"tcp"}],
		"NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.18.0.2","GlobalIPv6Address":"","MacAddress":"x"}}}}`
	const one = `{"Id":"9f","Name":"/shop-web-1","Created":"2025-11-28T00:50:00.123456789Z",
		"State":{"Status":"running","Running":true,"Health":{"Status":"healthy","FailingStreak":0,"Log":[]}},
		"Config":{"Labels":{"marchproxy.enable":"true"},"Env":["A=b"],"StopTimeout":20},"HostConfig":{"NetworkMode":"shop_default"},
		"NetworkSettings":{"Ports":{"53/udp":null,"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"32768"},{"HostIp":"::","HostPort":"32768"}]},
			"Networks":{"shop_default":{"IPAddress":"172.18.0.2","GlobalIPv6Address":"","MacAddress":"x"}}}}`
	var want Container
	var is inspected
	if err := json.Unmarshal([]byte(list), &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(one), &is); err != nil {
		t.Fatal(err)
	}
	got, err := is.container()
	if err != nil {
		t.Fatal(err)
	}
	want.Status, want.Health = "", &Health{Status: want.health()}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("%+v\n%+v", *got, want)
	}
	for _, bad := range []string{
		`{"Id":"9f","Created":"yesterday"}`,
		`{"Id":"9f","Created":"2025-11-28T00:50:00Z","NetworkSettings":{"Ports":{"http":null}}}`,
		`{"Id":"9f","Created":"2025-11-28T00:50:00Z","NetworkSettings":{"Ports":{"80/tcp":[{"HostPort":"x"}]}}}`,
	} {
		var is inspected
		if err := json.Unmarshal([]byte(bad), &is); err != nil {
			t.Fatal(err)
		}
		if c, err := is.container(); err == nil {
			t.Errorf("%s is read as %+v", bad, c)
		}
	}
}

// fake answers as an engine does: what it is told to, when it is told to. How a real one behaves is looked at by make
// test-discover; here is what one does too seldom, in each order.
type fake struct {
	lists, reads chan question
	events       chan engine.Event
}

// question waits for its answer.
type question struct {
	path   string
	answer chan string // a status where it is a number
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	to := f.reads
	switch r.URL.Path {
	case "/_ping":
		return
	case "/events":
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case e := <-f.events:
				_ = json.NewEncoder(w).Encode(e)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	case "/containers/json":
		to = f.lists
	}
	q := question{r.URL.Path, make(chan string)}
	select {
	case to <- q:
	case <-r.Context().Done():
		return
	}
	select {
	case a := <-q.answer:
		if strings.HasPrefix(a, "4") || strings.HasPrefix(a, "5") {
			http.Error(w, a, http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, a)
	case <-r.Context().Done():
	}
}

// follow starts a source at an engine, and hands over what it tells.
func (f *fake) follow(t *testing.T) <-chan string {
	t.Helper()
	f.lists, f.reads, f.events = make(chan question), make(chan question), make(chan engine.Event)
	s := httptest.NewServer(f)
	d, err := New(Options{Host: strings.Replace(s.URL, "http://", "tcp://", 1), Relist: time.Hour, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan string, 100)
	var last string
	var done sync.WaitGroup
	done.Go(func() {
		_ = d.Run(t.Context(), func(all []source.Workload) {
			if now := told(all); now != last {
				last = now
				out <- now
			}
		}, func(error) {})
	})
	t.Cleanup(func() { // the context has ended
		done.Wait()
		s.CloseClientConnections()
		s.Close()
	})
	return out
}

func await[T any](t *testing.T, from <-chan T, what string) (x T) {
	t.Helper()
	select {
	case x = <-from:
	case <-time.After(20 * time.Second):
		t.Fatalf("there is never %s", what)
	}
	return x
}

func (f *fake) happen(t *testing.T, e engine.Event) {
	t.Helper()
	select {
	case f.events <- e:
	case <-time.After(20 * time.Second):
		t.Fatalf("nobody waits for %s", e.Action)
	}
}

// webIs is what an engine says of a container by itself, with the address 172.18.0.N.
func webIs(id string, n int, state string) string {
	return fmt.Sprintf(`{"Id":%q,"Name":"/%s","Created":"2025-11-28T00:50:00Z","State":{"Status":%q},"Config":{"Labels":`+
		`{"marchproxy.enable":"true","marchproxy.port":"80"}},"NetworkSettings":{"Networks":{"n":{"IPAddress":"172.18.0.%d"}}}}`,
		id, id, state, n)
}

// listed is the same in a list.
func listed(id string, n int) string {
	return fmt.Sprintf(`{"Id":%q,"Names":["/%s"],"State":"running","Labels":{"marchproxy.enable":"true","marchproxy.port":"80"},`+
		`"NetworkSettings":{"Networks":{"n":{"IPAddress":"172.18.0.%d"}}}}`, id, id, n)
}

// TestEventsWhileAListHangs: what happens is served meanwhile, and stays so when the list, which is of before, comes.
func TestEventsWhileAListHangs(t *testing.T) {
	var f fake
	found := f.follow(t)
	await(t, f.lists, "a list").answer <- "[" + listed("a", 2) + "," + listed("b", 3) + "]"
	const both = "a 172.18.0.2:80 ready, b 172.18.0.3:80 ready"
	if got := await(t, found, "a workload"); got != both {
		t.Fatal(got)
	}
	for range 2 { // how they are stopped
		q := await(t, f.reads, "a question")
		q.answer <- webIs(strings.Split(q.path, "/")[2], 2+strings.Count(q.path, "b"), "running")
	}
	f.happen(t, network("x", "connect", "n"))
	await(t, f.reads, "a question").answer <- "403" // so that a list has to say it
	list := await(t, f.lists, "a list after a container could not be read")
	say := func(want string, events ...engine.Event) {
		t.Helper()
		for _, e := range events {
			f.happen(t, e)
		}
		for got := ""; got != want; {
			got = await(t, found, want)
		}
	}
	say("a 172.18.0.2:80 draining, b 172.18.0.3:80 ready", happens("a", "kill", "signal", "15"))
	say("a none, b 172.18.0.3:80 ready", happens("a", "die"))
	f.happen(t, happens("c", "start"))
	await(t, f.reads, "a question of what was started").answer <- webIs("c", 4, "running")
	say("a none, b 172.18.0.3:80 ready, c 172.18.0.4:80 ready")
	// Of an answer that is on its way when its container dies nothing stays; and then it is asked for once more.
	f.happen(t, happens("a", "start"))
	q := await(t, f.reads, "a question")
	say("a none, b none, c 172.18.0.4:80 ready", happens("a", "die"), happens("a", "start"), happens("b", "die"))
	q.answer <- webIs("a", 2, "running")
	await(t, f.reads, "a second question").answer <- webIs("a", 5, "running")
	const end = "a 172.18.0.5:80 ready, b none, c 172.18.0.4:80 ready"
	say(end)
	list.answer <- "[" + listed("a", 2) + "," + listed("b", 3) + "]"
	say("a 172.18.0.5:80 ready, b none, c none", happens("c", "die"))
	if len(found) > 0 {
		t.Errorf("then it was %s", <-found)
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
		var a string
		select {
		case a = <-answer:
		case <-r.Context().Done():
			return
		}
		switch a {
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
		Ping: 200 * time.Millisecond, Log: zap.NewNop(),
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
	// One that hangs is noticed by that it does not answer.
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
