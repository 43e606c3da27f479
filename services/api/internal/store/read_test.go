package store_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// plan is what EXPLAIN says of a step.
type plan struct {
	Node     string  `json:"Node Type"`
	Rows     float64 `json:"Actual Rows"`
	Loops    float64 `json:"Actual Loops"`
	Filtered float64 `json:"Rows Removed by Filter"`
	Recheck  float64 `json:"Rows Removed by Index Recheck"`
	Plans    []plan  `json:"Plans"`
}

// read is how many rows a plan has looked at.
func (p plan) read() float64 {
	n := p.Filtered + p.Recheck
	if len(p.Plans) == 0 {
		n += p.Rows * max(p.Loops, 1)
	}
	for _, x := range p.Plans {
		n += x.read()
	}
	return n
}

// TestListsByIndex: a page reads about as many rows as it shows, or as its filter fits, however many there are. What it
// shows is what fits, in order.
func TestListsByIndex(t *testing.T) {
	url := pgtest.Database(t)
	s := opened(t, url, secret)
	// In each thousand: one has an owner and a label, ten share a host, and twenty a service.
	const routes = 20_000
	pgtest.Exec(t, url,
		`INSERT INTO resources (kind, name, revision, payload) SELECT 'Route', 'r-' || to_char(n, 'FM00000'), n, json_strip_nulls(json_build_object(
			'kind', 'Route', 'name', 'r-' || to_char(n, 'FM00000'), 'revision', n,
			'owner', CASE WHEN n % 1000 = 1 THEN 'team-' || n / 10000 END,
			'labels', CASE WHEN n % 1000 = 1 THEN json_build_object('zone', 'z' || n / 10000, 'x', n::text) END,
			'spec', json_build_object('hosts', json_build_array('h' || n || '.example.com', 'shared-' || n / 10 || '.example.com'),
				'backends', json_build_array(json_build_object('service', 's' || n / 20), json_build_object('service', 'other')))))
		FROM generate_series(1, $1::int) AS n`, routes)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }() // read only
	name := func(n int) string { return fmt.Sprintf("r-%05d", n) }
	cases := map[string]struct {
		f           store.Filter
		first, last string
		n           int
		most        float64 // rows that may be read
	}{
		"first page":     {store.Filter{Limit: 101}, name(1), name(101), 101, 101},
		"late page":      {store.Filter{After: name(19000), Limit: 101}, name(19001), name(19101), 101, 101},
		"prefix":         {store.Filter{Prefix: "r-1500", Limit: 101}, name(15000), name(15009), 10, 20},
		"prefix, later":  {store.Filter{Prefix: "r-15", After: name(15500), Limit: 11}, name(15501), name(15511), 11, 11},
		"no such prefix": {store.Filter{Prefix: "s", Limit: 101}, "", "", 0, 0},
		"owner":          {store.Filter{Owner: "team-1", Limit: 101}, name(10001), name(19001), 10, 20},
		"owner, later":   {store.Filter{Owner: "team-1", After: name(15001), Limit: 2}, name(16001), name(17001), 2, 2},
		"label":          {store.Filter{LabelName: "zone", LabelValue: "z0", Limit: 101}, name(1), name(9001), 10, 40},
		"no such label":  {store.Filter{LabelName: "zone", LabelValue: "z9", Limit: 101}, "", "", 0, 0},
		"host":           {store.Filter{Host: "h777.example.com", Limit: 101}, name(777), name(777), 1, 4},
		"shared host":    {store.Filter{Host: "shared-77.example.com", Limit: 101}, name(770), name(779), 10, 40},
		"service":        {store.Filter{Service: "s77", Limit: 101}, name(1540), name(1559), 20, 80},
		"host and owner": {
			store.Filter{Host: "shared-100.example.com", Owner: "team-0", Limit: 101},
			name(1001),
			name(1001), 1, 80,
		},
		"part of a host":  {store.Filter{Host: "example.com", Limit: 101}, "", "", 0, 0},
		"service of none": {store.Filter{Service: "s99999", Limit: 101}, "", "", 0, 0},
	}
	pgtest.Exec(t, url, `ANALYZE resources`) // as the server does by itself within a minute
	for what, c := range cases {
		c.f.Kind = "Route"
		objects, _, err := s.Objects(t.Context(), c.f)
		if err != nil {
			t.Fatal(what, err)
		}
		first, last := "", ""
		if len(objects) > 0 {
			first, last = objects[0].Name, objects[len(objects)-1].Name
		}
		var names []string
		for _, o := range objects {
			names = append(names, o.Name)
		}
		if len(objects) != c.n || first != c.first || last != c.last || !slices.IsSorted(names) {
			t.Errorf("%s: %d from %s to %s: %v", what, len(objects), first, last, names)
		}
		sql, args := c.f.Query()
		if n, raw := explain(t, conn, sql, args); n > c.most {
			t.Errorf("%s: reads %v rows, may read %v: %s", what, n, c.most, raw)
		}
	}
}

// TestAuditByIndex: so does a page of the audit.
func TestAuditByIndex(t *testing.T) {
	url := pgtest.Database(t)
	s := opened(t, url, secret)
	// Each revision changes two objects, of a thousand; one revision in a thousand is somebody else's. A token is made
	// each thousand seconds.
	const revisions = 20_000
	pgtest.Exec(t, url, `INSERT INTO revisions (revision, at, actor, message, request_id, traceparent, state, change_count)
		SELECT n, '2026-01-01'::timestamptz + n * interval '1 s', CASE WHEN n % 1000 = 7 THEN 'rare' ELSE 'ci' END, '', '', '', '{}', 2
		FROM generate_series(1, $1::int) AS n`, revisions)
	pgtest.Exec(t, url, `INSERT INTO changes (revision, kind, name, after)
		SELECT n, kind, 'o' || n % 500, '{}' FROM generate_series(1, $1::int) AS n, unnest(ARRAY['Route', 'Service']) AS kind`, revisions)
	pgtest.Exec(t, url, `INSERT INTO token_changes (at, actor, request_id, action, name, role)
		SELECT '2026-01-01'::timestamptz + n * interval '1000 s', 'rare', '', 'create', 't' || n, 'viewer' FROM generate_series(1, 20) AS n`)
	pgtest.Exec(t, url, `ANALYZE`)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }() // read only
	at := func(seconds int) time.Time { return time.Date(2026, 1, 1, 0, 0, seconds, 0, time.UTC) }
	for what, c := range map[string]struct {
		f           store.AuditFilter
		first, last string
		n           int
		most        float64
	}{
		"first page": {store.AuditFilter{Limit: 101}, "20000 Service o0", "19951 Route o451", 101, 400},
		"late page": {store.AuditFilter{
			After: &store.AuditRow{At: at(5000), Revision: 5000, Kind: "Route", Name: "o0"},
			Limit: 101,
		}, "0 Token t5", "4950 Route o450", 101, 400},
		"the rest": {store.AuditFilter{
			After: &store.AuditRow{At: at(2), Revision: 2, Kind: "Service", Name: "o2"},
			Limit: 101,
		}, "2 Route o2", "1 Route o1", 3, 40},
		"actor": {store.AuditFilter{Actor: "rare", Limit: 101}, "0 Token t20", "7 Route o7", 60, 400},
		"object": {
			store.AuditFilter{Kind: "Route", Name: "o250", Limit: 101},
			"19750 Route o250",
			"250 Route o250", 40, 200,
		},
		"tokens": {store.AuditFilter{Kind: "Token", Limit: 5}, "0 Token t20", "0 Token t16", 5, 20},
	} {
		rows, err := s.Audit(t.Context(), c.f)
		if err != nil {
			t.Fatal(what, err)
		}
		said := func(r store.AuditRow) string { return fmt.Sprint(r.Revision, " ", r.Kind, " ", r.Name) }
		if len(rows) != c.n || said(rows[0]) != c.first || said(rows[len(rows)-1]) != c.last {
			t.Errorf("%s: %d from %s to %s", what, len(rows), said(rows[0]), said(rows[len(rows)-1]))
		}
		sql, args := c.f.Query()
		if n, raw := explain(t, conn, sql, args); n > c.most {
			t.Errorf("%s: reads %v rows, may read %v: %s", what, n, c.most, raw)
		}
	}
}

// explain runs a statement and says how many rows it has looked at.
func explain(t *testing.T, conn *pgx.Conn, sql string, args []any) (rows float64, raw []byte) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), `EXPLAIN (ANALYZE, FORMAT JSON) `+sql, args...).Scan(&raw); err != nil {
		t.Fatal(err)
	}
	var got []struct{ Plan plan }
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	return got[0].Plan.read(), raw
}
