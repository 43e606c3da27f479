package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/test/harness"
)

// until asks what is wrong until nothing is, or the time is over.
func until(ctx context.Context, limit time.Duration, wrong func() string) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for t0 := time.Now(); ; {
		why := wrong()
		if why == "" {
			return nil
		}
		if time.Since(t0) > limit {
			return fmt.Errorf("after %s: %s", limit, why)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// put writes a route of the check's own, and returns the answer.
func put(ctx context.Context, s *harness.System, query string) (status int, answer struct {
	Live   api.Live
	Detail string
}, err error,
) {
	body := fmt.Sprintf(`{"spec":{"hosts":["check.example.com"],"direct_response":{"status":200,"body":"%d"}}}`,
		time.Now().UnixNano())
	status, raw, err := s.Call(ctx, http.MethodPut, s.API+"/v1/routes/check"+query, body)
	if err == nil {
		err = json.Unmarshal(raw, &answer)
	}
	return status, answer, err
}

// felt is when the part cannot do any more what it should: for the database the first write that is refused, for the
// others now.
func (p part) felt(ctx context.Context, s *harness.System) (time.Time, error) {
	if p.trouble != "database" {
		return time.Now(), nil
	}
	err := until(ctx, exhausted, func() string {
		if status, _, err := put(ctx, s, ""); err == nil && status < 300 {
			return "a full disk takes writes"
		}
		return ""
	})
	return time.Now(), err
}

// shown waits until the reason is in the status and, where it should be, at /readyz.
func (p part) shown(ctx context.Context, s *harness.System) error {
	return until(ctx, shown, func() string {
		status, raw, err := s.Call(ctx, http.MethodGet, s.API+"/v1/status", nil)
		if err != nil || !p.told(status, raw) {
			return fmt.Sprintf("status says %d %s %v", status, raw, err)
		}
		if !p.unready {
			return ""
		}
		status, raw, err = s.Call(ctx, http.MethodGet, s.API+"/readyz", nil)
		if err != nil || status != 503 || !strings.Contains(string(raw), p.reason) {
			return fmt.Sprintf("/readyz says %d %s %v", status, raw, err)
		}
		return ""
	})
}

// told says whether a status has the reason; without a database there is none but the error's text.
func (p part) told(status int, raw []byte) bool {
	var st api.Status
	if status != 200 || json.Unmarshal(raw, &st) != nil {
		return strings.Contains(string(raw), p.reason)
	}
	for _, t := range st.Troubles {
		if t.Part == p.trouble && strings.Contains(t.Reason, p.reason) {
			return true
		}
	}
	return false
}

// answers looks at what a write and the command line say while the disk is full.
func (p part) answers(ctx context.Context, s *harness.System) error {
	timeout := "10s" // with a load that is always ahead
	if p.unready {
		timeout = "2s"
	}
	status, answer, err := put(ctx, s, "?wait=live&timeout="+timeout)
	if err != nil {
		return err
	}
	switch {
	case p.trouble == "stream" && status == 202 && strings.Contains(answer.Live.Reason, p.reason):
	case p.trouble == "database" && status == 503 && strings.Contains(answer.Detail, p.reason):
	case p.name == "xds" && status < 300 && answer.Live.Live:
	default:
		return fmt.Errorf("a write is answered with %d %+v", status, answer)
	}
	out, err := s.CLI(ctx, "status").CombinedOutput()
	var exit *exec.ExitError
	if !strings.Contains(string(out), p.reason) || (p.unready && !errors.As(err, &exit)) {
		return fmt.Errorf("marchproxy status says %s %w", out, err)
	}
	return nil
}

// well waits until a write is live and nothing is wrong any more.
func (p part) well(ctx context.Context, s *harness.System) error {
	return until(ctx, recovered, func() string {
		status, answer, err := put(ctx, s, "?wait=live&timeout=5s")
		if err != nil || status >= 300 || !answer.Live.Live || status == 202 {
			return fmt.Sprintf("a write is answered with %d %+v %v", status, answer, err)
		}
		var st api.Status
		status, raw, err := s.Call(ctx, http.MethodGet, s.API+"/v1/status", nil)
		if err != nil || status != 200 || json.Unmarshal(raw, &st) != nil || len(st.Troubles) > 0 {
			return fmt.Sprintf("status says %d %s %v", status, raw, err)
		}
		if status, raw, err = s.Call(ctx, http.MethodGet, s.API+"/readyz", nil); err != nil || status != 200 {
			return fmt.Sprintf("/readyz says %d %s %v", status, raw, err)
		}
		return ""
	})
}
