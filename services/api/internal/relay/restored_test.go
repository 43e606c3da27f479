package relay_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// backup is a database as it was, and then more was written and published.
func backup(t *testing.T, server *natstest.Server, more int) (url string, before store.Head) {
	t.Helper()
	now := pgtest.Database(t)
	a := start(t, server, now)
	a.put("kept", "a", "b")
	a.agree()
	a.stop()
	url = pgtest.Copy(t, now)
	a = start(t, server, now)
	for i := range more {
		a.put(fmt.Sprint("lost ", i), "a", "lost")
	}
	before = a.agree()
	a.stop()
	return url, before
}

// TestOlderDatabase: the database is restored from an older backup. A new epoch tells a life of its own from
// a delay, also where the restored database has written as much as the old one, or more, before anybody looked.
func TestOlderDatabase(t *testing.T) {
	for _, written := range []int{0, 1, 3, 5} {
		t.Run(fmt.Sprint(written, " written"), func(t *testing.T) {
			server := natstest.Start(t)
			url, before := backup(t, server, 3)
			server.Stop()
			server.Start()
			a := write(t, server, url, written)
			if after := a.agree(); after.Epoch == before.Epoch || after.Revision != before.Revision-3+int64(written) {
				t.Errorf("revision %d of epoch %s after %d of %s", after.Revision, after.Epoch, before.Revision, before.Epoch)
			}
			a.put("onwards", "a")
			a.agree()
		})
	}
}

// TestOlderDatabaseMeanwhile: the older backup is restored under the api that leads, and whoever writes next is there
// before the relay has looked: this api, or another one. The stream becomes what the database is, and never a mixture.
func TestOlderDatabaseMeanwhile(t *testing.T) {
	for _, who := range []string{"this", "another"} {
		for written := 1; written <= 4; written++ {
			t.Run(fmt.Sprint(who, " api writes ", written), func(t *testing.T) {
				server, url := natstest.Start(t), pgtest.Database(t)
				a := start(t, server, url)
				a.put("kept", "a")
				a.put("lost", "b")
				a.put("lost", "c")
				before := a.agree()
				pgtest.Restore(t, url, before.Revision-2)
				writes := a
				if who == "another" {
					writes = start(t, server, url)
				}
				for i := range written {
					writes.put("another life", fmt.Sprint("d", i))
				}
				a.relay.Wake()
				if after := a.agree(); after.Epoch == before.Epoch || after.Revision != before.Revision-2+int64(written) {
					t.Errorf("revision %d of epoch %s after %d of %s", after.Revision, after.Epoch, before.Revision, before.Epoch)
				}
			})
		}
	}
}

// write makes revisions while NATS is stopped, so that the relay comes late.
func write(t *testing.T, server *natstest.Server, url string, n int) *api {
	t.Helper()
	a := start(t, server, url)
	if n > 0 {
		server.Stop()
		for i := range n {
			a.put(fmt.Sprint("another life ", i), "a")
		}
		server.Start()
	}
	return a
}

// TestBothOlder: database and stream are restored from backups at once, so that neither contradicts the other. An
// xDS server that serves more than there is does.
func TestBothOlder(t *testing.T) {
	server := natstest.Start(t)
	url, before := backup(t, server, 3)
	_, js := server.Connect()
	if err := js.DeleteStream(t.Context(), stream.Name); err != nil {
		t.Fatal(err)
	}
	a := start(t, server, url)
	if head := a.agree(); head.Epoch != before.Epoch {
		t.Fatal("nobody knew")
	}
	a.relay.Served(before.Epoch, before.Revision)
	sub, err := a.nc.SubscribeSync(stream.RevisionSubject)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sub.NextMsg(patience); err != nil {
		t.Fatal(err)
	}
	if head := a.agree(); head.Epoch == before.Epoch {
		t.Error("no new epoch")
	}
	a.relay.Served(before.Epoch, before.Revision) // it has not heard of it yet
	epoch := a.agree().Epoch
	a.put("onwards", "a")
	if got := a.agree().Epoch; got != epoch {
		t.Error("an epoch for nothing")
	}
	if names := []string{"a", "b"}; !slices.Equal(names, a.names()) {
		t.Errorf("the stream has %v", a.names())
	}
}

func (a *api) names() []string {
	a.t.Helper()
	table, err := stream.Table(a.t.Context(), a.js)
	a.must(err)
	var out []string
	for ref, o := range table {
		if !o.Deleted {
			out = append(out, ref.Name)
		}
	}
	slices.Sort(out)
	return out
}
