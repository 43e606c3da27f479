package writer_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

// heard is what a commit has said to another api.
type heard struct {
	revision int64
	whole    *store.Committed
}

// TestHear: a small commit tells the other apis all of it, so that they follow without a look at the database; a large
// one, and one that does not follow what an api has, have it look.
func TestHear(t *testing.T) {
	url := pgtest.Database(t)
	a, b := open(t, url), open(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	news, ended := make(chan heard, 100), make(chan struct{})
	go func() {
		defer close(ended)
		b.store.Listen(ctx, func(revision int64, whole *store.Committed) { news <- heard{revision, whole} })
	}()
	next := func(revision int64) heard {
		t.Helper()
		select {
		case h := <-news:
			if h.revision != revision {
				t.Fatalf("heard of revision %d, want %d", h.revision, revision)
			}
			return h
		case <-time.After(30 * time.Second):
			t.Fatal("nothing is heard")
			return heard{}
		}
	}
	next(0) // it listens
	write := func(p writer.Planner) {
		t.Helper()
		if _, err := a.write(t.Context(), "a", p); err != nil {
			t.Fatal(err)
		}
	}
	same := func(what string) {
		t.Helper()
		if b.Revision() != a.Revision() || b.State(b.Revision()) != a.State(a.Revision()) {
			t.Errorf("%s: at revision %d, the other at %d", what, b.Revision(), a.Revision())
		}
		for _, e := range b.log.All() {
			t.Errorf("%s: logged: %s %v", what, e.Message, e.ContextMap())
		}
	}
	hear := func(what string) {
		t.Helper()
		h := next(a.Revision())
		if h.whole == nil {
			t.Fatalf("%s: not all of it is said", what)
		}
		got, want := h.whole, a.committed[len(a.committed)-1]
		if len(got.Commit.State) == 0 { // of nothing
			got.Commit.State = want.Commit.State
		}
		if got.Follows != want.Follows || !reflect.DeepEqual(got.Commit, want.Commit) ||
			len(got.Objects) != len(want.Objects) || string(got.Objects[0].Payload()) != string(want.Objects[0].Payload()) {
			t.Errorf("%s: said %+v, was %+v", what, got, want)
		}
		// Nobody can read anything.
		free := pgtest.Hold(t, url, `LOCK TABLE config_head, revisions, changes, resources IN ACCESS EXCLUSIVE MODE`)
		limit, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := b.Hear(limit, *h.whole); err != nil {
			t.Error(what, err)
		}
		free()
		same(what)
	}
	write(service("s", 1))
	hear("made")
	write(service("s", 2))
	hear("changed")
	write(func(*config.State) (writer.Plan, error) {
		return writer.Plan{Deletes: []resource.Ref{{Kind: resource.KindService, Name: "s"}}}, nil
	})
	hear("deleted")

	write(func(*config.State) (writer.Plan, error) {
		s := &configv1.Service{}
		for i := range 300 {
			host := fmt.Sprintf("host-%s-%d.example.com", strings.Repeat("x", 20), i)
			s.Endpoints = append(s.Endpoints, &configv1.Endpoint{Host: host, Port: 1})
		}
		large := resource.Ref{Kind: resource.KindService, Name: "large"}
		return writer.Plan{Upserts: []writer.Desired{{Ref: large, Spec: s, Path: "$", SpecPath: "$"}}}, nil
	})
	if h := next(a.Revision()); h.whole != nil {
		t.Error("a large revision is said whole")
	}
	write(service("s", 3))
	missed := next(a.Revision()).whole
	if missed == nil {
		t.Fatal("not all of it is said")
	}
	if err := b.Hear(t.Context(), *missed); err != nil {
		t.Error(err)
	}
	same("one was missed")
	if err := b.Hear(t.Context(), *missed); err != nil {
		t.Error(err)
	}
	same("heard again")

	// What follows another state is not taken for what is next: the database went back, and was written anew.
	write(service("gone", 1))
	other := *next(a.Revision()).whole
	pgtest.Restore(t, url, a.Revision()-1)
	c := open(t, url)
	if _, err := c.write(t.Context(), "c", service("other", 1)); err != nil {
		t.Fatal(err)
	}
	next(c.Revision())
	if err := b.Hear(t.Context(), other); err != nil {
		t.Error(err)
	}
	if b.State(b.Revision()) != c.State(c.Revision()) && b.State(b.Revision()) != a.State(a.Revision()) {
		t.Error("neither what was said nor what the database has")
	}
	if _, err := b.write(t.Context(), "b", service("last", 1)); err != nil {
		t.Error(err)
	}
	open(t, url)
	cancel()
	<-ended
}
