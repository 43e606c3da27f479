package client

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/api"
)

// TestForeign: what is no api is said to be none, whatever JSON it answers with.
func TestForeign(t *testing.T) {
	for name, c := range map[string]struct {
		status      int
		media, body string
		id          bool
	}{
		"an empty object":          {200, "application/json", `{}`, true},
		"another server's object":  {200, "application/json", `{"hello":"you"}`, true},
		"a list as Kubernetes has": {200, "application/json", `{"kind":"NodeList","items":[]}`, false},
		"a list":                   {200, "application/json", `[]`, true},
		"a text":                   {200, "text/plain", `hello`, true},
		"of another type":          {200, "application/json", `{"items":"none"}`, true},
		"not found, as Spring": {
			404, "application/json", `{"status":404,"error":"Not Found","path":"/v1/routes"}`,
			false,
		},
		"not found, a page": {404, "text/html", `<h1>404</h1>`, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", c.media)
				if c.id {
					w.Header().Set("X-Request-Id", "x")
				}
				w.WriteHeader(c.status)
				_, _ = fmt.Fprint(w, c.body)
			}))
			defer s.Close()
			a := &Client{URL: s.URL}
			_, _, _, err := a.List(t.Context(), "routes", nil)
			said(t, s.URL, err)
			_, err = a.Do(t.Context(), Request{Method: http.MethodGet, Path: "/v1/status"}, &api.ApplyResult{})
			said(t, s.URL, err)
			said(t, s.URL, a.Events(t.Context(), "", func(Event) error { return nil }))
		})
	}
}

func said(t *testing.T, url string, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "what answers at "+url+" is no MarchProxy api (") ||
		!strings.Contains(err.Error(), "--api") {
		t.Errorf("got: %v", err)
	}
	if err != nil && strings.Contains(err.Error(), "Go ") {
		t.Errorf("Go's words: %v", err)
	}
}
