package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// TestAbsentEnvoy: an Envoy that was killed is named in the answer to wait=live, which is 202 as for all that is not
// live, and shown with what it served last, until it is back.
func TestAbsentEnvoy(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	c.file("r.yaml", "kind: Route\nname: r\nspec: {hosts: [r.example.com], direct_response: {status: 200, body: five}}\n")
	put := func(body string) (int, api.Live) {
		t.Helper()
		return liveRoute(t, s, body, "20s")
	}
	if got, l := put("one"); got != 201 || !l.Live || len(l.Absent) > 0 {
		t.Fatalf("%d %+v", got, l)
	}
	served := proxiesOf(t, s)[0]
	if !served.Connected || served.LastSeenAt != "" {
		t.Errorf("%+v", served)
	}
	gone := func() string {
		got, l := put("two")
		if got != 202 || l.State != "no_proxies" || len(l.Absent) != 1 || l.Absent[0].ID != served.ID ||
			l.Absent[0].AppliedRevision != served.AppliedRevision {
			return fmt.Sprintf("%d %+v", got, l)
		}
		if want := "Envoy " + served.ID + " of gateway default is not connected since "; !strings.Contains(l.Reason, want) {
			return fmt.Sprintf("%q lacks %q", l.Reason, want)
		}
		all := proxiesOf(t, s)
		if len(all) != 1 || all[0].Connected || all[0].AppliedRevision != served.AppliedRevision || all[0].LastSeenAt == "" ||
			all[0].Xds != "dev" {
			return fmt.Sprintf("%+v", all)
		}
		return ""
	}
	err := s.Down(t.Context(), func() error {
		eventually(t, gone)
		c.says(c.text("status"), "no Envoy is connected", "GONE since ")
		_, e := c.run(3, "apply", "-f", "r.yaml", "--wait", "--timeout", "5s")
		c.says(e, "stored, but not live", served.ID)
		return nil
	}, "envoy")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if all := proxiesOf(t, s); len(all) != 1 || !all[0].Connected {
			return fmt.Sprintf("%+v", all)
		}
		return ""
	})
	if got, l := put("three"); got != 200 || !l.Live || len(l.Absent) > 0 {
		t.Errorf("back: %d %+v", got, l)
	}
}

// TestNobodyIsBackYet: xds and the api are killed together and are back before their Envoy is. It serves what it had,
// so that a write is neither live nor without proxies.
func TestNobodyIsBackYet(t *testing.T) {
	s := start(t, "--no-demo")
	if got, l := liveRoute(t, s, "one", "20s"); got != 201 || !l.Live {
		t.Fatalf("%d %+v", got, l)
	}
	pid := s.Pid("envoy")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // runs before the system is stopped
	olds := map[string]int{"api": s.Pid("api"), "xds": s.Pid("xds")}
	s.Kill("api", "xds")
	for part, url := range map[string]string{"api": s.API, "xds": s.XDS} {
		eventually(t, func() string {
			if got, _, err := s.Call(t.Context(), "GET", url+"/readyz", nil); err != nil || got != 200 ||
				s.Pid(part) == olds[part] {
				return part + " does not come back"
			}
			return ""
		})
	}
	if got, l := liveRoute(t, s, "two", "3s"); got != 202 || l.State != "timeout" ||
		!strings.Contains(l.Reason, "is not back yet") {
		t.Errorf("%d %+v", got, l)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got, l := liveRoute(t, s, "three", "40s"); got != 200 || !l.Live || l.Proxies != 1 {
		t.Errorf("back: %d %+v", got, l)
	}
	if got, body := proxied(t, s, "r.example.com", "/"); got != 200 || body != "three" {
		t.Errorf("%d %s", got, body)
	}
}

// TestClockOff: a node whose clock is off is named with its Envoy, since that judges the times of tokens.
func TestClockOff(t *testing.T) {
	s := start(t, "--no-demo")
	nc := s.JetStream(t).Conn()
	say := func() {
		t.Helper()
		raw, err := json.Marshal(status.AgentStatus{
			ID: "edge-7", At: resource.Time(time.Now().Add(95 * time.Second)),
			Envoy: "envoy-7", EnvoyGateway: "default",
		})
		if err == nil {
			err = nc.Publish(status.SubjectPrefix+"agent.edge-7", raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const want = "its clock is 1m35s ahead of the api's, so that envoy-7 accepts tokens that have ended, or " +
		"refuses good ones"
	eventually(t, func() string {
		say()
		var st api.Status
		_, raw, err := s.Call(t.Context(), "GET", s.API+"/v1/status", nil)
		if err == nil {
			err = json.Unmarshal(raw, &st)
		}
		if err != nil || len(st.Troubles) != 1 || st.Troubles[0].Part != "node edge-7" ||
			!strings.HasPrefix(st.Troubles[0].Reason, want) || st.Troubles[0].Since == "" {
			return fmt.Sprintf("%s %v", raw, err)
		}
		return ""
	})
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	c.says(c.text("status"), "TROUBLE", "node edge-7: its clock is 1m35s ahead")
	_, raw, err := s.Call(t.Context(), "GET", s.API+"/metrics", nil)
	if err != nil || !strings.Contains(string(raw), `marchproxy_api_clock_offset_seconds{part="node edge-7"} 9`) ||
		!strings.Contains(string(raw), `marchproxy_api_clock_offset_seconds{part="xds dev"} `) {
		t.Errorf("metrics: %v\n%s", err, raw)
	}
}
