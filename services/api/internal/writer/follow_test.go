package writer_test

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

const again = "reading the whole configuration again"

// TestFollow: apis that write in turn follow each other at the cost of what was changed, deletes and several changes
// of one object among it; and a dry run sees what others have written.
func TestFollow(t *testing.T) {
	url := pgtest.Database(t)
	apis := []*api{open(t, url), open(t, url), open(t, url)}
	remove := func(name string) writer.Planner {
		return func(*config.State) (writer.Plan, error) {
			return writer.Plan{Deletes: []resource.Ref{{Kind: resource.KindService, Name: name}}}, nil
		}
	}
	for i := range 60 {
		plan := service(fmt.Sprint("s", i%7), uint32(i+1))
		if i%5 == 4 {
			plan = remove(fmt.Sprint("s", i%7))
		}
		a := apis[i%2] // the third only follows
		if _, err := a.write(t.Context(), "turn", plan); err != nil {
			t.Fatal(err)
		}
		if i%11 == 0 {
			if err := apis[2].Look(t.Context()); err != nil {
				t.Fatal(err)
			}
			if apis[2].Revision() != a.Revision() {
				t.Fatalf("at revision %d, others at %d", apis[2].Revision(), a.Revision())
			}
		}
	}
	res, err := apis[2].Write(t.Context(), writer.Meta{
		Who:    auth.Identity{Name: "dry", Role: auth.Admin},
		DryRun: true,
	}, func(st *config.State) (writer.Plan, error) {
		return remove(st.Names(resource.KindService)[0])(st)
	})
	if err != nil || res.Revision != max(apis[0].Revision(), apis[1].Revision()) || len(res.Changes) != 1 {
		t.Errorf("%+v %v", res, err)
	}
	if _, err := apis[2].write(t.Context(), "after", service("s1", 1000)); err != nil {
		t.Error(err)
	}
	for _, a := range apis {
		for _, e := range a.log.All() {
			t.Errorf("logged: %s %v", e.Message, e.ContextMap())
		}
	}
	open(t, url)
}

// TestDryRunWithoutLock: a dry run waits for nobody who writes.
func TestDryRunWithoutLock(t *testing.T) {
	url := pgtest.Database(t)
	a := open(t, url)
	release := pgtest.Hold(t, url, `SELECT FROM config_head FOR UPDATE`)
	defer release()
	res, err := a.Write(t.Context(), writer.Meta{Who: auth.Identity{Name: "dry", Role: auth.Admin}, DryRun: true},
		service("a", 1))
	if err != nil || len(res.Changes) != 1 || res.Revision != 0 {
		t.Errorf("%+v %v", res, err)
	}
}

// TestFollowReloads: where what is new does not tell everything, the whole configuration is read again, and the log
// says why.
func TestFollowReloads(t *testing.T) {
	for name, c := range map[string]struct{ sql, because string }{
		"epoch": {`UPDATE config_head SET epoch = gen_random_uuid()`, "another epoch"},
		"gone":  {`DELETE FROM changes WHERE revision = 2; DELETE FROM revisions WHERE revision = 2`, "not there any more"},
		"hash":  {`DELETE FROM changes WHERE revision = 2`, "does not make its hash"},
		"many": {
			fmt.Sprintf(`INSERT INTO changes (revision, kind, name) SELECT 2, 'Route', 'r' || n FROM generate_series(1,`+
				` %d) AS n`, store.MaxNews),
			"more than can be followed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := pgtest.Database(t)
			a, b := open(t, url), open(t, url)
			for i := range 3 {
				if _, err := a.write(t.Context(), "a", service(fmt.Sprint("s", i), 1)); err != nil {
					t.Fatal(err)
				}
			}
			pgtest.Exec(t, url, c.sql)
			if err := b.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
			if e := b.log.FilterMessage(again).All(); len(e) != 1 || !strings.Contains(e[0].ContextMap()["because"].(string),
				c.because) {
				t.Errorf("logged: %+v", e)
			}
			if _, err := b.write(t.Context(), "b", service("s9", 1)); err != nil || b.Revision() != 4 {
				t.Errorf("at revision %d, %v", b.Revision(), err)
			}
			open(t, url)
		})
	}
}

// TestLostKind: a database that has lost objects says so, also where a kind's are all gone.
func TestLostKind(t *testing.T) {
	for name, lose := range map[string]string{
		"one":  `DELETE FROM resources WHERE kind = 'Service' AND name = 'a'`,
		"kind": `DELETE FROM resources WHERE kind = 'Service'`,
		"all":  `DELETE FROM resources`,
	} {
		t.Run(name, func(t *testing.T) {
			url := pgtest.Database(t)
			a := open(t, url)
			if _, err := a.write(t.Context(), "a", func(*config.State) (writer.Plan, error) {
				var p writer.Plan
				for ref, spec := range map[resource.Ref]*configv1.Service{
					{Kind: resource.KindService, Name: "a"}: {Endpoints: []*configv1.Endpoint{{Host: "192.0.2.1", Port: 1}}},
					{Kind: resource.KindService, Name: "b"}: {Endpoints: []*configv1.Endpoint{{Host: "192.0.2.1", Port: 2}}},
				} {
					p.Upserts = append(p.Upserts, writer.Desired{Ref: ref, Spec: spec, Path: "$", SpecPath: "$"})
				}
				g := &configv1.Gateway{Listeners: []*configv1.Listener{{Name: "http", Port: 80}}}
				p.Upserts = append(p.Upserts, writer.Desired{
					Ref:  resource.Ref{Kind: resource.KindGateway, Name: "default"},
					Spec: g, Path: "$", SpecPath: "$",
				})
				return p, nil
			}); err != nil {
				t.Fatal(err)
			}
			pgtest.Exec(t, url, lose)
			box, err := seal.New("a secret of the test's own")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := writer.New(t.Context(), a.store, box, "", zap.NewNop(), func(store.Committed) {}); err == nil ||
				!strings.Contains(err.Error(), "does not agree with itself") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestOlderDatabase: an api that was there when an older backup was restored notices, whether it looks or writes, also
// where another one has written as much since; it forgets the states that the database does not have any more.
func TestOlderDatabase(t *testing.T) {
	for _, written := range []int{0, 1, 2, 3} {
		for _, looks := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d written, looks %t", written, looks), func(t *testing.T) {
				url := pgtest.Database(t)
				a := open(t, url)
				for i := range 4 {
					if _, err := a.write(t.Context(), "a", service(fmt.Sprint("s", i), 1)); err != nil {
						t.Fatal(err)
					}
				}
				lost := a.State(3)
				pgtest.Restore(t, url, 2)
				b := open(t, url)
				for i := range written {
					if _, err := b.write(t.Context(), "b", service(fmt.Sprint("b", i), 1)); err != nil {
						t.Fatal(err)
					}
				}
				if looks {
					if err := a.Look(t.Context()); err != nil || a.Revision() != b.Revision() {
						t.Errorf("at revision %d, the other at %d: %v", a.Revision(), b.Revision(), err)
					}
				}
				res, err := a.write(t.Context(), "a", service("last", 1))
				if err != nil || res.Revision != int64(2+written+1) || res.State == "" || res.State != a.State(res.Revision) {
					t.Errorf("%+v %v, remembered %q", res, err, a.State(res.Revision))
				}
				if a.State(3) == lost {
					t.Error("a state that is lost is remembered")
				}
				head, err := a.store.Head(t.Context())
				if err != nil || resource.Digest(head.State) != res.State {
					t.Errorf("the head is %+v, %v", head, err)
				}
				open(t, url) // or else the database does not agree with itself
			})
		}
	}
}
