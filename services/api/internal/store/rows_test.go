package store_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// wrong counts the rows whose columns are not what their payload says, in the words of the version that had the
// database generate them.
const wrong = `SELECT count(*) FROM resources
	WHERE columns_of IS DISTINCT FROM revision OR revision IS DISTINCT FROM (payload ->> 'revision')::bigint
	OR owner IS DISTINCT FROM payload ->> 'owner' OR labels IS DISTINCT FROM (payload -> 'labels')::jsonb
	OR hosts IS DISTINCT FROM (payload -> 'spec' -> 'hosts')::jsonb
	OR services IS DISTINCT FROM jsonb_path_query_array((payload -> 'spec' -> 'backends')::jsonb, '$[*].service')`

// TestColumns: what lists are filtered by is what the objects say, whether this api writes a row, changes it, or brings
// it back within one group, or an api of the version before does, which knows nothing of these columns.
func TestColumns(t *testing.T) {
	url := pgtest.Database(t)
	s := opened(t, url, secret)
	object := func(kind, name, owner string, labels map[string]string, spec proto.Message) func(int64) *resource.Object {
		return func(revision int64) *resource.Object {
			o, err := resource.New(resource.Ref{Kind: kind, Name: name}, spec)
			if err != nil {
				t.Fatal(err)
			}
			o.Owner, o.Labels, o.Revision = owner, labels, revision
			return o
		}
	}
	backends := func(services ...string) (out []*configv1.Backend) {
		for _, s := range services {
			out = append(out, &configv1.Backend{Service: s})
		}
		return out
	}
	bare := object(resource.KindRoute, "r", "", nil, &configv1.Route{})
	full := object(resource.KindRoute, "r", "team <a>", map[string]string{"zone": `z"1\`, "ü": "&"},
		&configv1.Route{Hosts: []string{"a.example.com", "*.example.com"}, Backends: backends("one", "two")})
	service := object(resource.KindService, "s", "x", map[string]string{"a": ""},
		&configv1.Service{Endpoints: []*configv1.Endpoint{{Host: "192.0.2.1", Port: 80}}})
	look := func(what string, rows int64) {
		t.Helper()
		if n := pgtest.Value[int64](t, url, wrong); n != 0 {
			t.Errorf("%s: %d rows have other columns than their payload", what, n)
		}
		if n := pgtest.Value[int64](t, url, `SELECT count(*) FROM resources`); n != rows {
			t.Errorf("%s: %d rows, want %d", what, n, rows)
		}
	}
	var before *resource.Object
	revision := int64(0)
	write := func(what string, rows int64, objects ...func(int64) *resource.Object) {
		t.Helper()
		tx, err := s.Begin(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var records []store.Record
		for _, make := range objects {
			revision++
			var o *resource.Object
			if make != nil {
				o = make(revision)
			}
			c := config.Change{Before: before, After: o}
			if o == nil || o.Name == "r" {
				before = o
			} else {
				c.Before = nil
			}
			records = append(records, store.Record{Revision: revision, At: time.Now(), Changes: []config.Change{c}})
		}
		if err := tx.Commit(t.Context(), records); err != nil {
			t.Fatal(what, err)
		}
		look(what, rows)
	}
	write("nothing said", 1, bare)
	write("everything said", 2, full, service)
	write("taken away", 2, bare)
	write("gone and made anew in one group", 2, nil, full)
	write("made and gone in one group", 1, nil, bare, nil)
	write("made twice in one group", 2, bare, full)

	// The statement of the version before.
	const old = `INSERT INTO resources (kind, name, revision, payload) VALUES ('Route', $1, $2, $3)
		ON CONFLICT (kind, name) DO UPDATE SET revision = excluded.revision, payload = excluded.payload`
	pgtest.Exec(t, url, old, "old", revision+1, string(full(revision+1).Payload()))
	look("made by the version before", 3)
	pgtest.Exec(t, url, old, "old", revision+2, string(bare(revision+2).Payload()))
	pgtest.Exec(t, url, old, "r", revision+3, string(bare(revision+3).Payload()))
	look("changed by the version before", 3)
}
