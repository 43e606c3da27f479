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
)

// slow is an api that answers each document when the test says so.
type slow struct{ asked chan chan int64 }

func (s slow) Ask(context.Context, string, string) (int, []byte, error) {
	return http.StatusNoContent, nil, nil
}

func (s slow) Apply(ctx context.Context, _ []byte, _, _ string, _ time.Duration) (int, []byte, error) {
	answer := make(chan int64)
	s.asked <- answer
	select {
	case revision := <-answer:
		return http.StatusOK, fmt.Appendf(nil, `{"revision":%d}`, revision), nil
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
}

// remembered is a memory, and a view of no Envoy.
type remembered struct{ version string }

func (r *remembered) Version() string                    { return r.version }
func (r *remembered) SetVersion(version string, _ int64) { r.version = version }
func (r *remembered) Head() (int64, int64, bool)         { return 1, 1, true }
func (r *remembered) Proxies() int                       { return 0 }

// TestDocumentsAtOnce: a document whose Envoys take long does not hold up another one, and the version that is
// remembered is that of the later revision, in whatever order the answers come.
func TestDocumentsAtOnce(t *testing.T) {
	api, memory := slow{make(chan chan int64)}, &remembered{}
	h := New(api, memory, memory, zap.NewNop())
	post := func(version string) (answer chan<- int64, done <-chan int) {
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
	end := func(answer chan<- int64, done <-chan int, revision int64, want string) {
		t.Helper()
		answer <- revision
		if code := <-done; code != http.StatusOK {
			t.Errorf("status %d", code)
		}
		if memory.version != want {
			t.Errorf("after revision %d the version is %q, want %q", revision, memory.version, want)
		}
	}
	first, firstDone := post("first")
	second, secondDone := post("second")
	end(second, secondDone, 12, "second")
	end(first, firstDone, 11, "second")
	// The database is another one, older than the last document.
	third, thirdDone := post("third")
	end(third, thirdDone, 3, "third")
}
