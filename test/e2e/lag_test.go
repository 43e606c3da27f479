package e2e

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/api"
)

// TestHungEnvoy: an Envoy that answers no more is named by wait=live, with what it lacks, within the time that was
// asked for, and by the status and the metrics after some seconds; the list finds it, and when it goes on nothing lags.
func TestHungEnvoy(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	if got, l := liveRoute(t, s, "one", "20s"); got != 201 || !l.Live || len(l.WaitingFor) > 0 {
		t.Fatalf("%d %+v", got, l)
	}
	envoy := proxiesOf(t, s)[0]
	pid := s.Pid("envoy")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // runs before the system is stopped
	got, l := liveRoute(t, s, "two", "2s")
	if got != 202 || l.State != "timeout" || len(l.WaitingFor) != 1 || l.WaitingFor[0].ID != envoy.ID ||
		l.WaitingFor[0].AppliedRevision != envoy.AppliedRevision ||
		!l.WaitingFor[0].Sent || !strings.HasPrefix(l.WaitingFor[0].Resource, "ScopedRouteConfiguration ") ||
		l.WaitingFor[0].Since == "" {
		t.Fatalf("%d %+v", got, l)
	}
	if !strings.HasPrefix(l.Reason, "Envoy "+envoy.ID+" ("+envoy.Address+") of gateway default serves revision ") ||
		!strings.Contains(l.Reason, "has not answered") {
		t.Errorf("%q", l.Reason)
	}
	eventually(t, func() string {
		var st api.Status
		_, raw, err := s.Call(t.Context(), "GET", s.API+"/v1/status", nil)
		if err == nil {
			err = json.Unmarshal(raw, &st)
		}
		if err != nil || st.LaggingProxies != 1 || len(st.Lagging) != 1 || st.Lagging[0].ID != envoy.ID || len(st.Xds) != 1 ||
			st.Xds[0].LaggingProxies != 1 {
			return string(raw)
		}
		return ""
	})
	c.says(c.text("status"), "LAGGING", envoy.ID, "has not answered ScopedRouteConfiguration")
	c.says(c.text("proxies", "--state", "lagging"), envoy.ID, "LAGS since ")
	for part, want := range map[string]string{
		s.API: "marchproxy_api_lagging_proxies 1\n",
		s.XDS: `marchproxy_xds_proxy_lag_seconds{address="` + envoy.Address + `"`,
	} {
		if _, raw, err := s.Call(t.Context(), "GET", part+"/metrics", nil); err != nil ||
			!strings.Contains(string(raw), want) {
			t.Errorf("%s lacks %s (%v)", part, want, err)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got, l := liveRoute(t, s, "three", "20s"); got != 200 || !l.Live {
		t.Errorf("%d %+v", got, l)
	}
	eventually(t, func() string {
		for _, p := range proxiesOf(t, s) {
			if p.LaggingSince != "" || p.Connected && p.AppliedRevision < envoy.AppliedRevision+2 {
				return "it still lags"
			}
		}
		return ""
	})
}
