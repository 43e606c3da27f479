package security

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// scope is a sort of bounds, and which kinds can be within it.
type scope struct {
	name   string
	bounds map[string][]string
	never  []string
}

var scopes = []scope{
	{"owners", map[string][]string{"owners": {"team-a"}}, nil},
	{"gateways", map[string][]string{"gateways": {"ga"}}, []string{"RateLimitPolicy", "LocalityDrain"}},
	{"hosts", map[string][]string{"hosts": {"a.test"}}, []string{
		"RateLimitPolicy", "LocalityDrain", "Gateway", "License", "CertificateIssuer",
	}},
	{"kinds", nil, nil}, // one token a kind
}

// team makes everything that a team has, each kind once: what has no host or gateway of its own is used by its route or
// its gateway.
func team(x string) map[string]string {
	return map[string]string{
		"CertificateIssuer": fmt.Sprintf(`{"owner":"team-%s","spec":{"directory":"letsencrypt-staging","terms_agreed":true}}`,
			x),
		"Certificate": fmt.Sprintf(`{"owner":"team-%s","spec":{"chain":%s}}`, x, example("Certificate", "chain")),
		"Service": fmt.Sprintf(`{"owner":"team-%s","spec":{"protocol":"https","tls":{"ca_certificate":"c%s",`+
			`"sni":"%s.test"},"endpoints":[{"host":"192.0.2.7","port":443}]}}`, x, x, x),
		"EndpointSet": fmt.Sprintf(`{"owner":"team-%s","spec":{"service":"s%s","endpoints":[{"host":"192.0.2.8",`+
			`"port":443}]}}`, x, x),
		"LocalityDrain": fmt.Sprintf(`{"owner":"team-%s","spec":{"zone":"%s"}}`, x, x),
		"AuthPolicy": fmt.Sprintf(`{"owner":"team-%s","spec":{"tokens":[{"name":"t",`+
			`"value":"a-token-of-team-%s-0123456789"}]}}`, x, x),
		"License": fmt.Sprintf(`{"owner":"team-%s","spec":{"features":["x"]}}`, x),
		"Gateway": fmt.Sprintf(`{"owner":"team-%s","spec":{"license":"l%s","certificate_issuer":"c%s",`+
			`"listeners":[{"name":"http","port":10070}]}}`, x, x, x),
		"Route": fmt.Sprintf(`{"owner":"team-%s","spec":{"hosts":["%s.test","*.%s.test"],"gateways":["g%s"],`+
			`"auth_policy":"a%s","backends":[{"service":"s%s"}]}}`,
			x, x, x, x, x, x),
		"RateLimitPolicy": fmt.Sprintf(`{"owner":"team-%s","spec":{"gateways":["g%s"],"cidrs":["198.51.%d.0/24"],`+
			`"requests_per_second":100}}`, x, x, x[0]),
	}
}

// example is a member of the example of a kind that the API's document has.
func example(kind, member string) json.RawMessage {
	var doc struct{ Spec map[string]json.RawMessage }
	if err := json.Unmarshal([]byte(config.KindOf(kind).Example), &doc); err != nil {
		panic(fmt.Sprint(kind, err))
	}
	return doc.Spec[member]
}

// name of a team's object: ga is the gateway of team a.
func name(kind, x string) string {
	if kind == "RateLimitPolicy" { // routes have the r
		return "limit-" + x
	}
	return strings.ToLower(kind[:1]) + x
}

// bound is a token's role and sort of bounds.
type bound struct {
	role string
	scope
}

// may says whether the role is enough to write these kinds.
func (b bound) may(kinds ...string) bool {
	for _, kind := range kinds {
		if slices.Index(roles, b.role) < slices.Index(roles, toWrite[kind]) {
			return false
		}
	}
	return true
}

// token is that of the role for these bounds, or for this kind.
func (b bound) token(tokens map[string]string, kind string) string {
	if b.name == "kinds" {
		return tokens[b.role+" kinds "+kind]
	}
	return tokens[b.role+" "+b.name]
}

// TestScopes: every operation that writes, with a token of each role that can be bound and each sort of bounds, on what
// is within them, on what is not, and on what would leave or enter them.
func TestScopes(t *testing.T) {
	s := start(t)
	teamA, teamB := team("a"), team("b")
	for _, k := range resource.Kinds { // in the order in which they refer to each other
		if config.KindOf(k.Name).System {
			continue // nobody's token writes it
		}
		if teamA[k.Name] == "" {
			t.Fatalf("team says nothing of the kind %s, which has bounds like the others", k.Name)
		}
		s.must("PUT", "/v1/"+k.Path+"/"+name(k.Name, "a"), teamA[k.Name], 201)
		s.must("PUT", "/v1/"+k.Path+"/"+name(k.Name, "b"), teamB[k.Name], 201)
	}
	at := s.must("GET", "/v1/status", nil, 200)["revision"].(float64)
	tokens := map[string]string{}
	bounded := []string{"editor", "operator"} // a viewer writes nothing, and an admin has no bounds
	for _, role := range bounded {
		for _, sc := range scopes {
			if sc.bounds != nil {
				tokens[role+" "+sc.name] = s.token(role+"-by-"+sc.name, role, sc.bounds)
			}
		}
		for _, k := range resource.Kinds {
			if config.KindOf(k.Name).System {
				continue
			}
			tokens[role+" kinds "+k.Name] = s.token(role+"-by-kind-"+strings.ToLower(k.Name), role,
				map[string][]string{"kinds": {k.Name}})
		}
	}
	for _, o := range s.operations() {
		if o.method == "GET" || o.role == "" || o.role == "admin" {
			continue
		}
		for _, role := range bounded {
			for _, sc := range scopes {
				b := bound{role, sc}
				switch {
				case o.kind != "":
					s.ofKind(o, b, tokens, teamA, teamB)
				case o.id == "apply":
					s.applies(b, tokens, teamA, teamB)
				case o.id == "signOut", o.id == "explain": // neither changes anything of the configuration
				case strings.HasPrefix(o.path, "/v1/account/"): // a token has none; accounts_test.go has users
				case o.id == "rollback":
					s.rollsBack(b, tokens, at)
				default:
					t.Errorf("%s writes, and nobody has said here what bounds it has", o.id)
				}
			}
		}
	}
	t.Logf("%d answers", s.answers.Load())
}

// refuses holds an answer against what it should be: the role is asked first, then the bounds.
func (s system) refuses(what string, b bound, role, allowed bool, status int, raw string) {
	s.Helper()
	s.answers.Add(1)
	refused := func(rule string) bool { return status == 403 && strings.Contains(raw, `"rule":"`+rule+`"`) }
	switch {
	case !role && !refused("role"):
		s.Errorf("%s by a bound %s: %d %s", what, b.role, status, raw)
	case role && allowed && (status < 200 || status > 299):
		s.Errorf("%s by a %s, bound by %s: %d %s", what, b.role, b.name, status, raw)
	case role && !allowed && (!refused("bounds."+b.name) || !strings.Contains(raw, `is bound to (`)):
		s.Errorf("%s by a %s, outside of its %s: %d %s", what, b.role, b.name, status, raw)
	}
}

func (s system) ofKind(o operation, sc bound, tokens, a, b map[string]string) {
	s.Helper()
	token, within := sc.token(tokens, o.kind), !slices.Contains(sc.never, o.kind)
	role := sc.may(o.kind)
	other := sc.name == "kinds" // whether what is of team b is within
	body := func(of map[string]string) string {
		switch o.method {
		case "PUT":
			return of[o.kind]
		case "PATCH":
			return `{"labels":{"changed":"yes"}}`
		default:
			return ""
		}
	}
	status, raw := s.as(token, o.method, o.url(s, name(o.kind, "a")), body(a))
	conflicts := o.method == "DELETE" || o.id == "renewCertificate"
	if conflicts && status == 409 && within { // it is used, or has no issuer: what is said is not that it must not
		status = 200
	}
	s.refuses(o.id+" of one's own", sc, role, within, status, raw)
	status, raw = s.as(token, o.method, o.url(s, name(o.kind, "b")), body(b))
	if conflicts && status == 409 && other {
		status = 200
	}
	s.refuses(o.id+" of another's", sc, role, other, status, raw)
	if sc.name == "kinds" {
		wrong := "Route"
		if o.kind == wrong {
			wrong = "Service"
		}
		status, raw = s.as(sc.token(tokens, wrong), o.method, o.url(s, name(o.kind, "a")), body(a))
		s.refuses(o.id+" of another kind", sc, role, false, status, raw)
		return
	}
	if o.method != "PUT" {
		return
	}
	// What leaves the bounds, and what enters them.
	if sc.name == "owners" || o.kind == "Route" {
		status, raw = s.as(token, "PUT", o.url(s, name(o.kind, "a"))+"&take_over=true", body(b))
		s.refuses(o.id+" out of them", sc, role, false, status, raw)
		status, raw = s.as(token, "PUT", o.url(s, name(o.kind, "b"))+"&take_over=true", body(a))
		s.refuses(o.id+" into them", sc, role, false, status, raw)
	}
}

// resources is a list for apply.
func resources(of map[string]string, x string, kinds ...string) string {
	var list []string
	for _, kind := range kinds {
		list = append(list, fmt.Sprintf(`{"kind":%q,"name":%q,%s`, kind, name(kind, x), of[kind][1:]))
	}
	return strings.Join(list, ",")
}

func (s system) applies(sc bound, tokens, a, b map[string]string) {
	s.Helper()
	token := sc.token(tokens, "Route")
	for what, c := range map[string]struct {
		list          string
		role, allowed bool
	}{
		"one's own route": {resources(a, "a", "Route"), sc.may("Route"), true},
		"one's own and another's": {
			resources(a, "a", "Route") + "," + resources(b, "b", "Route"), sc.may("Route"),
			sc.name == "kinds",
		},
		"one's own and another kind's": {
			resources(a, "a", "Route", "Service", "RateLimitPolicy"), sc.may("Route", "Service", "RateLimitPolicy"),
			sc.name == "owners",
		},
	} {
		for _, dry := range []bool{true, false} {
			status, raw := s.as(token, "POST", s.API+"/v1/apply?take_over=true", fmt.Sprintf(`{"dry_run":%v,"resources":[%s]}`,
				dry, c.list))
			s.refuses("apply of "+what, sc, c.role, c.allowed, status, raw)
		}
	}
	// The document of the xDS server's door is an apply for its owner.
	doc := `{"services":[],"routes":[{"name":"rb","prefix":"/","cluster_name":"sb"}]}`
	doc = strings.Replace(doc, `[]`, `[{"name":"sb","hosts":["192.0.2.9"],"port":80}]`, 1)
	status, raw := s.as(token, "POST", s.XDS+"/v1/config?timeout=0s&take_over=true", doc)
	s.refuses("POST /v1/config", sc, sc.may("Route"), false, status, raw)
}

func (s system) rollsBack(sc bound, tokens map[string]string, at float64) {
	s.Helper()
	token := sc.token(tokens, "Route")
	back := fmt.Sprintf("%s/v1/revisions/%.0f/rollback", s.API, at)
	s.must("PATCH", "/v1/routes/ra", `{"spec":{"path":{"prefix":"/changed"}}}`, 200)
	status, raw := s.as(token, "POST", back+"?dry_run=true", "")
	s.refuses("rollback of one's own", sc, sc.may("Route"), true, status, raw)
	s.must("PATCH", "/v1/services/sb", `{"labels":{"changed":"yes"}}`, 200)
	s.must("PATCH", "/v1/routes/rb", `{"spec":{"path":{"prefix":"/changed"}}}`, 200)
	status, raw = s.as(token, "POST", back, "")
	s.refuses("rollback of another's", sc, sc.may("Route", "Service"), false, status, raw)
	s.must("POST", fmt.Sprintf("/v1/revisions/%.0f/rollback", at), nil, 200)
}
