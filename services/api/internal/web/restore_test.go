package web_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// TestLiveAfterRestore: an older backup was restored, and the Envoys still serve what was written after it, with
// revisions above those of the writes that come next. None of these is live, also where their numbers have come past
// the Envoys', until an Envoy serves what the database has; and then each is, whatever epoch that is in.
func TestLiveAfterRestore(t *testing.T) {
	s := serve(t)
	s.fill(1)
	serves := func(revision int64, state string) {
		s.board.Report(status.XdsStatus{
			ID: "x", Epoch: s.writer.Epoch(), Revision: revision, State: state,
			Live:    map[string]int64{resource.DefaultGateway: revision},
			Proxies: []status.ProxyStatus{{ID: "e", Gateway: resource.DefaultGateway}}, At: resource.Time(time.Now()),
		}, true)
	}
	lost := s.writer.Revision() + 3
	serves(lost, "what is lost")
	put := func(n int, timeout string) (o api.Object) {
		s.call(http.MethodPut, fmt.Sprintf("/v1/routes/r%d?wait=live&timeout=%s", n, timeout),
			fmt.Sprintf(`{"spec":{"hosts":["r%d.example.com"],"direct_response":{"status":200}}}`, n), &o)
		return o
	}
	for n := range 5 {
		if o := put(n%4, "50ms"); o.Live == nil || o.Live.Live || o.Live.State != "timeout" {
			t.Errorf("revision %d is %+v while the Envoy serves %d of another history", o.Revision, o.Live, lost)
		}
	}
	done := make(chan api.Object)
	go func() { done <- put(9, "20s") }()
	for end := time.Now().Add(10 * time.Second); s.writer.Revision() <= lost+1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the write is not stored: the last revision is %d", s.writer.Revision())
		}
	}
	if _, err := s.store.RenewEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.writer.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := s.writer.Revision()
	serves(now, s.writer.State(now))
	if o := <-done; !o.Live.Live {
		t.Errorf("revision %d is %+v", o.Revision, o.Live)
	}
}
