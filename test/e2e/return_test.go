package e2e

import (
	"fmt"
	"testing"
)

// TestLiveOverARestart: a write right after the xDS server was killed waits for the Envoys to come back,
// which serve all the time, and the next request sees it.
func TestLiveOverARestart(t *testing.T) {
	s := start(t, "--no-demo")
	put := func(k, status int) map[string]any {
		t.Helper()
		body := fmt.Sprintf(`{"spec":{"direct_response":{"status":200,"body":"%d"}}}`, k)
		return call(t, s, "PUT", s.API+"/v1/routes/r?wait=live&timeout=30s", body, status)["live"].(map[string]any)
	}
	put(0, 201)
	for k := 1; k <= 5; k++ {
		old := s.Pid("xds")
		s.Kill("xds")
		eventually(t, func() string { // it serves again, and perhaps nobody is connected yet
			if status, _, err := s.Call(t.Context(), "GET", s.XDS+"/readyz", nil); err != nil || status != 200 ||
				s.Pid("xds") == old {
				return "xds does not come back"
			}
			return ""
		})
		if l := put(k, 200); l["state"] != "live" || l["proxies"] != 1.0 {
			t.Errorf("restart %d: %v", k, l)
		}
		if status, body := proxied(t, s, "any", "/"); status != 200 || body != fmt.Sprint(k) {
			t.Errorf("restart %d: %d %s", k, status, body)
		}
	}
}
