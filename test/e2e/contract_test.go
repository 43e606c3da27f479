package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/marchproxy/marchproxy/pkg/license"
	"github.com/marchproxy/marchproxy/test/harness"
)

// contract replays operations and holds requests and responses against the OpenAPI document.
type contract struct {
	*harness.System
	v        validator.Validator
	patterns map[string]*regexp.Regexp // METHOD path, by operationId
	success  map[string]bool           // operationId status: documented, to be seen
	examples map[string]string         // of bodies, by operationId
}

type exchange struct {
	op, method, path, body string
	header                 map[string]string
	status                 int
	// invalid says that the request is not what the document asks for, on purpose.
	invalid bool
}

func newContract(t *testing.T, s *harness.System) *contract {
	t.Helper()
	status, raw, err := s.Call(t.Context(), "GET", s.API+"/v1/openapi.json", nil)
	if err != nil || status != 200 {
		t.Fatalf("openapi.json: %d %v", status, err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string         `json:"operationId"`
			Responses   map[string]any `json:"responses"`
			RequestBody struct {
				Content map[string]struct {
					Example json.RawMessage `json:"example"`
				} `json:"content"`
			} `json:"requestBody"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	c := &contract{
		System: s, patterns: map[string]*regexp.Regexp{}, success: map[string]bool{},
		examples: map[string]string{},
	}
	for path, item := range doc.Paths {
		for method, op := range item {
			if c.patterns[op.OperationID] != nil {
				t.Errorf("operationId %s stands twice", op.OperationID)
			}
			c.patterns[op.OperationID] = regexp.MustCompile("^" + strings.ToUpper(method) + " " +
				regexp.MustCompile(`\\\{[a-z]+\\\}`).ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`) + "$")
			for _, body := range op.RequestBody.Content {
				c.examples[op.OperationID] = string(body.Example)
			}
			for code := range op.Responses {
				if code < "400" && code != "202" { // 202 is a matter of time
					c.success[op.OperationID+" "+code] = true
				}
			}
		}
	}
	parsed, err := libopenapi.NewDocument(raw)
	if err != nil {
		t.Fatal(err)
	}
	var errs []error
	if c.v, errs = validator.NewValidator(parsed); len(errs) > 0 {
		t.Fatal(errs)
	}
	if ok, problems := c.v.ValidateDocument(); !ok {
		for _, p := range problems {
			t.Errorf("the document is no OpenAPI 3.1: %v", p)
		}
	}
	return c
}

// do sends one request and returns the response's body and headers.
func (c *contract) do(t *testing.T, x exchange) (map[string]any, http.Header) {
	t.Helper()
	where := x.op + ": " + x.method + " " + x.path
	plain, _, _ := strings.Cut(x.path, "?")
	if p := c.patterns[x.op]; p == nil || !p.MatchString(x.method+" "+plain) {
		t.Fatalf("%s: the document has no such operation", where)
	}
	build := func() *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), x.method, c.API+x.path, strings.NewReader(x.body))
		if err != nil {
			t.Fatal(err)
		}
		if x.body == "" {
			r.Body, r.ContentLength = http.NoBody, 0
		} else {
			r.Header.Set("Content-Type", "application/json")
			if x.method == "PATCH" {
				r.Header.Set("Content-Type", "application/merge-patch+json")
			}
		}
		for k, v := range x.header {
			r.Header.Set(k, v)
		}
		return r
	}
	client := c.HTTP()
	if x.header["Cookie"] != "" { // a session, and no token beside it
		client = http.DefaultClient
	}
	resp, err := client.Do(build())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != x.status {
		t.Fatalf("%s: status %d, want %d: %s", where, resp.StatusCode, x.status, raw)
	}
	resp.Body = io.NopCloser(bytes.NewReader(raw))
	documented := build()
	if documented.Header.Get("Authorization") == "" {
		documented.Header.Set("Authorization", "Bearer x") // the document asks for one; dev does not
	}
	if ok, problems := c.v.ValidateHttpRequest(documented); ok == x.invalid {
		t.Errorf("%s: the document says that the request is valid: %v; it should be %v: %v", where, ok, !x.invalid, problems)
	}
	if ok, problems := c.v.ValidateHttpResponse(build(), resp); !ok {
		for _, p := range problems {
			t.Errorf("%s: status %d is not as documented: %v %v\n%s", where, x.status, p, p.SchemaValidationErrors, raw)
		}
	}
	delete(c.success, fmt.Sprintf("%s %d", x.op, x.status))
	var out map[string]any
	_ = json.Unmarshal(raw, &out) // not every answer is JSON
	return out, resp.Header
}

// TestContract replays every documented operation against the running system, and every refusal that a
// client has to tell apart.
func TestContract(t *testing.T) {
	s := start(t)
	c := newContract(t, s)
	cert, key := newAuthority(t).issue(t, "tls.test")
	pem, err := json.Marshal(map[string]any{"spec": map[string]string{"chain": cert, "private_key": key}})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct{ kind, path, name, body, patch string }{
		{"Service", "services", "web", `{"spec":{"endpoints":[{"host":"127.0.0.1","port":1}]},"labels":{"team":"a"},` +
			`"owner":"me"}`, `{"labels":{"team":null,"tier":"1"}}`},
		{
			"EndpointSet", "endpoint-sets", "web-a", `{"spec":{"service":"web","endpoints":[{"host":"127.0.0.1","port":2}]}}`,
			`{"spec":{"endpoints":[{"host":"127.0.0.1","port":2,"state":"draining"}]}}`,
		},
		{
			"LocalityDrain", "locality-drains", "away", `{"spec":{"cloud":"away","reason":"works"}}`,
			`{"spec":{"zone":"a","reason":null}}`,
		},
		{"Certificate", "certificates", "tls", string(pem), `{"owner":"me"}`},
		{
			"CertificateIssuer", "certificate-issuers", "ca", `{"spec":{"directory":"https://127.0.0.1:1/d","terms_agreed":true}}`,
			`{"spec":{"contacts":["ops@example.com"]}}`,
		},
		{
			"Gateway", "gateways", "edge", `{"spec":{"listeners":[{"name":"http","port":` + fmt.Sprint(s.ProxyPort+1) + `}]}}`,
			`{"spec":{"limits":{"max_request_headers":50}}}`,
		},
		{"RateLimitPolicy", "rate-limit-policies", "limits", `{"spec":{"cidrs":["10.0.0.0/8"],"packets_per_second":100,` +
			`"deny":["192.0.2.1"]}}`, `{"spec":{"deny":null,"action":"observe"}}`},
		{
			"AuthPolicy", "auth-policies", "staff", `{"spec":{"jwt":{"keys":[{"kid":"k1","algorithm":"HS256","secret":"a ` +
				`secret of at least thirty-two bytes"}]},"tokens":[{"name":"ci","value":"b3BhcXVlLXRva2VuLW9mLWNp"}]}}`,
			`{"spec":{"strip":true,"exempt_paths":[{"path":"/health"}]}}`,
		},
		{"License", "licenses", "main", `{"spec":{"key":"PENG-ABCD-EFGH-IJKL-MNOP-` +
			license.Checksum("PENG-ABCD-EFGH-IJKL-MNOP") + `","features":["multi-cloud"],"gates":[{"feature":"multi-cloud",` +
			`"paths":["/api/v1/multi-cloud"]}],"max_proxies":2}}`, `{"spec":{"expires_at":"2030-01-01T00:00:00Z"}}`},
		{
			"Route", "routes", "r", `{"spec":{"hosts":["a.test"],"backends":[{"service":"web"}],"timeout":"1.5s"}}`,
			`{"spec":{"timeout":null,"methods":["GET"]}}`,
		},
	} {
		kinds, one := plural(k.path), "/v1/"+k.path+"/"+k.name
		c.do(t, exchange{op: "get" + k.kind, method: "GET", path: one, status: 404})
		c.do(t, exchange{op: "put" + k.kind, method: "PUT", path: one + "?dry_run=true", body: k.body, status: 200})
		made, h := c.do(t, exchange{
			op: "put" + k.kind, method: "PUT", path: one + "?message=made", body: k.body, status: 201,
			header: map[string]string{"If-None-Match": "*", "Idempotency-Key": "make-" + k.name},
		})
		again, _ := c.do(t, exchange{
			op: "put" + k.kind, method: "PUT", path: one + "?message=made", body: k.body,
			status: 201, header: map[string]string{"If-None-Match": "*", "Idempotency-Key": "make-" + k.name},
		})
		if fmt.Sprint(again) != fmt.Sprint(made) {
			t.Errorf("a repeated request is answered %v, the first was %v", again, made)
		}
		c.do(t, exchange{
			op: "put" + k.kind, method: "PUT", path: one, body: `{"spec":{}}`, status: 422,
			header: map[string]string{"Idempotency-Key": "make-" + k.name}, invalid: k.kind == "CertificateIssuer" ||
				k.kind == "Gateway" || k.kind == "EndpointSet",
		})
		c.do(t, exchange{
			op: "put" + k.kind, method: "PUT", path: one, body: k.body, status: 412,
			header: map[string]string{"If-None-Match": "*"},
		})
		c.do(t, exchange{
			op: "get" + k.kind, method: "GET", path: one, status: 304,
			header: map[string]string{"If-None-Match": h.Get("Etag")},
		})
		got, _ := c.do(t, exchange{op: "get" + k.kind, method: "GET", path: one, status: 200})
		back, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		same, _ := c.do(t, exchange{
			op: "put" + k.kind, method: "PUT", path: one, body: string(back), status: 200,
			header: map[string]string{"If-Match": h.Get("Etag")},
		})
		if same["revision"] != got["revision"] {
			t.Errorf("writing what was read made revision %v of %v", same["revision"], got["revision"])
		}
		c.do(t, exchange{op: "patch" + k.kind, method: "PATCH", path: one, body: k.patch, status: 200})
		c.do(t, exchange{
			op: "patch" + k.kind, method: "PATCH", path: one, body: k.patch, status: 412,
			header: map[string]string{"If-Match": `"1"`},
		})
		c.do(t, exchange{op: "patch" + k.kind, method: "PATCH", path: one, body: `{"spec":{"no_such":1}}`, status: 422})
		c.do(t, exchange{
			op: "put" + k.kind, method: "PUT", path: one, body: `{"spec":{"no_such":1}}`, status: 422,
			invalid: true,
		})
		c.do(t, exchange{op: "put" + k.kind, method: "PUT", path: one, body: `{`, status: 400, invalid: true})
		c.do(t, exchange{
			op: "put" + k.kind, method: "PUT", path: one, body: `{}`, status: 415,
			header: map[string]string{"Content-Type": "text/yaml"}, invalid: true,
		})
		c.do(t, exchange{op: "list" + kinds, method: "GET", path: "/v1/" + k.path + "?limit=1&q=" + k.name[:1], status: 200})
		c.do(t, exchange{
			op: "list" + kinds, method: "GET", path: "/v1/" + k.path + "?limit=1001", status: 400,
			invalid: true,
		})
		c.do(t, exchange{op: "delete" + k.kind, method: "DELETE", path: "/v1/" + k.path + "/none", status: 404})
	}
	c.do(t, exchange{op: "listRoutes", method: "GET", path: "/v1/routes?host=a.test&service=web", status: 200})
	c.do(t, exchange{
		op: "putRoute", method: "PUT", path: "/v1/routes/r?wait=live&timeout=20s",
		body: `{"spec":{"hosts":["a.test"],"backends":[{"service":"web"}]}}`, status: 200,
	})
	used, _ := c.do(t, exchange{op: "deleteService", method: "DELETE", path: "/v1/services/web", status: 409})
	if !strings.Contains(fmt.Sprint(used["errors"]), "Route/r") {
		t.Errorf("409 does not name what uses the service: %v", used)
	}
	applied, _ := c.do(t, exchange{
		op: "apply", method: "POST", path: "/v1/apply?wait=live", status: 200,
		body: `{"owner":"team","prune":true,"message":"m","resources":[{"kind":"Route","name":"t",` +
			`"spec":{"hosts":["t.test"],"direct_response":{"status":200}}}]}`,
	})
	c.do(t, exchange{op: "apply", method: "POST", path: "/v1/apply", status: 422, body: `{"prune":true,"resources":[]}`})
	// The examples of the kinds are sent by check-clients.
	c.do(t, exchange{op: "apply", method: "POST", path: "/v1/apply?dry_run=true", status: 200, body: c.examples["apply"]})
	c.do(t, exchange{
		op: "apply", method: "POST", path: "/v1/apply", status: 422, body: `{"owner":"team","prune":true}`,
		invalid: true,
	})
	c.do(t, exchange{
		op: "apply", method: "POST", path: "/v1/apply?allow_empty=true", status: 200,
		body: `{"owner":"nobody-yet","prune":true,"take_over":true,"resources":[]}`,
	})
	c.do(t, exchange{
		op: "putRoute", method: "PUT", path: "/v1/routes/t", status: 409,
		body: `{"owner":"other","spec":{"hosts":["t.test"],"direct_response":{"status":200}}}`,
	})
	c.do(t, exchange{
		op: "putRoute", method: "PUT", path: "/v1/routes/t?take_over=true", status: 200,
		body: `{"owner":"other","spec":{"hosts":["t.test"],"direct_response":{"status":200}}}`,
	})
	c.do(t, exchange{op: "deleteRoute", method: "DELETE", path: "/v1/routes/t?owner=team", status: 409})
	c.do(t, exchange{op: "apply", method: "POST", path: "/v1/apply", status: 413, body: `{"message":"` +
		strings.Repeat("x", 64<<20) + `","resources":[]}`, invalid: true})
	c.do(t, exchange{op: "rateLimitStatus", method: "GET", path: "/v1/rate-limit-policies/limits/status", status: 200})
	c.do(t, exchange{op: "rateLimitStatus", method: "GET", path: "/v1/rate-limit-policies/none/status", status: 404})
	c.do(t, exchange{
		op: "listCertificateChallenges", method: "GET", path: "/v1/certificate-challenges", status: 200,
	})
	c.do(t, exchange{
		op: "getCertificateChallenge", method: "GET", path: "/v1/certificate-challenges/none", status: 404,
	})
	// One lives for the second in which an authority asks; TestIssuance has real ones, and that none is left.
	delete(c.success, "getCertificateChallenge 200")
	delete(c.success, "getCertificateChallenge 304")
	c.do(t, exchange{op: "explain", method: "POST", path: "/v1/explain", body: c.examples["explain"], status: 200})
	c.do(t, exchange{
		op: "explain", method: "POST", path: "/v1/explain", body: `{"host":"a.test","gateway":"none"}`, status: 422,
	})
	c.do(t, exchange{op: "explain", method: "POST", path: "/v1/explain", body: `{"path":"/"}`, status: 422, invalid: true})
	c.do(t, exchange{op: "renewCertificate", method: "POST", path: "/v1/certificates/tls/renew", status: 409})
	c.do(t, exchange{op: "renewCertificate", method: "POST", path: "/v1/certificates/none/renew", status: 404})
	c.do(t, exchange{
		op: "putCertificate", method: "PUT", path: "/v1/certificates/ordered",
		body: `{"spec":{"issuer":"ca","names":["ordered.test"]}}`, status: 201,
	})
	eventually(t, func() string { // the issuer's directory is not there
		at := call(t, s, "GET", s.API+"/v1/certificates/ordered", nil, 200)["status"].(map[string]any)
		if x, ok := at["issuance"].(map[string]any); !ok || x["problem"] != "unreachable" {
			return fmt.Sprint(at)
		}
		return ""
	})
	c.do(t, exchange{op: "renewCertificate", method: "POST", path: "/v1/certificates/ordered/renew", status: 202})
	c.do(t, exchange{op: "deleteCertificate", method: "DELETE", path: "/v1/certificates/ordered", status: 200})
	rev := fmt.Sprint(applied["revision"])
	c.do(t, exchange{op: "listRevisions", method: "GET", path: "/v1/revisions?limit=2", status: 200})
	c.do(t, exchange{op: "getRevision", method: "GET", path: "/v1/revisions/" + rev, status: 200})
	c.do(t, exchange{op: "getRevision", method: "GET", path: "/v1/revisions/999999", status: 404})
	c.do(t, exchange{op: "diffRevisions", method: "GET", path: "/v1/revisions/" + rev + "/diff?against=1", status: 200})
	c.do(t, exchange{op: "rollback", method: "POST", path: "/v1/revisions/" + rev + "/rollback", status: 200})
	for _, k := range []string{
		"Route r routes", "EndpointSet web-a endpoint-sets", "LocalityDrain away locality-drains", "Service web services",
		"Gateway edge gateways", "Certificate tls certificates", "CertificateIssuer ca certificate-issuers",
		"RateLimitPolicy limits rate-limit-policies",
		"AuthPolicy staff auth-policies", "License main licenses",
	} {
		f := strings.Fields(k)
		c.do(t, exchange{op: "delete" + f[0], method: "DELETE", path: "/v1/" + f[2] + "/" + f[1], status: 200})
	}
	page, _ := c.do(t, exchange{op: "audit", method: "GET", path: "/v1/audit?limit=2&kind=Route", status: 200})
	c.do(t, exchange{op: "audit", method: "GET", path: "/v1/audit?limit=2&kind=Route&cursor=" +
		fmt.Sprint(page["next_cursor"]), status: 200})
	c.do(t, exchange{op: "exportAudit", method: "GET", path: "/v1/audit/export?since=2026-01-01T00:00:00Z", status: 200})
	c.do(t, exchange{op: "exportAudit", method: "GET", path: "/v1/audit/export?since=today", status: 400, invalid: true})
	c.do(t, exchange{op: "verifyAudit", method: "GET", path: "/v1/audit/verify", status: 200})
	c.do(t, exchange{op: "status", method: "GET", path: "/v1/status", status: 200})
	c.do(t, exchange{op: "proxies", method: "GET", path: "/v1/proxies", status: 200})
	c.do(t, exchange{op: "nodes", method: "GET", path: "/v1/nodes", status: 200})
	c.accessLog(t)
	c.do(t, exchange{op: "accessLog", method: "GET", path: "/v1/access-log?status=6xx", status: 400, invalid: true})
	c.do(t, exchange{op: "metricsSummary", method: "GET", path: "/v1/metrics/summary", status: 200})
	c.do(t, exchange{op: "serviceHealth", method: "GET", path: "/v1/services/demo/health", status: 200})
	c.do(t, exchange{op: "serviceHealth", method: "GET", path: "/v1/services/nobody/health", status: 404})
	token, err := s.Token()
	if err != nil {
		t.Fatal(err)
	}
	c.do(t, exchange{op: "signIn", method: "POST", path: "/v1/session", body: `{"token":"` + token + `"}`, status: 201})
	c.do(t, exchange{op: "signIn", method: "POST", path: "/v1/session", body: `{"token":"mp_wrong"}`, status: 401})
	c.do(t, exchange{op: "signIn", method: "POST", path: "/v1/session", body: `{}`, status: 401, invalid: true})
	c.do(t, exchange{op: "session", method: "GET", path: "/v1/session", status: 200})
	c.do(t, exchange{op: "signOut", method: "DELETE", path: "/v1/session", status: 204})
	for _, x := range []exchange{
		{op: "health", path: "/healthz"},
		{op: "ready", path: "/readyz"},
		{op: "metrics", path: "/metrics"},
		{op: "openapi", path: "/v1/openapi.json"},
	} {
		x.method, x.status = "GET", 200
		c.do(t, x)
	}
	c.tokens(t)
	c.users(t)
	c.events(t, rev)
	for op := range c.success {
		t.Errorf("not replayed: %s", op)
	}
}

// plural is a kind's plural in operation ids: RateLimitPolicies of rate-limit-policies.
func plural(path string) string {
	out := ""
	for word := range strings.SplitSeq(path, "-") {
		out += strings.ToUpper(word[:1]) + word[1:]
	}
	return out
}

// users makes one, who signs in, uses what is his own, and is changed and deleted.
func (c *contract) users(t *testing.T) {
	t.Helper()
	c.do(t, exchange{op: "signInWays", method: "GET", path: "/v1/session/ways", status: 200})
	c.do(t, exchange{op: "createUser", method: "POST", path: "/v1/users", body: c.examples["createUser"], status: 201})
	c.do(t, exchange{op: "createUser", method: "POST", path: "/v1/users", body: c.examples["createUser"], status: 409})
	c.do(t, exchange{
		op: "createUser", method: "POST", path: "/v1/users", body: `{"name":"A b","role":"viewer","password":"x"}`,
		status: 422, invalid: true,
	})
	c.do(t, exchange{op: "listUsers", method: "GET", path: "/v1/users", status: 200})
	c.do(t, exchange{op: "updateUser", method: "PATCH", path: "/v1/users/alice", body: c.examples["updateUser"], status: 200})
	c.do(t, exchange{op: "updateUser", method: "PATCH", path: "/v1/users/none", body: `{"disabled":true}`, status: 404})
	_, h := c.do(t, exchange{
		op: "signInPassword", method: "POST", path: "/v1/session/password", body: c.examples["signInPassword"], status: 201,
	})
	c.do(t, exchange{
		op: "signInPassword", method: "POST", path: "/v1/session/password", body: `{"name":"alice","password":"wrong"}`,
		status: 401,
	})
	cookie := func(h http.Header) map[string]string {
		value, _, _ := strings.Cut(h.Get("Set-Cookie"), ";")
		return map[string]string{"Cookie": value}
	}
	_, h = c.do(t, exchange{
		op: "changePassword", method: "POST", path: "/v1/account/password", body: c.examples["changePassword"], status: 200,
		header: cookie(h),
	})
	mine := cookie(h)
	c.do(t, exchange{
		op: "changePassword", method: "POST", path: "/v1/account/password", body: c.examples["changePassword"], status: 422,
		header: mine,
	})
	c.do(t, exchange{op: "listSessions", method: "GET", path: "/v1/account/sessions", status: 409}) // a token has none
	c.do(t, exchange{
		op: "createOwnToken", method: "POST", path: "/v1/account/tokens", status: 201, header: mine,
		body: `{"name":"ci","role":"editor","expires_at":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"}`,
	})
	c.do(t, exchange{
		op: "createOwnToken", method: "POST", path: "/v1/account/tokens", status: 422, header: mine,
		body: `{"name":"ci","role":"editor"}`,
	})
	c.do(t, exchange{op: "listOwnTokens", method: "GET", path: "/v1/account/tokens", status: 200, header: mine})
	c.do(t, exchange{op: "deleteOwnToken", method: "DELETE", path: "/v1/account/tokens/ci", status: 200, header: mine})
	c.do(t, exchange{op: "deleteOwnToken", method: "DELETE", path: "/v1/account/tokens/ci", status: 404, header: mine})
	list, _ := c.do(t, exchange{op: "listSessions", method: "GET", path: "/v1/account/sessions", status: 200, header: mine})
	id := list["items"].([]any)[0].(map[string]any)["id"].(string)
	c.do(t, exchange{op: "endSession", method: "DELETE", path: "/v1/account/sessions/" + id, status: 204, header: mine})
	c.do(t, exchange{op: "listSessions", method: "GET", path: "/v1/account/sessions", status: 401, header: mine})
	c.do(t, exchange{op: "deleteUser", method: "DELETE", path: "/v1/users/alice", status: 200})
	c.do(t, exchange{op: "deleteUser", method: "DELETE", path: "/v1/users/alice", status: 404})
}

func (c *contract) tokens(t *testing.T) {
	t.Helper()
	bearer := func(secret any) map[string]string {
		return map[string]string{"Authorization": fmt.Sprint("Bearer ", secret)}
	}
	admin, _ := c.do(t, exchange{
		op: "createToken", method: "POST", path: "/v1/tokens",
		body: `{"name":"root","role":"admin"}`, status: 201,
	})
	viewer, _ := c.do(t, exchange{
		op: "createToken", method: "POST", path: "/v1/tokens",
		body: `{"name":"reader","role":"viewer"}`, status: 201, header: bearer(admin["token"]),
	})
	c.do(t, exchange{
		op: "createToken", method: "POST", path: "/v1/tokens", body: `{"name":"reader","role":"viewer"}`,
		status: 409,
	})
	c.do(t, exchange{op: "createToken", method: "POST", path: "/v1/tokens", body: c.examples["createToken"], status: 201})
	c.do(t, exchange{
		op: "createToken", method: "POST", path: "/v1/tokens", body: `{"name":"x","role":"god"}`, status: 422,
		invalid: true,
	})
	c.do(t, exchange{op: "listTokens", method: "GET", path: "/v1/tokens", status: 200})
	c.do(t, exchange{op: "listTokens", method: "GET", path: "/v1/tokens", status: 403, header: bearer(viewer["token"])})
	c.do(t, exchange{op: "listRoutes", method: "GET", path: "/v1/routes", status: 200, header: bearer(viewer["token"])})
	c.do(t, exchange{
		op: "putRoute", method: "PUT", path: "/v1/routes/x",
		body: `{"spec":{"direct_response":{"status":200}}}`, status: 403, header: bearer(viewer["token"]),
	})
	c.do(t, exchange{op: "deleteToken", method: "DELETE", path: "/v1/tokens/root", status: 200})
	c.do(t, exchange{op: "deleteToken", method: "DELETE", path: "/v1/tokens/bootstrap", status: 409})
	c.do(t, exchange{op: "deleteToken", method: "DELETE", path: "/v1/tokens/none", status: 404})
	c.do(t, exchange{op: "deleteToken", method: "DELETE", path: "/v1/tokens/reader", status: 200})
	c.do(t, exchange{op: "listRoutes", method: "GET", path: "/v1/routes", status: 401, header: bearer(viewer["token"])})
	entries, _ := c.do(t, exchange{op: "audit", method: "GET", path: "/v1/audit?kind=Token&object=reader", status: 200})
	if items, ok := entries["items"].([]any); !ok || len(items) != 2 {
		t.Errorf("the audit has not the token's making and deletion: %v", entries)
	}
}

// accessLog watches until it is said whether Envoys tell.
func (c *contract) accessLog(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.API+"/v1/access-log?host=*.example.com&status=404,5xx", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.HTTP().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("access log: %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			var state struct{ Proxies, Silent *int }
			if err := json.Unmarshal([]byte(data), &state); err != nil || state.Proxies == nil || state.Silent == nil {
				t.Fatalf("the first event is %s: %v", data, err)
			}
			delete(c.success, "accessLog 200")
			return
		}
	}
	t.Fatal("the access log ended")
}

// events resumes the stream of events one revision back, and finds that one.
func (c *contract) events(t *testing.T, rev string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.API+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	if _, err := fmt.Sscan(rev, &n); err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Last-Event-ID", fmt.Sprint(n-1))
	resp, err := c.HTTP().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("events: %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	var ids []string
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			ids = append(ids, id)
		}
		if lines.Text() == "event: status" {
			break
		}
	}
	for i, id := range ids {
		if id != fmt.Sprint(n+int64(i)) {
			t.Fatalf("events after %d have the ids %v", n-1, ids)
		}
	}
	if len(ids) < 5 {
		t.Fatalf("only %v after %d", ids, n-1)
	}
	delete(c.success, "events 200")
}
