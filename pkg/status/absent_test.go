package status_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// told is what a server's pages say of absent Envoys.
func told(t *testing.T, pages *status.Pages, v *status.View, started string) string {
	messages, err := pages.Say()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		var p status.XdsPage
		if err := json.Unmarshal(m.Data, &p); err != nil {
			t.Fatal(err)
		}
		v.Page(p, true)
	}
	v.Report(status.XdsStatus{ID: "x", StartedAt: started, Pages: pages.Digest(), At: resource.Time(time.Now())}, true)
	var out []string
	for a := range v.Absent {
		out = append(out, fmt.Sprint(a.Proxy.ID, " ", a.Awaited))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// TestAbsences: an xDS server tells who was connected to it and is not any more, over a restart too: then they are
// expected back for a while.
func TestAbsences(t *testing.T) {
	now := time.Now()
	envoy := func(name, address string) status.ProxyStatus {
		return status.ProxyStatus{ID: name, Gateway: "default", Address: address, ConnectedAt: address}
	}
	var first, second status.Absences
	pages, v := status.NewPages("x", "1"), status.NewView()
	pages.Put("two", envoy("two", "h2:1"))
	first.Went(envoy("one", "h1:1"), now)
	first.Write(pages, now)
	if got := told(t, pages, v, "1"); got != "one false" {
		t.Errorf("one has gone: %q", got)
	}
	second.Remember(v, now)
	pages, v = status.NewPages("x", "2"), status.NewView()
	for _, c := range []struct {
		after time.Duration
		came  string
		want  string
	}{
		{0, "", "one false, two true"},
		{time.Second, "one", "two true"},
		{status.Return, "", "two false"},
		{2 * time.Hour, "", ""},
	} {
		if c.came != "" {
			second.Came(envoy(c.came, "h1:2"))
		}
		second.Write(pages, now.Add(c.after))
		if got := told(t, pages, v, "2"); got != c.want {
			t.Errorf("after %s: %q, want %q", c.after, got, c.want)
		}
	}
	for i := range 300 {
		second.Went(envoy(fmt.Sprint("e", i), "h:1"), now.Add(3*time.Hour))
	}
	second.Write(pages, now.Add(3*time.Hour))
	if got := told(t, pages, v, "2"); strings.Count(got, "false") != 100 || !strings.Contains(got, "e299 ") {
		t.Errorf("of three hundred: %q", got)
	}
}
