package status_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/status"
)

// sender is an xDS server's side, with what it means to have said.
type sender struct {
	pages   *status.Pages
	started int
	number  int64
	has     map[string]string // what it has, by key
}

func (s *sender) start() {
	s.started++
	s.pages, s.number, s.has = status.NewPages("x", fmt.Sprintf("%09d", s.started)), 0, map[string]string{}
}

func proxy(i, form int) status.ProxyStatus {
	return status.ProxyStatus{
		ID: fmt.Sprintf("envoy-%d", i), Gateway: fmt.Sprintf("g%d", i%3),
		Address: fmt.Sprintf("10.0.0.%d:1", i), OverLimit: form%2 == 1,
	}
}

func refused(i, form int) status.RejectedResource {
	return status.RejectedResource{
		Gateway: "g0", Resource: fmt.Sprintf("Cluster c%d", i), Reason: fmt.Sprint("reason ", form,
			strings.Repeat("x", 4000*(form%3))),
		Objects: []status.ObjectRef{{Kind: "Service", Name: fmt.Sprintf("c%d", i), Revision: int64(form)}},
	}
}

// change changes something.
func (s *sender) change(r *rand.Rand) {
	kind, i, form := r.IntN(3), r.IntN(150), r.IntN(4)
	key := fmt.Sprint(kind, "/", i)
	if r.IntN(3) == 0 {
		s.pages.Delete(key)
		delete(s.has, key)
		return
	}
	var item any
	switch kind {
	case 0:
		item = proxy(i, form)
	case 1:
		item = refused(i, form)
	case 2:
		item = fmt.Sprintf("name-%d.test", i)
	}
	s.pages.Put(key, item)
	s.has[key] = fmt.Sprintf("%+v", item)
}

// wire is NATS: it keeps the last message of each subject, and loses some on the way to who listens.
type wire struct {
	r    *rand.Rand
	loss int // in a hundred
	kept map[string][]byte
	to   *status.View
	t    *testing.T
}

func (w *wire) publish(subject string, data []byte) {
	w.kept[subject] = data
	if w.r.IntN(100) >= w.loss {
		w.deliver(subject, data, true)
	}
}

// deliver hands a message over, and says of a report whether it was taken and something is missing.
func (w *wire) deliver(subject string, data []byte, fresh bool) (missing bool) {
	if subject == "head" {
		var s status.XdsStatus
		if err := json.Unmarshal(data, &s); err != nil {
			w.t.Fatal(err)
		}
		_, ok := w.to.Report(s, fresh)
		return ok && !w.to.Whole()
	}
	var p status.XdsPage
	if err := json.Unmarshal(data, &p); err != nil {
		w.t.Fatal(err)
	}
	w.to.Page(p, fresh)
	return false
}

// read is what a receiver does that starts, or that lacks something.
func (w *wire) read() {
	there := map[int32]bool{}
	if head, ok := w.kept["head"]; ok {
		w.deliver("head", head, false)
	}
	for subject, data := range w.kept {
		if subject != "head" {
			w.deliver(subject, data, false)
			var p status.XdsPage
			_ = json.Unmarshal(data, &p) // deliver has
			there[p.Page] = true
		}
	}
	w.to.Prune(there)
}

// say publishes what the sender has; it returns what it said with the report.
func (s *sender) say(t *testing.T, w *wire) {
	pages, err := s.pages.Say()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range pages {
		if len(m.Data) > 256<<10 {
			t.Fatalf("a page of %d bytes", len(m.Data))
		}
		var p status.XdsPage
		if err := json.Unmarshal(m.Data, &p); err != nil {
			t.Fatal(err)
		}
		w.publish(fmt.Sprint("page ", p.Page), m.Data)
	}
	s.number++
	raw, err := json.Marshal(status.XdsStatus{
		ID: "x", StartedAt: fmt.Sprintf("%09d", s.started), Number: s.number,
		Pages: s.pages.Digest(),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.publish("head", raw)
}

// shown is everything that a view shows.
func shown(v *status.View) []string {
	var out []string
	counts := map[string]status.Count{}
	for p := range v.Proxies {
		out = append(out, fmt.Sprintf("%+v", p))
		c := counts[p.Gateway]
		if c.Proxies++; p.OverLimit {
			c.OverLimit++
		}
		counts[p.Gateway] = c
		if !v.Has(p) {
			out = append(out, "does not find "+p.ID)
		}
	}
	if !maps.Equal(counts, v.Counts()) {
		out = append(out, fmt.Sprint("counts ", v.Counts(), " where there are ", counts))
	}
	for _, r := range v.Rejected() {
		out = append(out, fmt.Sprintf("%+v", r))
		for _, o := range r.Objects {
			if got := v.Refused(o.Kind, o.Name); len(got) != 1 || got[0].Reason != r.Reason || got[0].Revision != o.Revision {
				out = append(out, fmt.Sprintf("of %s it finds %+v", o.Name, got))
			}
		}
	}
	for i := range 150 {
		if n := fmt.Sprintf("name-%d.test", i); v.Unresolved(n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// differing are the texts that only one of two lists has.
func differing(a, b []string) (out []string) {
	for _, pair := range [][2][]string{{a, b}, {b, a}} {
		for _, x := range pair[0] {
			if !slices.Contains(pair[1], x) {
				out = append(out, x)
			}
		}
	}
	return out
}

// TestView: whatever is lost, restarted or changed meanwhile, a view that says that it is whole shows exactly what the
// server had when it made the report; and it becomes whole as soon as it has read what NATS keeps, or what is lost
// there too has been said again.
func TestView(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		var s sender
		s.start()
		w := &wire{r: r, loss: 20, kept: map[string][]byte{}, to: status.NewView(), t: t}
		check := func(what string) {
			if !w.to.Whole() || w.to.Head.Number != s.number || w.to.Head.StartedAt != fmt.Sprintf("%09d", s.started) {
				return // it knows that it lacks something, or it has not heard the last report
			}
			if want := slices.Sorted(maps.Values(s.has)); !slices.Equal(shown(w.to), want) {
				t.Fatalf("seed %d, %s: it shows, or lacks, %.300q", seed, what, differing(shown(w.to), want))
			}
		}
		whole := 0
		for range 60 {
			for range r.IntN(20) {
				s.change(r)
			}
			s.say(t, w)
			check("a report")
			if w.to.Whole() {
				whole++
			}
			switch r.IntN(12) {
			case 0:
				w.read()
				check("read")
			case 1: // the receiver is started anew
				w.to = status.NewView()
				w.read()
				check("started")
			case 2: // the server is
				s.start()
			case 3: // NATS is, which loses what it keeps
				clear(w.kept)
				for _, m := range s.pages.Again(1) {
					var p status.XdsPage
					if err := json.Unmarshal(m.Data, &p); err != nil {
						t.Fatal(err)
					}
					w.publish(fmt.Sprint("page ", p.Page), m.Data)
				}
			}
		}
		if whole == 0 {
			t.Errorf("seed %d: it was never whole", seed)
		}
		w.loss = 0
		s.say(t, w)
		w.read()
		if !w.to.Whole() {
			t.Fatalf("seed %d: it is not whole after it has read everything", seed)
		}
		check("in the end")
	}
}

// TestOldServer: the reports of a server of a version without pages are understood, one replaces the other, and a
// server that is upgraded or set back begins anew.
func TestOldServer(t *testing.T) {
	v := status.NewView()
	old := func(proxies ...int) status.XdsStatus {
		s := status.XdsStatus{
			ID: "x", StartedAt: "1", Rejected: []status.RejectedResource{refused(1, 1)},
			Unresolved: []string{"name-1.test"},
		}
		for _, i := range proxies {
			p := proxy(i, 0)
			p.AppliedRevision = int64(i)
			s.Proxies = append(s.Proxies, p)
		}
		return s
	}
	moves := func(d status.Difference) string {
		var out []string
		for _, p := range d.Came {
			out = append(out, "+"+p.ID)
		}
		for _, p := range d.Went {
			out = append(out, fmt.Sprint("-", p.ID, " at ", p.AppliedRevision))
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	for _, c := range []struct {
		proxies []int
		want    string
	}{
		{[]int{1, 2}, "+envoy-1 +envoy-2"},
		{[]int{1, 2}, ""},
		{[]int{2, 3}, "+envoy-3 -envoy-1 at 1"},
	} {
		d, ok := v.Report(old(c.proxies...), true)
		if got := moves(d); !ok || got != c.want || !v.Whole() || len(v.Rejected()) != 1 || !v.Unresolved("name-1.test") {
			t.Errorf("%v: %q, want %q", c.proxies, got, c.want)
		}
	}
	var s sender
	s.started = 1
	s.start()
	s.pages.Put("a", proxy(2, 0))
	d, _ := v.Report(status.XdsStatus{ID: "x", StartedAt: "2", Pages: "something"}, true)
	if got := moves(d); !d.Anew || got != "-envoy-2 at 2 -envoy-3 at 3" || v.Whole() {
		t.Errorf("upgraded: %q", got)
	}
}
