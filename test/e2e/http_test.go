package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// TestHTTP is what a well-made client of the API may rely on beyond its own document.
func TestHTTP(t *testing.T) {
	s := start(t, "--no-demo")
	do := func(method, path, body string, header ...string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.API+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := s.HTTP().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var b strings.Builder
		if err := resp.Write(&b); err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(b.String(), "\r\n\r\n")
		return resp, text
	}
	spec := `{"spec":{"hosts":["a.test"],"direct_response":{"status":200}}}`
	do("PUT", "/v1/routes/a", spec)
	tag := `"2"`
	for _, c := range []struct {
		method, path, body string
		header             []string
		status             int
		says               string
	}{
		{"GET", "/v1/routes/a", "", []string{"If-None-Match", `"x", W/` + tag}, 304, ""},
		{"PUT", "/v1/routes/a", spec, []string{"If-Match", `"x", ` + tag}, 200, ""},
		// a weak tag does not match strongly
		{"PUT", "/v1/routes/a", spec, []string{"If-Match", "W/" + tag}, 412, "read it again"},
		{"HEAD", "/v1/routes/a", "", nil, 200, ""},
		{"HEAD", "/readyz", "", nil, 200, ""},
		{"HEAD", "/v1/events", "", nil, 405, ""},
		{"HEAD", "/v1/apply", "", nil, 405, ""},
		{"GET", "/v1/routes/none", "", nil, 404, `there is no Route \"none\"`},
		{"PATCH", "/v1/services/none", `{"spec":{}}`, nil, 404, `there is no Service \"none\"`},
		{"DELETE", "/v1/gateways/none", "", nil, 404, `there is no Gateway \"none\"`},
		{"DELETE", "/v1/tokens/none", "", nil, 404, `there is no token \"none\"`},
		{"GET", "/v1/revisions/99", "", nil, 404, "there is no revision 99"},
		{"GET", "/v1/revisions/1/diff?against=98", "", nil, 404, "there is no revision 98"},
		{"POST", "/v1/revisions/97/rollback", "", nil, 404, "there is no revision 97"},
		{"GET", "/v1/routes/", "", nil, 404, "there is nothing at this path"},
		{"GET", "/v1/things", "", nil, 404, "kinds: "},
		{"PUT", "/v1/routes/b", "", nil, 400, "is empty; send a JSON object"},
		{"GET", "/v1/audit?kind=route", "", nil, 400, "Route"},
	} {
		resp, text := do(c.method, c.path, c.body, c.header...)
		if resp.StatusCode != c.status || !strings.Contains(text, c.says) || (c.method == "HEAD" && text != "") {
			t.Errorf("%s %s %v: %s %s, want %d and %q", c.method, c.path, c.header, resp.Status, text, c.status, c.says)
		}
		if c.status == 405 && resp.Header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
	resp, _ := do("HEAD", "/v1/routes/a", "")
	if resp.Header.Get("Etag") != tag || resp.ContentLength == 0 {
		t.Errorf("HEAD: %v", resp.Header)
	}

	// What nobody may write says so.
	for path, allow := range map[string]string{
		"/v1/routes/a": "OPTIONS, GET, HEAD, PUT, PATCH, DELETE", "/v1/certificate-challenges/a": "OPTIONS, GET, HEAD",
	} {
		if resp, _ := do("OPTIONS", path, ""); resp.StatusCode != http.StatusNoContent || resp.Header.Get("Allow") != allow {
			t.Errorf("OPTIONS %s: %s, %q, want %q", path, resp.Status, resp.Header.Get("Allow"), allow)
		}
	}
	if resp, text := do("GET", "/v1/certificate-challenges/a", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a challenge that is not there: %s %s", resp.Status, text)
	}

	// Labels are part of what a revision changes.
	do("PATCH", "/v1/routes/a", `{"labels":{"team":"x"}}`)
	if _, text := do("GET", "/v1/revisions/3/diff", ""); !strings.Contains(text, `"action":"update"`) {
		t.Errorf("a change of labels is no difference: %s", text)
	}
}
