package writer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

// outcome is what a write of a group came to.
type outcome struct {
	result writer.Result
	err    error
	panics any
}

// group makes writes that are decided together: they come, one after the other, while a first one waits for the
// database.
func group(t *testing.T, a *api, url string, writes ...func() (writer.Result, error)) []outcome {
	t.Helper()
	release := pgtest.Hold(t, url, `SELECT FROM config_head FOR UPDATE`)
	defer release()
	out, returned := make([]outcome, len(writes)+1), make([]atomic.Bool, len(writes)+1)
	var wg sync.WaitGroup
	start := func(i int, write func() (writer.Result, error)) {
		wg.Go(func() {
			defer func() { out[i].panics = recover(); returned[i].Store(true) }()
			out[i].result, out[i].err = write()
		})
	}
	start(0, func() (writer.Result, error) {
		return a.write(t.Context(), "first", service("first", uint32(a.Revision()+1)))
	})
	pgtest.Waiting(t, url)
	for i, w := range writes {
		start(i+1, w)
		for limit := time.Now().Add(30 * time.Second); a.Waiting() < i+1 && !returned[i+1].Load(); {
			if time.Now().After(limit) {
				t.Fatalf("write %d does not come", i)
			}
			time.Sleep(time.Millisecond)
		}
	}
	release()
	wg.Wait()
	if out[0].err != nil {
		t.Fatal("the first write: ", out[0].err)
	}
	return out[1:]
}

// consistent says that the state in memory, that of a fresh reader and the handed over revisions are one.
func consistent(t *testing.T, a *api, url string) {
	t.Helper()
	b := open(t, url) // compares the objects with the head's hash
	if a.Revision() != b.Revision() {
		t.Errorf("at revision %d, the database at %d", a.Revision(), b.Revision())
	}
	for i, r := range a.published() {
		if r != int64(i+1) {
			t.Fatalf("handed over: %v", a.published())
		}
	}
	if n := pgtest.Value[int64](t, url, `SELECT count(*) FROM revisions`); n != a.Revision() ||
		int(n) != len(a.published()) {
		t.Errorf("%d revisions at %d, %d handed over", n, a.Revision(), len(a.published()))
	}
	if _, err := a.write(t.Context(), "last", service("last", 9)); err != nil {
		t.Error("the next write: ", err)
	}
	for _, e := range a.log.All() {
		t.Errorf("logged: %s %v", e.Message, e.ContextMap())
	}
}

// TestGroup: writes that wait are stored in one transaction, each as a revision of its own with its own author and
// answer, in the order in which they came, and each is decided in what those before it have made.
func TestGroup(t *testing.T) {
	url := pgtest.Database(t)
	a := open(t, url)
	var writes []func() (writer.Result, error)
	for i := range 20 {
		writes = append(writes, func() (writer.Result, error) {
			return a.write(t.Context(), fmt.Sprint("actor-", i), func(st *config.State) (writer.Plan, error) {
				if i > 0 && st.Get(resource.Ref{Kind: resource.KindService, Name: fmt.Sprint("s", (i-1)%5)}) == nil {
					return writer.Plan{}, errors.New("the write before is not there")
				}
				return service(fmt.Sprint("s", i%5), uint32(i+1))(st)
			})
		})
	}
	for i, o := range group(t, a, url, writes...) {
		if o.err != nil || o.result.Revision != int64(i+2) || len(o.result.Changes) != 1 ||
			o.result.Changes[0].After.Revision != int64(i+2) {
			t.Errorf("write %d: %+v %v", i, o.result, o.err)
		}
		if actor := pgtest.Value[string](t, url, `SELECT actor FROM revisions WHERE revision = $1`,
			i+2); actor != fmt.Sprint("actor-", i) {
			t.Errorf("revision %d is of %s", i+2, actor)
		}
		c := a.committed[i+1].Commit
		if c.Actor != fmt.Sprint("actor-", i) || len(c.Changes) != 1 || c.Changes[0].Name != fmt.Sprint("s", i%5) {
			t.Errorf("handed over: %+v", c)
		}
		stored, err := a.store.Revision(t.Context(), int64(i+2))
		if err != nil || stored.Commit.State[resource.KindService] != c.State[resource.KindService] {
			t.Errorf("the hash of revision %d is stored as %v, handed over as %v, %v", i+2, stored.Commit.State, c.State, err)
		}
	}
	if n := pgtest.Value[int64](t, url, `SELECT count(DISTINCT xmin::text) FROM revisions`); n != 2 {
		t.Errorf("21 writes made %d transactions", n)
	}
	consistent(t, a, url)
}

// TestGroupAlone: of a group each fails alone, without a trace, and a client that goes away takes nobody with it.
func TestGroupAlone(t *testing.T) {
	url := pgtest.Database(t)
	a := open(t, url)
	mine := errors.New("the plan's own")
	write := func(actor string, plan writer.Planner) func() (writer.Result, error) {
		return func() (writer.Result, error) { return a.write(t.Context(), actor, plan) }
	}
	keyed := func(request, name string) func() (writer.Result, error) {
		return func() (writer.Result, error) {
			return a.Write(t.Context(), writer.Meta{
				Who: auth.Identity{Name: "k", Role: auth.Admin}, Key: "key",
				Request: []byte(request),
			}, service(name, 1))
		}
	}
	gone, leave := context.WithCancel(t.Context())
	got := group(t, a, url,
		func() (writer.Result, error) { // leads the group
			return a.write(gone, "gone", func(st *config.State) (writer.Plan, error) { leave(); return service("a", 1)(st) })
		},
		write("refused", dangling),
		write("plan", func(*config.State) (writer.Plan, error) { return writer.Plan{}, mine }),
		write("same", service("a", 1)),
		keyed("x", "b"),
		keyed("x", "b"),
		keyed("y", "b"),
		write("last", service("c", 1)),
	)
	var refused *writer.Refused
	for i, ok := range []bool{
		got[0].err == nil && got[0].result.Revision == 2,
		errors.As(got[1].err, &refused),
		errors.Is(got[2].err, mine),
		got[3].err == nil && got[3].result.Unchanged == 1 && got[3].result.Revision == 2,
		got[4].err == nil && got[4].result.Revision == 3 && got[4].result.Replayed == nil,
		got[5].err == nil && got[5].result.Replayed != nil && string(got[5].result.Replayed.Response) == `{"revision":3}`,
		errors.Is(got[6].err, writer.ErrKeyReused),
		got[7].err == nil && got[7].result.Revision == 4,
	} {
		if !ok {
			t.Errorf("write %d: %+v %v %v", i, got[i].result, got[i].err, got[i].panics)
		}
	}
	consistent(t, a, url)
}

// TestGroupWithdrawn: who goes away while waiting is not written, and the others are.
func TestGroupWithdrawn(t *testing.T) {
	url := pgtest.Database(t)
	a := open(t, url)
	gone, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	got := group(t, a, url,
		func() (writer.Result, error) {
			defer close(left)
			return a.write(gone, "gone", service("gone", 1))
		},
		func() (writer.Result, error) { return a.write(t.Context(), "stays", service("stays", 1)) },
		func() (writer.Result, error) { leave(); <-left; return writer.Result{}, nil },
	)
	if !errors.Is(got[0].err, context.Canceled) || got[1].err != nil {
		t.Errorf("%+v", got)
	}
	if n := pgtest.Value[int64](t, url, `SELECT count(*) FROM resources WHERE name = 'gone'`); n != 0 ||
		a.Revision() != 2 {
		t.Errorf("%d at revision %d", n, a.Revision())
	}
	consistent(t, a, url)
}

// TestGroupPanic: a plan that panics does so in the request that it belongs to.
func TestGroupPanic(t *testing.T) {
	url := pgtest.Database(t)
	a := open(t, url)
	got := group(t, a, url,
		func() (writer.Result, error) { return a.write(t.Context(), "a", service("a", 1)) },
		func() (writer.Result, error) {
			return a.write(t.Context(), "panics", func(*config.State) (writer.Plan, error) { panic("a defect") })
		},
		func() (writer.Result, error) { return a.write(t.Context(), "b", service("b", 1)) },
	)
	if s, _ := got[1].panics.(string); !strings.HasPrefix(s, "a defect\n") || !strings.Contains(s, "writer_test.go") {
		t.Errorf("%v", got[1].panics)
	}
	if got[0].err != nil || got[2].err != nil || a.Revision() != 3 {
		t.Errorf("at revision %d: %+v", a.Revision(), got)
	}
	if n := a.log.FilterMessage("reading the whole configuration again").Len(); n != 1 {
		t.Errorf("the state was read again %d times", n)
	}
	a.log.TakeAll()
	consistent(t, a, url)
}

// TestGroupRefusedByDatabase: what the database refuses takes nobody else with it, and what was decided in the state
// that it would have made is decided again.
func TestGroupRefusedByDatabase(t *testing.T) {
	url := pgtest.Database(t)
	a := open(t, url)
	pgtest.Exec(t, url, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN IF NEW.actor = 'refused' THEN RAISE 'not this one' USING ERRCODE = '53100'; END IF; RETURN NEW; END $$;
		CREATE TRIGGER refuse BEFORE INSERT ON revisions FOR EACH ROW EXECUTE FUNCTION refuse()`)
	exists := errors.New("exists")
	got := group(t, a, url,
		func() (writer.Result, error) { return a.write(t.Context(), "a", service("a", 1)) },
		func() (writer.Result, error) { return a.write(t.Context(), "refused", service("b", 1)) },
		func() (writer.Result, error) {
			return a.write(t.Context(), "c", func(st *config.State) (writer.Plan, error) {
				if st.Get(resource.Ref{Kind: resource.KindService, Name: "b"}) != nil {
					return writer.Plan{}, exists
				}
				return service("c", 1)(st)
			})
		},
	)
	if got[0].err != nil || got[2].err != nil {
		t.Errorf("%v, %v", got[0].err, got[2].err)
	}
	if !store.NotStored(got[1].err) || errors.Is(got[1].err, writer.ErrUnknown) {
		t.Errorf("%v", got[1].err)
	}
	if a.Revision() != 3 {
		t.Errorf("at revision %d", a.Revision())
	}
	pgtest.Exec(t, url, `DROP TRIGGER refuse ON revisions`)
	consistent(t, a, url)
}

// TestGroupUnknown: where the connection is lost in the commit, nobody of the group knows whether it was stored; who
// was refused is refused. The next write finds out.
func TestGroupUnknown(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprint("stored=", stored), func(t *testing.T) {
			url := pgtest.Database(t)
			between := cutting(t, url)
			a := open(t, between.url)
			if !stored {
				pgtest.Exec(t, url, `CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS
					$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()) WHERE NEW.actor = 'cut'; RETURN NEW; END $$;
					CREATE TRIGGER cut BEFORE INSERT ON revisions FOR EACH ROW EXECUTE FUNCTION cut()`)
			}
			got := group(t, a, url,
				func() (writer.Result, error) { return a.write(t.Context(), "a", service("a", 1)) },
				func() (writer.Result, error) {
					return a.write(t.Context(), "cut", func(st *config.State) (writer.Plan, error) {
						between.armed.Store(stored) // the transaction has begun, so what follows is its commit
						return service("b", 1)(st)
					})
				},
				func() (writer.Result, error) { return a.write(t.Context(), "refused", dangling) },
			)
			var refused *writer.Refused
			if !errors.Is(got[0].err, writer.ErrUnknown) || !errors.Is(got[1].err, writer.ErrUnknown) ||
				!errors.As(got[2].err, &refused) {
				t.Errorf("%+v", got)
			}
			want := int64(1)
			if stored {
				want = 3
			}
			if n := pgtest.Value[int64](t, url, `SELECT revision FROM config_head`); n != want {
				t.Errorf("the database is at revision %d, want %d", n, want)
			}
			if res, err := a.write(t.Context(), "next", service("next", 9)); err != nil || res.Revision != want+1 {
				t.Errorf("the next write: %+v %v", res, err)
			}
			if n := a.log.Len(); n > 0 {
				t.Errorf("logged: %v", a.log.All())
			}
			open(t, url)
		})
	}
}

// TestManyWriters: whatever comes together, revisions are gapless, each write has its own, and all of them are there.
func TestManyWriters(t *testing.T) {
	url := pgtest.Database(t)
	a, b := open(t, url), open(t, url)
	const writers, writes = 16, 25
	var mu sync.Mutex
	var revisions []int64
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			for i := range writes {
				res, err := []*api{a, b}[n%2].write(t.Context(), fmt.Sprint(n), service(fmt.Sprint("s", n), uint32(i+1)))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				revisions = append(revisions, res.Revision)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(revisions)
	for i, r := range revisions {
		if r != int64(i+1) {
			t.Fatalf("revision %d is missing, or twice there", i+1)
		}
	}
	if len(revisions) != writers*writes {
		t.Errorf("%d revisions", len(revisions))
	}
	if n := pgtest.Value[int64](t, url, `SELECT count(DISTINCT xmin::text) FROM revisions`); n > writers*writes*2/3 {
		t.Errorf("%d writes made %d transactions", writers*writes, n)
	}
	for _, x := range []*api{a, b} {
		if !slices.IsSorted(x.published()) {
			t.Errorf("handed over: %v", x.published())
		}
		for _, e := range x.log.All() {
			t.Errorf("logged: %s %v", e.Message, e.ContextMap())
		}
	}
	open(t, url)
}
