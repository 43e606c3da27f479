package relay_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/relay"
)

// TestProgress: a publication that takes long says how far it is, in the log and to who asks, and nothing once it is
// done.
func TestProgress(t *testing.T) {
	t.Cleanup(relay.SetSpoken(20 * time.Millisecond)) // before what start cleans up
	server := natstest.Start(t)
	a := start(t, server, pgtest.Database(t))
	a.put("before", "one")
	a.agree()
	names := make([]string, 20000)
	for i := range names {
		names[i] = fmt.Sprint("n", i)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.put("many", names...)
	}()
	seen := false
	for end := time.Now().Add(patience); !seen; time.Sleep(time.Millisecond) {
		for _, p := range a.relay.Progress() {
			seen = seen || p.Who == "stream" && p.What == "publishing revision 2" && p.Done > 0 && p.Done < p.Total &&
				p.Total == int64(len(names)) && p.Since != ""
		}
		if time.Now().After(end) {
			t.Fatalf("nothing is said: %+v", a.relay.Progress())
		}
	}
	<-ended
	a.agree()
	if p := a.relay.Progress(); p != nil {
		t.Errorf("it goes on: %+v", p)
	}
	said := 0
	for _, e := range history(server).FilterMessageSnippet("publishing revision 2: ").All() {
		if strings.Contains(e.Message, " of 20000, for ") {
			said++
		}
	}
	if said == 0 {
		t.Errorf("the log has %v", history(server).All())
	}
}
