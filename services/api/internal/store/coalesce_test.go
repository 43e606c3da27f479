package store_test

import (
	"fmt"
	"testing"
	"time"

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
