package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
)

// ForTest runs a fresh system for a test, with settings of its environment where env has some, and ends it with the
// test.
func ForTest(t testing.TB, env []string, args ...string) *System {
	t.Helper()
	s, err := StartIn(t.Context(), env, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return s
}

// Want sends a request of the system's admin, which must be answered with a status, and returns the answer's JSON.
func (s *System) Want(t testing.TB, method, url string, body any, status int) map[string]any {
	t.Helper()
	got, raw, err := s.Call(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if got != status {
		t.Fatalf("%s %s: status %d, want %d: %s", method, url, got, status, raw)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatalf("%s %s: %v: %s", method, url, err, raw)
	}
	return out
}

// PutLive writes an object, whose path is that below /v1/, and says how long it took until it was live; an error where
// it did not get so.
func (s *System) PutLive(ctx context.Context, path, body string) (time.Duration, error) {
	t0 := time.Now()
	status, raw, err := s.Call(ctx, http.MethodPut, s.API+"/v1/"+path+"?wait=live", body)
	took := time.Since(t0)
	if err != nil {
		return 0, err
	}
	var answer struct{ Live api.Live }
	if err := json.Unmarshal(raw, &answer); err != nil || status >= 300 || !answer.Live.Live {
		return 0, fmt.Errorf("PUT %s: %d %s", path, status, raw)
	}
	return took, nil
}

// Eventually asks until there is nothing to complain of, for half a minute at most.
func Eventually(t testing.TB, complaint func() string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		c := complaint()
		if c == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(c)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}
