package facade

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/status"
)

// slow is an api that answers each document when the test says so.
type slow struct{ asked chan chan reply }

type reply struct {
	epoch    string
	revision int64
}

func (s slow) Ask(context.Context, string, string) (int, []byte, error) {
	return http.StatusNoContent, nil, nil
}

func (s slow) Apply(ctx context.Context, _ []byte, _, _ string, _ time.Duration) (int, []byte, error) {
	answer := make(chan reply)
	s.asked <- answer
	select {
	case a := <-answer:
		return http.StatusOK, fmt.Appendf(nil, `{"epoch":%q,"revision":%d}`, a.epoch, a.revision), nil
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
}

// remembered is a memory, and a view of no Envoy.
type remembered struct{ last status.Document }

func (r *remembered) Version() string { return r.last.Version }

func (r *remembered) Accepted(d status.Document) {
	if d.After(r.last) {
		r.last = d
	}
}

func (r *remembered) Head() (int64, int64, bool) { return 1, 1, true }
func (r *remembered) Proxies() int               { return 0 }

// TestDocumentsAtOnce: a document whose Envoys take long does not hold up another one, and the version that is
// remembered is that of the later revision, in whatever order the answers come.
func TestDocumentsAtOnce(t *testing.T) {
	api, memory := slow{make(chan chan reply)}, &remembered{}
	h := New(api, memory, memory, zap.NewNop())
	post := func(version string) (answer chan<- reply, done <-chan int) {
		t.Helper()
		status := make(chan int, 1)
		go func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/config?allow_empty=true",
				strings.NewReader(fmt.Sprintf(`{"version":%q,"services":[],"routes":[]}`, version))))
			status <- w.Code
		}()
		select {
		case a := <-api.asked:
			return a, status
		case code := <-status:
			t.Fatalf("document %s is answered with %d before the api was asked", version, code)
		case <-time.After(5 * time.Second):
			t.Fatalf("document %s waits for another one", version)
		}
		return nil, nil
	}
	end := func(answer chan<- reply, done <-chan int, epoch string, revision int64, want string) {
		t.Helper()
		answer <- reply{epoch, revision}
		if code := <-done; code != http.StatusOK {
			t.Errorf("status %d", code)
		}
		if memory.last.Version != want {
			t.Errorf("after revision %d the version is %q, want %q", revision, memory.last.Version, want)
		}
	}
	first, firstDone := post("first")
	second, secondDone := post("second")
	end(second, secondDone, "a", 12, "second")
	end(first, firstDone, "a", 11, "second")
	// The database was restored: its revisions are lower, and count anew.
	third, thirdDone := post("third")
	end(third, thirdDone, "b", 3, "third")
}
