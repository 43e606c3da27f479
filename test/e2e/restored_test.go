package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

// TestLiveAfterOlderDatabase: an older database is restored under the running system, and the very first writes ask to
// be told when they are live. Whenever that is said Envoy serves what the database has, and nothing of what was written
// after the backup: where the api was there all the time, where it was restarted too and knows of nothing, where the
// stream is gone as well, and where another api answers. It is said soon.
func TestLiveAfterOlderDatabase(t *testing.T) {
	s := start(t, "--no-demo")
	put(t, s, "kept", "old")
	var copied string
	down(t, s, func() (err error) { copied, err = s.Backup(t.Context(), "postgres", "old"); return err },
		"postgres", "api")
	live(t, s, "kept", "old")
	second, err := s.StartAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := second.Stop(); err != nil {
			t.Error(err)
		}
	}()
	for round := range 8 {
		name, url, parts := "alive", s.API, []string{"postgres"}
		switch round % 4 {
		case 1:
			name, parts = "restarted", []string{"postgres", "api"}
		case 2:
			name, parts = "stream gone", []string{"postgres", "api"}
		case 3:
			name, url = "another api", second.URL
		}
		t.Run(fmt.Sprint(name, " ", round), func(t *testing.T) {
			for i := range 5 {
				live(t, s, "kept", fmt.Sprint("new ", i))
			}
			live(t, s, "lost", "new")
			down(t, s, func() error {
				if name == "stream gone" {
					if err := deleteStream(t.Context(), s); err != nil {
						return err
					}
				}
				return s.Restore(t.Context(), "postgres", copied)
			}, parts...)
			began := time.Now()
			i := 0
			for ; ; i++ {
				body := fmt.Sprintf("%d of round %d", i, round)
				said, err := writeLive(t, s, url, "mark", body)
				if said {
					restored(t, s, body)
					break
				}
				if time.Since(began) > 90*time.Second {
					t.Fatalf("nothing is live: %v", err)
				}
				if err != nil {
					// The api, or its database, is not there yet.
					time.Sleep(time.Millisecond)
				}
			}
			t.Logf("live after %s, at the write %d", time.Since(began).Round(time.Millisecond), i)
			agree(t, s)
		})
	}
}

// writeLive writes a route, and says whether the api says that it is live; an error says why not.
func writeLive(t *testing.T, s *harness.System, url, name, body string) (bool, error) {
	t.Helper()
	got, raw, err := s.Call(t.Context(), http.MethodPut, url+"/v1/routes/"+name+"?wait=live", direct(name, body, nil))
	var answer struct{ Live struct{ Live bool } }
	if err != nil || got > 201 || json.Unmarshal(raw, &answer) != nil {
		return false, errors.Join(err, fmt.Errorf("%d %s", got, raw))
	}
	return answer.Live.Live, nil
}

// restored fails unless Envoy serves what the backup has and what was written since.
func restored(t *testing.T, s *harness.System, mark string) {
	t.Helper()
	served(t, s, "mark", mark)
	served(t, s, "kept", "old")
	if status, body := proxied(t, s, "lost.example.com", "/"); status != 404 {
		t.Fatalf("a lost route answers %d %q", status, body)
	}
}
