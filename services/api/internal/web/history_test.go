package web_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// services are the services by name, with their specs.
func (s *server) services() map[string]string {
	s.tb.Helper()
	var got api.ObjectList
	if code := s.call(http.MethodGet, "/v1/services?limit=1000", "", &got); code != http.StatusOK {
		s.tb.Fatal(code)
	}
	out := map[string]string{}
	for _, o := range got.Items {
		out[o.Name] = string(o.Spec)
	}
	return out
}

// random makes a change of one of a few services: it is created, changed or deleted.
func (s *server) random(rng *rand.Rand, port int) {
	s.tb.Helper()
	name := fmt.Sprint("s", rng.IntN(4))
	if rng.IntN(3) == 0 && s.call(http.MethodDelete, "/v1/services/"+name, "", nil) == http.StatusOK {
		return
	}
	body := fmt.Sprintf(`{"spec":{"endpoints":[{"host":"192.0.2.1","port":%d}]}}`, port)
	if code := s.call(http.MethodPut, "/v1/services/"+name, body, nil); code != http.StatusOK &&
		code != http.StatusCreated {
		s.tb.Fatal(code)
	}
}

// audited is how many entries the audit has of services.
func (s *server) audited() int {
	s.tb.Helper()
	n, cursor := 0, ""
	for {
		var got api.AuditList
		if code := s.call(http.MethodGet, "/v1/audit?kind=Service&limit=7&cursor="+cursor, "", &got); code != http.StatusOK {
			s.tb.Fatal(code)
		}
		n += len(got.Items)
		if cursor = got.NextCursor; cursor == "" {
			return n
		}
	}
}

// TestHistory compares diffs and rollbacks with what was there, before and after a part of the history has gone. What
// is kept is whole, what is gone is said to be, and the audit has all of it.
func TestHistory(t *testing.T) {
	s := serve(t)
	s.fill(0) // revision 1
	rng := rand.New(rand.NewPCG(3, 4))
	states := map[int]map[string]string{0: {}, 1: s.services()}
	const last = 30
	for n := 2; n <= last; n++ {
		s.random(rng, n)
		states[n] = s.services()
	}
	if got := s.writer.Revision(); got != last {
		t.Fatalf("%d revisions", got)
	}
	diff := func(n, against int) {
		t.Helper()
		var got api.Diff
		if code := s.call(http.MethodGet, fmt.Sprintf("/v1/revisions/%d/diff?against=%d", n, against), "",
			&got); code != http.StatusOK {
			t.Fatal(n, against, code)
		}
		is := maps.Clone(states[against])
		for _, x := range got.Changes {
			if x.Kind != "Service" {
				continue // the gateway, between 0 and 1
			}
			if string(x.Before) != is[x.Name] || (x.Action == "create") != (x.Before == nil) ||
				(x.Action == "delete") != (x.After == nil) {
				t.Errorf("diff of %d and %d: %+v, was %s", n, against, x, is[x.Name])
			}
			if is[x.Name] = string(x.After); x.After == nil {
				delete(is, x.Name)
			}
			if string(x.Before) == string(x.After) {
				t.Errorf("diff of %d and %d: %s has not changed", n, against, x.Name)
			}
		}
		if !maps.Equal(is, states[n]) {
			t.Errorf("diff of %d and %d makes %v, want %v", n, against, is, states[n])
		}
	}
	gone := func(method, path string, oldest int) {
		t.Helper()
		var p api.Problem
		if code := s.call(method, path, "", &p); code != http.StatusGone ||
			!strings.Contains(p.Detail, fmt.Sprintf("the oldest one that is kept is %d ", oldest)) {
			t.Errorf("%s %s: %d %s", method, path, code, p.Detail)
		}
	}
	for n := range last + 1 {
		for against := range last + 1 {
			diff(n, against)
		}
	}
	entries := s.audited()
	const oldest = last - 9
	if n, _, err := s.store.Prune(t.Context(), store.Keep{Revisions: 10}, last, time.Now()); err != nil || n != oldest-1 {
		t.Fatal(n, err)
	}
	var status api.Status
	if s.call(http.MethodGet, "/v1/status", "", &status); status.OldestRevision != oldest {
		t.Errorf("the status says %d, want %d", status.OldestRevision, oldest)
	}
	if n := s.audited(); n != entries {
		t.Errorf("the audit has %d entries, had %d", n, entries)
	}
	for n := oldest; n <= last; n++ {
		diff(n, oldest)
		diff(oldest, n)
		if code := s.call(http.MethodGet, fmt.Sprint("/v1/revisions/", n), "", nil); code != http.StatusOK {
			t.Error(n, code)
		}
	}
	for _, n := range []int{1, oldest - 1} {
		path := fmt.Sprint("/v1/revisions/", n)
		gone(http.MethodGet, path, oldest)
		gone(http.MethodGet, path+"/diff", oldest)
		gone(http.MethodPost, path+"/rollback", oldest)
		gone(http.MethodGet, fmt.Sprintf("/v1/revisions/%d/diff?against=%d", last, n), oldest)
	}
	gone(http.MethodGet, fmt.Sprintf("/v1/revisions/%d/diff", oldest), oldest) // against the one before
	for _, path := range []string{
		"/v1/revisions/999", "/v1/revisions/999/diff?against=30",
		"/v1/revisions/30/diff?against=999",
	} {
		if code := s.call(http.MethodGet, path, "", nil); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
	for _, n := range []int{oldest, last - 3, last, oldest + 2} {
		for _, query := range []string{"?dry_run=true", ""} {
			was := s.services()
			var res api.ApplyResult
			if code := s.call(http.MethodPost, fmt.Sprintf("/v1/revisions/%d/rollback%s", n, query), "",
				&res); code != http.StatusOK {
				t.Fatal(n, code)
			}
			now, want := s.services(), states[n]
			if query != "" {
				now, want = was, was
				for _, x := range res.Changes {
					if string(x.After) != states[n][x.Name] {
						t.Errorf("a dry run of a rollback to %d would make %s %s", n, x.Name, x.After)
					}
				}
			}
			if !maps.Equal(now, want) {
				t.Errorf("rolled back to %d: %v, want %v", n, slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(want)))
			}
		}
	}
	if n, _, err := s.store.Prune(t.Context(), store.Keep{Audit: time.Nanosecond}, last,
		time.Now().Add(time.Second)); err != nil || n != 0 {
		t.Error(n, err)
	}
	var left api.AuditList
	if s.call(http.MethodGet, "/v1/audit?limit=1000", "", &left); len(left.Items) == 0 ||
		left.Items[len(left.Items)-1].Revision != oldest {
		raw, _ := json.Marshal(left.Items[max(len(left.Items)-1, 0):])
		t.Errorf("of revisions that are kept the audit's oldest is %s", raw)
	}
}
