package store_test

import (
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// revise makes revisions by SQL, an hour apart until now, each of which changes two objects.
func revise(t *testing.T, url string, from, to int) {
	t.Helper()
	pgtest.Exec(t, url, `INSERT INTO revisions (revision, at, actor, message, request_id, traceparent, state, change_count)
		SELECT n, now() - ($2 - n) * interval '1 hour', 'ci', '', '', '', '{}', 2 FROM generate_series($1::int, $2::int) AS n`, from, to)
	pgtest.Exec(t, url,
		`INSERT INTO changes (revision, kind, name, before, after) SELECT n, 'Service', 's' || k, to_json(repeat('x', 200)), '{}'
		FROM generate_series($1::int, $2::int) AS n, generate_series(1, 2) AS k`, from, to)
	pgtest.Exec(t, url, `UPDATE config_head SET revision = $1`, to)
}

// TestPrune: what is older, or more, than is to be kept goes; nothing goes that the stream's last commit may be
// compared with, nor the newest revision.
func TestPrune(t *testing.T) {
	for name, c := range map[string]struct {
		keep      store.Keep
		published int64
		oldest    int64
	}{
		"all":                {store.Keep{}, 5000, 1},
		"number":             {store.Keep{Revisions: 100}, 5000, 4901},
		"age":                {store.Keep{Age: 24*time.Hour + time.Minute}, 5000, 4976},
		"both, number first": {store.Keep{Revisions: 10, Age: 24 * time.Hour}, 5000, 4991},
		"both, age first":    {store.Keep{Revisions: 100, Age: 24*time.Hour + time.Minute}, 5000, 4976},
		"not published":      {store.Keep{Revisions: 100}, 3000, 3000},
		"nothing known":      {store.Keep{Revisions: 100}, 0, 1},
		"the newest stays":   {store.Keep{Age: time.Nanosecond}, 9000, 5000},
	} {
		t.Run(name, func(t *testing.T) {
			url := pgtest.Database(t)
			s := opened(t, url, secret)
			revise(t, url, 1, 5000)
			release := pgtest.Hold(t, url, `SELECT FROM config_head FOR UPDATE`) // a write does not wait, nor is it waited for
			n, _, err := s.Prune(t.Context(), c.keep, c.published, time.Now())
			release()
			if err != nil || n != c.oldest-1 {
				t.Errorf("%d have gone, %v", n, err)
			}
			if got, err := s.Oldest(t.Context()); err != nil || got != c.oldest {
				t.Errorf("the oldest is %d, want %d, %v", got, c.oldest, err)
			}
			if n := pgtest.Value[int64](t, url, `SELECT count(*) FROM revisions`); n != 5001-c.oldest {
				t.Errorf("%d revisions", n)
			}
			if n := pgtest.Value[int64](t, url, `SELECT count(*) FROM changes`); n != 2*(5001-c.oldest) {
				t.Errorf("%d changes", n)
			}
			if n := pgtest.Value[int64](t, url, `SELECT count(*) FROM audit WHERE action = 'update' AND `+
				`actor = 'ci'`); n != 2*(c.oldest-1) {
				t.Errorf("%d entries of what has gone", n)
			}
		})
	}
}

// TestPruneFreesSpace: where as much goes as comes, the tables do not grow; otherwise they would become six times as
// large.
func TestPruneFreesSpace(t *testing.T) {
	url := pgtest.Database(t)
	s := opened(t, url, secret)
	size, first := int64(0), int64(0)
	for round := range 12 {
		revise(t, url, round*2000+1, (round+1)*2000)
		if _, err := s.Adopt(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Prune(t.Context(), store.Keep{Revisions: 2000, Audit: time.Nanosecond}, int64(round+1)*2000,
			time.Now()); err != nil {
			t.Fatal(err)
		}
		pgtest.Exec(t, url, `VACUUM`) // as the server does by itself
		size = pgtest.Value[int64](t, url, `SELECT pg_total_relation_size('changes') + pg_total_relation_size('revisions') `+
			`+ pg_total_relation_size('audit') + pg_total_relation_size('audit_chain')`)
		if round == 1 {
			first = size
		}
	}
	if size > 2*first {
		t.Errorf("%d bytes after twelve rounds, %d after two", size, first)
	}
}
