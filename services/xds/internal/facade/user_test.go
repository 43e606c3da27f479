package facade

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOwnUser: a request of the server's own user gets its token where nothing says that it comes from somebody else.
// That another user's does not, TestLoopbackIsNoCredential shows with a real one.
func TestOwnUser(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	says := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Authorization"))
	})
	s := httptest.NewServer(AsUser(file, says))
	defer s.Close()
	for name, c := range map[string]struct {
		host, header, want string
	}{
		"plainly":             {"", "", "Bearer secret"},
		"by name":             {"localhost:19000", "", "Bearer secret"},
		"by IPv6":             {"[::1]", "", "Bearer secret"},
		"with a token":        {"", "Authorization: Bearer own", "Bearer own"},
		"under another name":  {"api-server:19000", "", ""},
		"of another address":  {"192.0.2.1", "", ""},
		"of a page":           {"", "Origin: https://evil.test", ""},
		"of a page's picture": {"", "Sec-Fetch-Site: cross-site", ""},
		"by a proxy":          {"", "X-Forwarded-For: 192.0.2.1", ""},
		"by Envoy":            {"", "X-Envoy-Expected-Rq-Timeout-Ms: 15000", ""},
		"by another proxy":    {"", "Via: 1.1 proxy", ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		if key, value, ok := strings.Cut(c.header, ": "); ok {
			req.Header.Set(key, value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %q %v, want %q", name, got, err, c.want)
		}
	}

	// From nowhere that the kernel knows.
	for _, remote := range []string{"127.0.0.1:1", "192.0.2.1:4000", "nonsense"} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/", nil)
		req.RemoteAddr = remote
		rec := httptest.NewRecorder()
		AsUser(file, says).ServeHTTP(rec, req)
		if rec.Body.String() != "" {
			t.Errorf("from %s: %q", remote, rec.Body)
		}
	}
}
