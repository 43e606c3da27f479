package security

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/jwtcases"
	"github.com/marchproxy/marchproxy/test/probe"
)

// TestJWT: every case of the table through the proxy, in both engines. What is refused reaches no backend, whatever is
// wrong with it; what passes brings the backend the user that the token names, and no other header that a claim could
// smuggle in.
func TestJWT(t *testing.T) {
	cases, err := jwtcases.Read()
	if err != nil {
		t.Fatal(err)
	}
	s := harness.ForTest(t, nil, "--no-demo")
	var reached atomic.Int32
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		w.Header().Set("Seen-User", strings.Join(r.Header.Values("X-User"), "|"))
		w.Header().Set("Seen-Evil", strings.Join(r.Header.Values("X-Evil"), "|"))
	}))
	t.Cleanup(backend.Close)
	port := backend.URL[strings.LastIndexByte(backend.URL, ':')+1:]
	s.Want(t, "PUT", s.API+"/v1/services/web", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":`+port+`}]}}`, 201)
	native, err := jwtcases.Native()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []*jwtcases.Engine{jwtcases.Filter(), native} {
		s.Want(t, "PUT", s.API+"/v1/auth-policies/"+e.Name, `{"spec":{"jwt":{"keys":`+e.Keys+`,`+jwtcases.Rules+`}}}`, 201)
		s.Want(t, "PUT", s.API+"/v1/routes/"+e.Name+"?wait=live",
			`{"spec":{"hosts":["`+e.Name+`.test"],"auth_policy":"`+e.Name+`","backends":[{"service":"web"}]}}`, 201)
		tried := 0
		for _, c := range cases {
			if c.Still || c.Only != "" && c.Only != e.Name {
				continue
			}
			tried++
			want := c.OfFilter()
			if e.Name == "native" {
				want = c.OfNative()
			}
			path, lines, err := c.Request(e, time.Now().Unix())
			if err != nil {
				t.Fatal(err)
			}
			before := reached.Load()
			got, header, err := tokenAnswer(s.Proxy, e.Name+".test", path, lines)
			if err != nil {
				t.Fatalf("%s, %s: %v for %.300q", e.Name, c.Name, err, lines)
			}
			if got != want {
				t.Errorf("%s, %s: %s, want %s; for %.300q", e.Name, c.Name, got, want, lines)
			}
			if passed := reached.Load() > before; passed != (got == jwtcases.OK) {
				t.Errorf("%s, %s: %s, and it reached the backend: %t", e.Name, c.Name, got, passed)
			}
			if evil := header.Get("Seen-Evil"); evil != "" {
				t.Errorf("%s, %s: the backend got a header of the claim's: %q", e.Name, c.Name, evil)
			}
			if user := header.Get("Seen-User"); got == jwtcases.OK && (user == "" || strings.Contains(user, "|")) {
				t.Errorf("%s, %s: the backend took the user for %q", e.Name, c.Name, user)
			}
		}
		t.Logf("%s: %d cases", e.Name, tried)
		if tried < 110 {
			t.Errorf("%s: only %d cases", e.Name, tried)
		}
	}
}

// tokenAnswer sends a request as it is written, and says what the engine made of it.
func tokenAnswer(addr, host, path string, lines []string) (jwtcases.Answer, http.Header, error) {
	c := probe.New(addr)
	defer c.Close()
	got, _, err := c.Get(host, path, append([]string{"Connection: close"}, lines...)...)
	if err != nil {
		return "", nil, err
	}
	var refusal struct{ Error, Reason string }
	switch {
	case got.Status == http.StatusOK:
		return jwtcases.OK, got.Header, nil
	case got.Status == http.StatusBadRequest, got.Status == http.StatusServiceUnavailable &&
		strings.HasPrefix(got.Body, "invalid header value"):
		return jwtcases.Proxy, got.Header, nil
	case json.Unmarshal([]byte(got.Body), &refusal) != nil || refusal.Reason == "":
		return "", nil, fmt.Errorf("answered %d %s", got.Status, got.Body)
	}
	a := jwtcases.Answer(refusal.Reason)
	if (got.Status == http.StatusForbidden) != (a == jwtcases.Claims) || got.Status/100 != 4 {
		return "", nil, fmt.Errorf("answered %d with the reason %s", got.Status, a)
	}
	return a, got.Header, nil
}
