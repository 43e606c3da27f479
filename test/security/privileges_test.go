package security

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/test/harness"
)

// needed is the role of every operation of the OpenAPI document, "" for everybody. An operation without an entry fails
// the test: whoever adds one says here what it takes. Those that write
// a kind need what toWrite says, and those that read one a viewer.
var needed = map[string]string{
	"health": "", "ready": "", "metrics": "", "openapi": "",
	"serviceHealth": "viewer", "metricsSummary": "viewer",
	"signIn": "", "session": "viewer", "signOut": "viewer", "nodes": "viewer", "explain": "viewer",
	"status": "viewer", "proxies": "viewer", "rateLimitStatus": "viewer", "events": "viewer",
	"accessLog":     "viewer",
	"listRevisions": "viewer", "getRevision": "viewer", "diffRevisions": "viewer", "audit": "viewer",
	"exportAudit": "viewer", "verifyAudit": "admin",
	"apply": "editor", "rollback": "editor", "renewCertificate": "operator",
	"listTokens": "admin", "createToken": "admin", "deleteToken": "admin",
	"signInPassword": "", "signInWays": "",
	"listUsers": "admin", "createUser": "admin", "updateUser": "admin", "deleteUser": "admin",
	"changePassword": "viewer", "listSessions": "viewer", "endSession": "viewer",
	"listOwnTokens": "viewer", "createOwnToken": "viewer", "deleteOwnToken": "viewer",
}

// toWrite is the role that writing a kind needs; an operator's for those that are not listed.
var toWrite = map[string]string{
	"Route": "editor", "Service": "editor", "EndpointSet": "editor",
	"Gateway": "operator", "Certificate": "operator", "CertificateIssuer": "operator",
	"AuthPolicy": "operator", "License": "operator",
	"RateLimitPolicy": "operator", "LocalityDrain": "operator",
}

var roles = []string{"viewer", "editor", "operator", "admin"}

// operation is one of the document.
type operation struct {
	id, method, path, kind, role string
	dry                          bool
	example                      json.RawMessage
}

// system is a running system, and tokens for it.
type system struct {
	*testing.T
	*harness.System
	answers *atomic.Int64
}

func start(t *testing.T) system {
	t.Helper()
	s := harness.ForTest(t, nil)
	return system{t, s, &atomic.Int64{}}
}

// must does something as an admin.
func (s system) must(method, path string, body any, status int) map[string]any {
	s.Helper()
	got, raw, err := s.Call(s.Context(), method, s.API+path, body)
	if err != nil || got != status {
		s.Fatalf("%s %s: %d %v, want %d: %s", method, path, got, err, status, raw)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		s.Fatal(err)
	}
	return out
}

// token makes one.
func (s system) token(name, role string, bounds map[string][]string) string {
	s.Helper()
	ask := map[string]any{"name": name, "role": role}
	if bounds != nil {
		ask["bounds"] = bounds
	}
	return s.must("POST", "/v1/tokens", ask, 201)["token"].(string)
}

// as asks with a token, and reads no more of the answer than a refusal has.
func (s system) as(token, method, url, body string) (status int, answer string) {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, url, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return resp.StatusCode, "" // it has no end
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// operations reads the document, and holds it against the table.
func (s system) operations() (out []operation) {
	s.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string                `json:"operationId"`
			Security    []map[string][]string `json:"security"`
			Parameters  []struct{ Name string }
			RequestBody struct {
				Content map[string]struct{ Example json.RawMessage }
			} `json:"requestBody"`
		}
	}
	_, raw := s.as("none", "GET", s.API+"/v1/openapi.json", "")
	if err := json.Unmarshal([]byte(raw), &doc); err != nil {
		s.Fatal(err)
	}
	missing := maps.Clone(needed)
	for path, methods := range doc.Paths {
		for method, d := range methods {
			o := operation{id: d.OperationID, method: strings.ToUpper(method), path: path}
			for _, k := range resource.Kinds {
				if strings.HasPrefix(path+"/", "/v1/"+k.Path+"/") {
					o.kind = k.Name
				}
			}
			for _, p := range d.Parameters {
				o.dry = o.dry || p.Name == "dry_run"
			}
			for _, c := range d.RequestBody.Content {
				o.example = c.Example
			}
			if len(d.Security) > 0 {
				o.role = d.Security[0]["token"][0]
			}
			want, known := needed[o.id]
			delete(missing, o.id)
			switch {
			case known:
			case o.kind != "" && o.method == "GET":
				want, known = "viewer", true
			case o.kind != "" && slices.Contains([]string{"PUT", "PATCH", "DELETE"}, o.method):
				want, known = cmp.Or(toWrite[o.kind], "operator"), true
			}
			if !known {
				s.Errorf("operation %s (%s %s) has no entry here: say which role it needs", o.id, o.method, path)
			}
			if o.role != want {
				s.Errorf("operation %s says that it needs %q; here it is %q", o.id, o.role, want)
			}
			out = append(out, o)
		}
	}
	for id := range missing {
		s.Errorf("operation %s is not in the document any more", id)
	}
	if len(out) < 50 {
		s.Errorf("the document has only %d operations", len(out))
	}
	slices.SortFunc(out, func(a, b operation) int { return strings.Compare(a.id, b.id) })
	return out
}

// url fills the path in; writes are tried and not made.
func (o operation) url(s system, name string) string {
	u := s.API + strings.NewReplacer("{revision}", "1", "{name}", name).Replace(o.path)
	if o.dry {
		u += "?dry_run=true"
	}
	return u
}

// TestRoles: every operation of the OpenAPI document with every role, with a token that is not known, and with one that
// has ended.
func TestRoles(t *testing.T) {
	s := start(t)
	operations := s.operations()
	tokens := map[string]string{}
	for _, role := range roles {
		tokens[role] = s.token("a-"+role, role, nil)
	}
	ended := s.must("POST", "/v1/tokens", map[string]any{
		"name": "ended", "role": "operator",
		"expires_at": time.Now().Add(2 * time.Second).Format(time.RFC3339Nano),
	}, 201)["token"].(string)
	if status, raw := s.as(ended, "GET", s.API+"/v1/routes", ""); status != 200 {
		t.Fatalf("before its end a token answers %d %s", status, raw)
	}
	for _, o := range operations {
		if strings.HasPrefix(o.id, "signIn") && o.method == "POST" { // its body is the credential; session_test.go has it
			continue
		}
		body := string(o.example)
		// After some of them the address is slowed down, whatever is asked.
		status, raw := s.as("not known", o.method, o.url(s, "none"), body)
		if (status == 401 || status == 429) != (o.role != "") {
			t.Errorf("%s with a token that is not known: %d %s", o.id, status, raw)
		}
		if o.role == "" {
			continue
		}
		for i, role := range roles {
			status, raw := s.as(tokens[role], o.method, o.url(s, "none"), body)
			refused := i < slices.Index(roles, o.role)
			switch {
			case (status == 403) != refused || status == 401 || status >= 500:
				t.Errorf("%s as %s, which needs %s: %d %s", o.id, role, o.role, status, raw)
			case refused && (!strings.Contains(raw, "needs "+o.role) || !strings.Contains(raw, `"rule":"role"`)):
				t.Errorf("%s as %s does not say what it needs: %s", o.id, role, raw)
			}
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		status, raw := s.as(ended, "GET", s.API+"/v1/routes", "")
		if status == 401 && strings.Contains(raw, "has ended") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a token answers after its end: %d %s", status, raw)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestRolesOfDoors: the role is asked of each object, whichever door it comes through.
func TestRolesOfDoors(t *testing.T) {
	s := start(t)
	editor, operator := s.token("e", "editor", nil), s.token("o", "operator", nil)
	gateway := `{"kind":"Gateway","name":"mine","spec":{"listeners":[{"name":"http","port":10099}],` +
		`"api_keys":[{"name":"k","key":"a-key-of-an-editors-own-choice"}]}}`
	for name, c := range map[string]struct{ method, url, body string }{
		"PUT":      {"PUT", s.API + "/v1/gateways/mine", gateway},
		"PUT, dry": {"PUT", s.API + "/v1/gateways/mine?dry_run=true", gateway},
		"PATCH": {
			"PATCH", s.API + "/v1/gateways/default",
			`{"spec":{"api_keys":[{"name":"k","key":"a-key-of-an-editors-own-choice"}]}}`,
		},
		"DELETE":     {"DELETE", s.API + "/v1/gateways/default", ""},
		"apply":      {"POST", s.API + "/v1/apply", `{"resources":[` + gateway + `]}`},
		"apply, dry": {"POST", s.API + "/v1/apply?dry_run=true", `{"resources":[` + gateway + `]}`},
		"apply and more": {"POST", s.API + "/v1/apply", `{"resources":[{"kind":"Route","name":"r",` +
			`"spec":{"direct_response":{"status":200}}},` + gateway + `]}`},
		"prune":    {"POST", s.API + "/v1/apply", `{"owner":"pruned","prune":true,"allow_empty":true,"resources":[]}`},
		"rollback": {"POST", s.API + "/v1/revisions/0/rollback", ""},
	} {
		if name == "prune" {
			s.must("PUT", "/v1/gateways/pruned", `{"owner":"pruned","spec":{"listeners":[{"name":"http","port":10098}]}}`, 201)
		}
		before := s.must("GET", "/v1/status", nil, 200)["revision"]
		if status, raw := s.as(editor, c.method, c.url, c.body); status != 403 || !strings.Contains(raw, "needs operator") {
			t.Errorf("%s by an editor: %d %s", name, status, raw)
		}
		if after := s.must("GET", "/v1/status", nil, 200)["revision"]; after != before {
			t.Errorf("%s by an editor: the revision went from %v to %v", name, before, after)
		}
	}
	if status, raw := s.as(operator, "PUT", s.API+"/v1/gateways/mine?dry_run=true", gateway); status != 200 {
		t.Errorf("an operator: %d %s", status, raw)
	}
	viewer := s.token("v", "viewer", nil)
	doc := `{"services":[{"name":"x","hosts":["192.0.2.1"],"port":80}],"routes":[{"name":"x","prefix":"/x",` +
		`"cluster_name":"x"}]}`
	if status, raw := s.as(viewer, "POST", s.XDS+"/v1/config?timeout=0s", doc); status != 403 {
		t.Errorf("POST /v1/config by a viewer: %d %s", status, raw)
	}
	if status, raw := s.as(editor, "POST", s.XDS+"/v1/config?timeout=0s", doc); status != 200 && status != 202 {
		t.Errorf("POST /v1/config by an editor: %d %s", status, raw)
	}
	// An editor undoes what an editor may do.
	at := s.must("GET", "/v1/status", nil, 200)["revision"].(float64)
	s.must("PUT", "/v1/routes/undo", `{"spec":{"hosts":["undo.test"],"direct_response":{"status":200}}}`, 201)
	if status, raw := s.as(editor, "POST", fmt.Sprintf("%s/v1/revisions/%.0f/rollback", s.API, at), ""); status != 200 {
		t.Errorf("a rollback of routes by an editor: %d %s", status, raw)
	}
}
