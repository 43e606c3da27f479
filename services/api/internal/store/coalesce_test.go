package store_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// TestCoalesce: of what was found, the last of each hour stays, and so does a revision that has anything else in it.
// The audit has every entry, and its chain fits as before.
func TestCoalesce(t *testing.T) {
	url := pgtest.Database(t)
	s := opened(t, url, secret)
	now := time.Now().Truncate(time.Hour)
	// A set that changes each ten minutes for five hours; each seventh revision changes a service as well.
	const last = 30
	pgtest.Exec(t, url, `INSERT INTO revisions (revision, at, actor, message, request_id, traceparent, state, change_count)
		SELECT n, $2::timestamptz - (31 - n) * interval '10 minutes', 'discover', '', '', '', '{}', 1 FROM generate_series(1, $1::int) AS n`, last, now)
	pgtest.Exec(t, url, `INSERT INTO changes (revision, kind, name, before, after)
		SELECT n, 'EndpointSet', 'web', CASE WHEN n > 1 THEN '{}'::json END, '{}' FROM generate_series(1, $1::int) AS n`,
		last)
	pgtest.Exec(t, url, `INSERT INTO changes (revision, kind, name, after) SELECT n, 'Service', 's' || n, '{}' FROM `+
		`generate_series(7, $1::int, 7) AS n`, last)
	pgtest.Exec(t, url, `UPDATE config_head SET revision = $1`, last)
	if _, err := s.Adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := verified(t, s, "")
	if before.Broken != nil || before.Records != last {
		t.Fatalf("%+v %+v", before, before.Broken)
	}
	kinds := []string{"EndpointSet"}
	if n, err := s.Coalesce(t.Context(), kinds, 1, now); err != nil || n != 0 {
		t.Errorf("%d have gone while nothing is known to be published, %v", n, err)
	}
	release := pgtest.Hold(t, url, `SELECT FROM config_head FOR UPDATE`) // a write does not wait, nor is it waited for
	n, err := s.Coalesce(t.Context(), kinds, last, now)
	release()
	// Revisions 1 to 6 are of the first hour, and so on; the newest hour of the clock is left alone.
	if want := int64(4*5 - 3); err != nil || n != want {
		t.Errorf("%d have gone, want %d, %v", n, want, err)
	}
	kept := pgtest.Value[string](t, url, `SELECT string_agg(revision::text, ' ' ORDER BY revision) FROM revisions`)
	if want := "6 7 12 14 18 21 24 25 26 27 28 29 30"; kept != want {
		t.Errorf("revisions %s are kept, want %s", kept, want)
	}
	if after := verified(t, s, ""); after.Broken != nil || after.Last != before.Last || after.Entries != before.Entries {
		t.Errorf("the audit: %+v %+v, before %+v", after, after.Broken, before)
	}
	rows, err := s.Audit(t.Context(), store.AuditFilter{Kind: "EndpointSet", Limit: 100})
	if err != nil || len(rows) != last {
		t.Errorf("the audit tells of %d changes, %v", len(rows), err)
	}
	for i, r := range rows {
		if r.Revision != int64(last-i) {
			t.Fatal(fmt.Sprint("the audit's order: ", i, r.Revision))
		}
	}
}

// TestCoalescedDiff: a diff from before changes that have been coalesced has all of them, wherever their batches end, and
// of what was not there yet that it was made.
func TestCoalescedDiff(t *testing.T) {
	url := pgtest.Database(t)
	s := opened(t, url, secret)
	now := time.Now().Truncate(time.Hour)
	// Two sets change by turns, one of which was there before; then a service does.
	set := func(name, n string) string {
		return `json_build_object('kind', 'EndpointSet', 'name', ` + name + `, 'revision', ` + n +
			`, 'spec', json_build_object('service', 'at-' || ` + n + `))`
	}
	pgtest.Exec(t, url, `INSERT INTO revisions (revision, at, actor, message, request_id, traceparent, state, change_count)
		SELECT n, $1::timestamptz - CASE WHEN n < 3 THEN interval '5 hours' ELSE interval '3 hours' END, 'discover', '', '', '', '{}', 1
		FROM generate_series(1, 11) AS n`, now)
	pgtest.Exec(t, url, `INSERT INTO changes (revision, kind, name, before, after)
		SELECT n, 'EndpointSet', CASE n % 2 WHEN 0 THEN 'old' ELSE 'new' END,
			CASE WHEN n > 4 THEN `+set(`CASE n % 2 WHEN 0 THEN 'old' ELSE 'new' END`, `n - 2`)+`
				WHEN n = 4 THEN `+set(`'old'`, `2`)+` END,
			`+set(`CASE n % 2 WHEN 0 THEN 'old' ELSE 'new' END`, `n`)+`
		FROM generate_series(2, 10) AS n WHERE n <> 1`)
	pgtest.Exec(t, url, `INSERT INTO changes (revision, kind, name, after) SELECT n, 'Service', 's' || n,
		json_build_object('kind', 'Service', 'name', 's' || n, 'spec', '{}'::json) FROM (VALUES (1), (11)) AS v (n)`)
	pgtest.Exec(t, url, `UPDATE config_head SET revision = 11`)
	if _, err := s.Adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	whole := diff(t, s, 2, 11)
	for _, published := range []int64{6, 11} { // as in two batches
		if _, err := s.Coalesce(t.Context(), []string{"EndpointSet"}, published, now); err != nil {
			t.Fatal(err)
		}
	}
	kept := pgtest.Value[string](t, url, `SELECT string_agg(revision::text, ' ' ORDER BY revision) FROM revisions`)
	if kept != "1 2 9 10 11" {
		t.Fatalf("revisions %s are kept", kept)
	}
	const want = "new: nothing to at-9, old: at-2 to at-10, s11: nothing to nothing"
	if got := diff(t, s, 2, 11); whole != want || got != want {
		t.Errorf("from before them\n%s, and before\n%s, want\n%s", got, whole, want)
	}
	if got, want := diff(t, s, 9, 11), "old: at-8 to at-10, s11: nothing to nothing"; got != want {
		t.Errorf("from among them %s, want %s", got, want)
	}
}

// diff is what differs, in words.
func diff(t *testing.T, s *store.Store, from, to int64) string {
	t.Helper()
	rows, err := s.Between(t.Context(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	says := func(o *resource.Object) string {
		var spec struct{ Service string }
		if o == nil || json.Unmarshal(o.Spec, &spec) != nil || spec.Service == "" {
			return "nothing"
		}
		return spec.Service
	}
	var out []string
	for _, r := range rows {
		out = append(out, cmp.Or(r.After, r.Before).Name+": "+says(r.Before)+" to "+says(r.After))
	}
	return strings.Join(out, ", ")
}
