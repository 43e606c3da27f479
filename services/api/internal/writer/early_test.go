package writer_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

// large is a plan for many services at a port, a few parts of them, and for others.
func large(port uint32, others ...writer.Desired) writer.Planner {
	return func(st *config.State) (writer.Plan, error) {
		p := writer.Plan{Upserts: others}
		for i := range 3*store.Part + 7 {
			one, err := service(fmt.Sprint("many-", i), port)(st)
			if err != nil {
				return p, err
			}
			p.Upserts = append(p.Upserts, one.Upserts...)
		}
		return p, nil
	}
}

// stored counts the changes and objects of a revision that the database has.
func stored(t *testing.T, url string, revision int64) (changes, objects int64) {
	t.Helper()
	return pgtest.Value[int64](t, url, `SELECT count(*) FROM changes WHERE revision = $1`, revision),
		pgtest.Value[int64](t, url, `SELECT count(*) FROM resources WHERE revision = $1`, revision)
}

// TestLarge: what is stored while it is decided is stored whole, as one revision of one transaction, after what those
// before it in the group have made, whether it makes objects, changes or deletes them.
func TestLarge(t *testing.T) {
	url := pgtest.Database(t)
	a := open(t, url)
	const many = 3*store.Part + 7
	one := func(name string, port uint32) func() (writer.Result, error) {
		return func() (writer.Result, error) { return a.write(t.Context(), "one", service(name, port)) }
	}
	for round, plan := range []writer.Planner{
		large(1),
		large(2),
		func(*config.State) (p writer.Plan, err error) {
			for i := range many {
				p.Deletes = append(p.Deletes, resource.Ref{Kind: resource.KindService, Name: fmt.Sprint("many-", i)})
			}
			return p, nil
		},
	} {
		first := a.Revision() + 2 // after the one that the group waits for
		got := group(t, a, url,
			one("many-0", uint32(10+round)), // an object that the large write has as well
			func() (writer.Result, error) { return a.write(t.Context(), "large", plan) },
			one("last", uint32(10+round)),
		)
		for i, o := range got {
			if o.err != nil || o.result.Revision != first+int64(i) {
				t.Fatalf("round %d, write %d: revision %d, %v %v", round, i, o.result.Revision, o.err, o.panics)
			}
		}
		objects := int64(many)
		if round == 2 {
			objects = 0
		}
		if changes, now := stored(t, url, first+1); changes != many || now != objects || len(got[1].result.Changes) != many {
			t.Errorf("round %d: %d changes and %d objects are stored, %d said", round, changes, now, len(got[1].result.Changes))
		}
		if n := pgtest.Value[int64](t, url, `SELECT count(DISTINCT xmin::text) FROM revisions WHERE revision IN ($1, $2)`,
			first, first+1); n != 1 {
			t.Errorf("round %d: the group made %d transactions", round, n)
		}
	}
	consistent(t, a, url)
}

// TestLargeRefused: what was stored of a large write that is then refused, or changes nothing, is gone, and what was
// there before it in the transaction, and comes after it, stays.
func TestLargeRefused(t *testing.T) {
	url := pgtest.Database(t)
	a := open(t, url)
	bad, err := dangling(nil)
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(*config.State) (p writer.Plan, err error) {
		for i := range 2 * store.Part {
			p.Deletes = append(p.Deletes, resource.Ref{Kind: resource.KindService, Name: fmt.Sprint("nobody-", i)})
		}
		return p, nil
	}
	got := group(t, a, url,
		func() (writer.Result, error) { return a.write(t.Context(), "a", service("many-1", 9)) },
		func() (writer.Result, error) { return a.write(t.Context(), "refused", large(1, bad.Upserts...)) },
		func() (writer.Result, error) { return a.write(t.Context(), "nothing", nothing) },
		func() (writer.Result, error) { return a.write(t.Context(), "b", service("many-2", 9)) },
		func() (writer.Result, error) { return a.write(t.Context(), "large", large(2)) },
	)
	var refused *writer.Refused
	if got[0].err != nil || !errors.As(got[1].err, &refused) || got[2].err != nil || got[3].err != nil ||
		got[4].err != nil {
		t.Errorf("%v, %v, %v, %v, %v", got[0].err, got[1].err, got[2].err, got[3].err, got[4].err)
	}
	if n := len(got[2].result.Changes); n > 0 || got[4].result.Revision != 4 {
		t.Errorf("%d changes, at revision %d", n, got[4].result.Revision)
	}
	if n := pgtest.Value[int64](t, url, `SELECT count(*) FROM changes`); n != 3+3*store.Part+7 {
		t.Errorf("%d changes are stored", n)
	}
	consistent(t, a, url)
}

// TestLargeRefusedByDatabase: where the database refuses a part of it, none of it is stored, the error says why, and
// nobody else of the group suffers for it.
func TestLargeRefusedByDatabase(t *testing.T) {
	url := pgtest.Database(t)
	a := open(t, url)
	pgtest.Exec(t, url, fmt.Sprintf(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN IF NEW.name = 'many-%d' THEN RAISE 'not this one' USING ERRCODE = '53100'; END IF; RETURN NEW; END $$;
		CREATE TRIGGER refuse BEFORE INSERT ON changes FOR EACH ROW EXECUTE FUNCTION refuse()`, store.Part+3))
	got := group(t, a, url,
		func() (writer.Result, error) { return a.write(t.Context(), "a", service("a", 1)) },
		func() (writer.Result, error) { return a.write(t.Context(), "large", large(1)) },
		func() (writer.Result, error) { return a.write(t.Context(), "b", service("b", 1)) },
	)
	if got[0].err != nil || got[2].err != nil || !store.NotStored(got[1].err) || errors.Is(got[1].err, writer.ErrUnknown) {
		t.Errorf("%v, %v, %v", got[0].err, got[1].err, got[2].err)
	}
	pgtest.Exec(t, url, `DROP TRIGGER refuse ON changes`)
	consistent(t, a, url)
}
