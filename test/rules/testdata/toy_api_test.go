package relay_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/web"
)

// TestToy is copied here by TestToyKind (test/rules), into a tree that has the kind Toy.
func TestToy(t *testing.T) {
	const token = "the token of a test, which is long enough"
	server := natstest.Start(t)
	a := start(t, server, pgtest.Database(t))
	if err := a.store.SetBootstrap(t.Context(), auth.Sum(token)); err != nil {
		t.Fatal(err)
	}
	board := live.NewBoard(time.Now)
	board.History = a.w
	var committed web.Signal
	handler, err := (&web.API{
		Store: a.store, Writer: a.w, Board: board, Auth: auth.New(a.store), Published: a.relay.Published,
		Unpublished: func() (string, time.Time) { return "", time.Time{} }, Committed: &committed, Log: zap.NewNop(),
	}).Handler()
	if err != nil {
		t.Fatal(err)
	}
	call := func(method, path, body string, want int, says ...string) string {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), method, "http://127.0.0.1"+path, strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+token)
		if method == "PATCH" {
			req.Header.Set("Content-Type", "application/merge-patch+json")
		} else if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, req)
		got := rec.Body.String()
		if rec.Code != want {
			t.Fatalf("%s %s: %d, want %d: %s", method, path, rec.Code, want, got)
		}
		for _, s := range says {
			if !strings.Contains(got, s) {
				t.Errorf("%s %s does not say %s: %s", method, path, s, got)
			}
		}
		for _, secret := range []string{"jump", "1234", `"password"`, `"pin"`, `"sha256":"`} {
			if path != "/v1/openapi.json" && strings.Contains(got, secret) {
				t.Errorf("%s %s shows a secret: %s", method, path, got)
			}
		}
		return got
	}
	call("GET", "/v1/openapi.json", "", 200, `"/v1/toys/{name}"`, `"putToy"`, `"ToySpec"`, `"writeOnly": true`)
	const ball = "/v1/toys/ball"
	call("PUT", ball, `{"spec":{"gateway":"nowhere"}}`, 422, `names the gateway \"nowhere\"`)
	call("PUT", "/v1/gateways/edge", `{"spec":{"listeners":[{"name":"http","port":80}]}}`, 201)
	call("PUT", ball, `{"spec":{"gateway":"edge","label":"broken"}}`, 422, "mend it")
	call("PUT", ball, `{"spec":{"gateway":"edge","label":"square"}}`, 422, "does not roll")
	call("PUT", ball, `{"spec":{"gateway":"edge","players":[{"name":"eve"}]}}`, 422, "has neither pin nor sha256")
	call("PUT", ball, `{"spec":{"gateway":"edge","password":"jump","players":[{"name":"eve","pin":"1234"}]}}`, 201)
	call("PUT", ball, `{"spec":{"gateway":"edge","label":"red","players":[{"name":"eve"}]}}`, 200) // keeps both secrets
	call("GET", ball, "", 200, `"label":"red"`, `"name":"eve"`)
	call("GET", "/v1/toys", "", 200, `"label":"red"`)
	call("GET", "/v1/revisions/2/diff", "", 200, `"Toy"`)
	call("DELETE", "/v1/gateways/edge", "", 409, "Toy/ball")

	o, err := a.store.Object(t.Context(), resource.Ref{Kind: "Toy", Name: "ball"})
	if err != nil {
		t.Fatal(err)
	}
	var stored struct {
		Password string
		Players  []struct{ Pin, Sha256 string }
	}
	if err := json.Unmarshal(o.Spec, &stored); err != nil || !seal.Sealed(stored.Password) || len(stored.Players) != 1 ||
		stored.Players[0].Pin != "" ||
		stored.Players[0].Sha256 != "03ac674216f3e15c761ee1a5e255f067953623c8b388b4459e13f978d7c846f4" {
		t.Errorf("stored as %s (%v)", o.Spec, err)
	}

	a.agree()
	subject := stream.Subject(o.Ref())
	if subject != "marchproxy.config.v1.resource.toy.ball" {
		t.Errorf("published on %s", subject)
	}
	s, err := a.js.Stream(t.Context(), stream.Name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(t.Context(), subject)
	if err != nil || !strings.Contains(string(m.Data), `"label":"red"`) || strings.Contains(string(m.Data), "jump") {
		t.Errorf("%s has %v (%v)", subject, m, err)
	}
	call("PATCH", ball, `{"spec":{"label":"blue"}}`, 200)
	call("DELETE", ball, "", 200)
	call("GET", ball, "", 404)
	call("DELETE", "/v1/gateways/edge", "", 200)
}
