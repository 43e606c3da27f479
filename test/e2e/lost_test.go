package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

func epoch(t *testing.T, s *harness.System) (epoch string, revision float64) {
	t.Helper()
	st := call(t, s, "GET", s.API+"/v1/status", nil, 200)
	return st["epoch"].(string), st["revision"].(float64)
}

// TestOlderStream: NATS comes back with an older copy of its disk. Envoy serves on, and the stream becomes what
// the database is.
func TestOlderStream(t *testing.T) {
	s := start(t, "--no-demo")
	put(t, s, "kept", "old")
	put(t, s, "removed", "old")
	var copied string
	down(t, s, func() (err error) { copied, err = s.Backup(t.Context(), "nats", "old"); return err }, "nats")
	live(t, s, "kept", "new")
	live(t, s, "added", "new")
	call(t, s, "DELETE", s.API+"/v1/routes/removed?wait=live", nil, 200)
	before, _ := epoch(t, s)
	down(t, s, func() error {
		served(t, s, "kept", "new")
		return s.Restore(t.Context(), "nats", copied)
	}, "nats")
	served(t, s, "kept", "new")
	served(t, s, "added", "new")
	agree(t, s)
	if after, _ := epoch(t, s); after != before {
		t.Error("the database has a new epoch without reason")
	}
	served(t, s, "kept", "new")
	if status, _ := proxied(t, s, "removed.example.com", "/"); status != 404 {
		t.Errorf("a removed route answers %d", status)
	}
	live(t, s, "kept", "newer")
	agree(t, s)
}

// TestOlderDatabase: PostgreSQL comes back with an older copy, once alone and once with the stream gone as well,
// so that nobody but the xDS server knows better. What was written since is gone everywhere, and everybody agrees.
func TestOlderDatabase(t *testing.T) {
	s := start(t, "--no-demo")
	put(t, s, "kept", "old")
	put(t, s, "removed", "old")
	var copied string
	down(t, s, func() (err error) { copied, err = s.Backup(t.Context(), "postgres", "old"); return err },
		"postgres", "api")
	for _, also := range []string{"", "stream"} {
		t.Run("and "+also, func(t *testing.T) {
			live(t, s, "kept", "new")
			live(t, s, "lost", "new")
			if got, _, err := s.Call(t.Context(), "DELETE", s.API+"/v1/routes/removed?wait=live", nil); err != nil ||
				got != 200 {
				t.Fatalf("delete: %d %v", got, err)
			}
			agree(t, s)
			before, was := epoch(t, s)
			down(t, s, func() error {
				served(t, s, "kept", "new")
				if also == "stream" {
					if err := deleteStream(t.Context(), s); err != nil {
						return err
					}
				}
				return s.Restore(t.Context(), "postgres", copied)
			}, "postgres", "api")
			// The xDS server is on a new epoch when it serves what the backup has.
			eventually(t, func() string {
				if got, err := try(s, "kept.example.com"); err != nil || got != "old" {
					return fmt.Sprintf("the proxy answers %q %v", got, err)
				}
				return ""
			})
			agree(t, s)
			after, is := epoch(t, s)
			if after == before || is >= was {
				t.Errorf("revision %v of epoch %s after %v of %s", is, after, was, before)
			}
			served(t, s, "removed", "old")
			if status, _ := proxied(t, s, "lost.example.com", "/"); status != 404 {
				t.Errorf("a lost route answers %d", status)
			}
			// The api knows of its new life, also before it writes again.
			if st := call(t, s, "GET", s.API+"/v1/routes/kept", nil, 200)["status"].(map[string]any); st["state"] != "live" {
				t.Errorf("status %v", st)
			}
			live(t, s, "kept", "onwards")
			agree(t, s)
		})
	}
}

// TestNATSAway: the api takes writes while NATS is away, says that they are not live, and they are when NATS is back.
func TestNATSAway(t *testing.T) {
	s := start(t, "--no-demo")
	put(t, s, "r0", "before")
	n := 0
	down(t, s, func() error {
		for t0 := time.Now(); time.Since(t0) < 10*time.Second || n < 50; n++ {
			name := fmt.Sprintf("r%d", n%20)
			got, raw, err := s.Call(t.Context(), "PUT", s.API+"/v1/routes/"+name, direct(name, fmt.Sprint(n), nil))
			if err != nil || got > 201 {
				return errors.Join(fmt.Errorf("put %s: %d %s", name, got, raw), err)
			}
			if n == 0 {
				got, raw, err = s.Call(t.Context(), "PUT", s.API+"/v1/routes/waits?wait=live&timeout=1s", direct("waits", "x", nil))
				if err != nil || got != 202 {
					return errors.Join(fmt.Errorf("a write that cannot be live: %d %s", got, raw), err)
				}
			}
		}
		if status, body := proxied(t, s, "r0.example.com", "/"); status != 200 || body != "before" {
			return errors.New("the proxy does not serve: " + body)
		}
		return nil
	}, "nats")
	agree(t, s)
	for i := n - 20; i < n; i++ {
		served(t, s, fmt.Sprintf("r%d", i%20), fmt.Sprint(i))
	}
}
