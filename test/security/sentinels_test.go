package security

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/license"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// sentinels are secrets that are like nothing else, in every form in which one may be written.
type sentinels struct {
	t *testing.T
	// forms are by their first eight bytes.
	forms map[string][]written
}

type written struct{ what, text string }

// add adds a secret, which has 12 bytes at least, and that what there is of it in other texts: in hexadecimal, and
// within something that is written in Base64, at each of the three places where it may begin there.
func (s *sentinels) add(what string, secret []byte) {
	texts := []string{string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret))}
	for before, whole := range []int{0, 2, 3} {
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := e.EncodeToString(append(make([]byte, before), secret...))
			if (before+len(secret))%3 != 0 {
				text = text[:len(text)-1] // what follows is in it as well
			}
			texts = append(texts, text[whole:])
		}
	}
	for _, text := range texts {
		s.forms[text[:8]] = append(s.forms[text[:8]], written{what, text})
	}
}

// random makes a secret of letters and digits, which no escaping changes.
func (s *sentinels) random(what string) string {
	secret := "Sentinel" + strings.ReplaceAll(what, " ", "") + rand.Text()
	s.add(what, []byte(secret[len(secret)-20:]))
	return secret
}

// in lists which are in a text.
func (s *sentinels) in(text []byte) []string {
	var begins [1 << 16]bool
	for k := range s.forms {
		begins[int(k[0])<<8|int(k[1])] = true
	}
	found := map[string]bool{}
	for i := 0; i+8 <= len(text); i++ {
		if !begins[int(text[i])<<8|int(text[i+1])] {
			continue
		}
		for _, f := range s.forms[string(text[i:i+8])] {
			if bytes.HasPrefix(text[i:], []byte(f.text)) {
				found[f.what] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// private makes a certificate and its key, and watches for it: the PEM's line that is its own, and the number itself.
func (s *sentinels) private(what, name string) (chain, key string) {
	chain, key = newCA(s.t, what).issue(s.t, name)
	block, _ := pem.Decode([]byte(key))
	// Of the 32 bytes of the number, which begin at 36: what is in one line of the PEM, which ends after each 48.
	s.add(what, block.Bytes[48:66])
	if has := s.in([]byte(key)); !slices.Contains(has, what) {
		s.t.Fatalf("in a private key it finds %v", has)
	}
	return chain, key
}

func (s *sentinels) license(what string) string {
	body := "PENG"
	text := rand.Text()
	for i := range 4 {
		body += "-" + text[4*i:4*i+4]
	}
	s.add(what, []byte(body[5:]))
	return body + "-" + license.Checksum(body)
}

// specs have every secret of the schema.
func (s *sentinels) specs(round string) map[string]any {
	chain, key := s.private("private key "+round, "sentinel.test")
	return map[string]any{
		"certificates/sentinel": map[string]any{"chain": chain, "private_key": key},
		"certificate-issuers/sentinel": map[string]any{
			"directory": "letsencrypt-staging", "terms_agreed": true,
			"external_account": map[string]any{"key_id": "k", "mac_key": s.random("external account " + round)},
			"dns01": map[string]any{"rfc2136": map[string]any{
				"server": "192.0.2.53", "key_name": "k", "key": s.random("dns " + round),
			}},
		},
		"licenses/sentinel": map[string]any{"key": s.license("license " + round), "max_proxies": 100},
		"auth-policies/sentinel": map[string]any{
			"jwt": map[string]any{"keys": []any{map[string]any{
				"kid": "k", "algorithm": "HS256",
				"secret": s.random("hmac "+round) + `"<&\é`,
			}}},
			"tokens": []any{map[string]any{"name": "t", "value": s.random("opaque " + round)}},
		},
		"gateways/sentinel": map[string]any{
			"listeners": []any{map[string]any{"name": "http", "port": 10077}},
			"api_keys":  []any{map[string]any{"name": "k", "key": s.random("cluster key "+round) + `"<&\%`}},
		},
	}
}

// covers fails where a field is marked as a secret, and no document of this test has one there.
func (s *sentinels) covers(specs map[string]any) {
	has := map[string]bool{}
	for path, spec := range specs {
		segment, _, _ := strings.Cut(path, "/")
		k, _ := resource.KindByPath(segment)
		m, wrong := resource.DecodeSpec(k, inJSON(s.t, spec))
		if len(wrong) > 0 {
			s.t.Fatal(path, wrong)
		}
		for _, x := range resource.Secrets(m) {
			if x.Get() != "" {
				has[string(x.Holder().ProtoReflect().Descriptor().FullName())+"."+x.Member] = true
			}
		}
	}
	var walk func(m protoreflect.FullName, fields []resource.SecretField)
	walk = func(m protoreflect.FullName, fields []resource.SecretField) {
		for _, f := range fields {
			name := string(m) + "." + f.Name
			if f.Below != nil {
				walk(f.Message().Descriptor().FullName(), f.Below)
			} else if f.Use != configv1.Secret_SECRET_DIGEST && !has[name] {
				s.t.Errorf("%s is marked as a secret, and no document of this test has it: give it one in specs", name)
			}
		}
	}
	for _, k := range resource.Kinds {
		d := k.New().ProtoReflect().Descriptor()
		walk(d.FullName(), resource.SecretFields(d))
	}
}

func inJSON(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestSentinels: a secret that nobody else has is put wherever one may be: written, changed, tried, refused, deleted
// and brought back, shown to every door, right and wrong. Then it is nowhere but where it has to be: in the settings of
// whom it belongs to, and in Envoy, whose own socket tells it to its own user.
func TestSentinels(t *testing.T) {
	w := &sentinels{t: t, forms: map[string][]written{}}
	s := harness.ForTest(t, []string{"LICENSE_KEY=" + w.license("LICENSE_KEY")}, "--no-demo", "--log-level", "debug")
	raw, err := os.ReadFile(filepath.Join(s.Dir, "secrets.json"))
	if err != nil {
		t.Fatal(err)
	}
	var own map[string]string
	if err := json.Unmarshal(raw, &own); err != nil || len(own) < 4 {
		t.Fatal(own, err)
	}
	for what, secret := range own {
		w.add("dev's "+what, []byte(secret))
	}
	admin, err := s.Token()
	if err != nil {
		t.Fatal(err)
	}
	w.add("the first token", []byte(admin))
	places := map[string][]byte{}
	n := 0
	said := func(what string, text []byte) {
		n++
		places[fmt.Sprintf("%s (%d)", what, n)] = text
	}
	call := func(method, path string, body any, headers ...string) (int, []byte) {
		t.Helper()
		r, is := body.(string)
		if !is && body != nil {
			r = string(inJSON(t, body))
		}
		req, err := http.NewRequestWithContext(t.Context(), method, s.API+path, strings.NewReader(r))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			req.Header.Set(name, value)
		}
		resp, err := s.HTTP().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, answer
	}
	ask := func(want int, method, path string, body any, headers ...string) []byte {
		t.Helper()
		status, answer := call(method, path, body, headers...)
		if status != want {
			t.Errorf("%s %s: %d, want %d: %s", method, path, status, want, answer)
		}
		said(fmt.Sprintf("the answer %d to %s %s", status, method, strings.SplitN(path, "?", 2)[0]), answer)
		return answer
	}

	_, answer := call("POST", "/v1/tokens", `{"name":"sentinel","role":"admin"}`) // the one answer that has it
	var made struct{ Token string }
	if err := json.Unmarshal(answer, &made); err != nil || made.Token == "" {
		t.Fatal(err)
	}
	w.add("a token", []byte(made.Token))
	bearer := "Authorization: Bearer " + made.Token
	wrong := w.random("wrong token")
	for _, before := range []string{"", "1", "12"} { // it knows them again in what is written otherwise
		text := before + wrong + "3"
		for _, as := range []string{
			text, hex.EncodeToString([]byte(text)), base64.StdEncoding.EncodeToString([]byte(text)),
			base64.RawURLEncoding.EncodeToString([]byte(text)),
		} {
			if has := w.in([]byte(as)); !slices.Equal(has, []string{"wrong token"}) {
				t.Fatalf("in %s it finds %v", as, has)
			}
		}
	}

	// Written, tried, changed, and written with an idempotency key, which remembers the answer.
	first, second := w.specs("first"), w.specs("second")
	w.covers(first)
	paths := slices.Sorted(maps.Keys(first))
	for i, path := range paths {
		ask(200, "PUT", "/v1/"+path+"?dry_run=true", map[string]any{"spec": first[path]}, bearer)
		ask(201, "PUT", "/v1/"+path, map[string]any{"spec": first[path]}, bearer, fmt.Sprint("Idempotency-Key: first-", i))
		ask(201, "PUT", "/v1/"+path, map[string]any{"spec": first[path]}, bearer, fmt.Sprint("Idempotency-Key: first-", i))
		ask(200, "PATCH", "/v1/"+path+"?dry_run=true", map[string]any{"spec": second[path]})
	}
	var list []any
	for _, path := range paths {
		segment, name, _ := strings.Cut(path, "/")
		k, _ := resource.KindByPath(segment)
		list = append(list, map[string]any{"kind": k.Name, "name": name, "spec": second[path]})
	}
	before := s.Want(t, "GET", s.API+"/v1/status", nil, 200)["revision"].(float64)
	ask(200, "POST", "/v1/apply?dry_run=true", map[string]any{"resources": list})
	ask(200, "POST", "/v1/apply", map[string]any{"resources": list, "message": "all at once"}, "Idempotency-Key: all")

	// Refused: each secret beside something wrong, in a form that is none, cut off, and as what it is not.
	for _, path := range paths {
		spec := string(inJSON(t, second[path]))
		whole := `{"spec":` + spec + `}`
		ask(400, "PUT", "/v1/"+path, whole[:len(whole)-4])
		ask(422, "PUT", "/v1/"+path, `{"spec":`+strings.TrimSuffix(spec, "}")+`,"no_such_field":1}}`)
		ask(422, "POST", "/v1/apply",
			map[string]any{
				"resources": append([]any{map[string]any{
					"kind": "Route", "name": "x",
					"spec": map[string]any{"auth_policy": "no-such"},
				}}, list...),
			})
	}
	for path, spec := range map[string]string{
		"certificates/bad": `{"chain":"none","private_key":%q}`, "certificates/sentinel": `{"private_key":[%q]}`,
		"licenses/bad": `{"key":%q}`, "licenses/sentinel": `{"key":{"a":%q}}`,
		"auth-policies/short":    `{"jwt":{"keys":[{"kid":"k","algorithm":"HS512","secret":%q}]}}`,
		"auth-policies/base64":   `{"jwt":{"keys":[{"kid":"k","algorithm":"HS256","encoding":"base64","secret":"!%s"}]}}`,
		"auth-policies/rsa":      `{"jwt":{"keys":[{"kid":"k","algorithm":"RS256","secret":%q}]}}`,
		"auth-policies/public":   `{"jwt":{"keys":[{"kid":"k","algorithm":"RS256","public_key":%q}]}}`,
		"auth-policies/blank":    `{"tokens":[{"name":"t","value":" %s"}]}`,
		"auth-policies/sentinel": `{"tokens":[{"name":"t","value":[%q]}]}`,
		"gateways/blank":         `{"listeners":[{"name":"http","port":10076}],"api_keys":[{"name":"k","key":" %s"}]}`,
		"gateways/sentinel":      `{"api_keys":%q}`,
		"auth-policies/digest":   `{"tokens":[{"name":"t","sha256":%q}]}`,
	} {
		ask(422, "PUT", "/v1/"+path, `{"spec":`+fmt.Sprintf(spec, w.random("refused "+path))+`}`)
	}
	_, key := w.private("another's private key", "other.test")
	certificate := maps.Clone(second["certificates/sentinel"].(map[string]any))
	certificate["private_key"] = key
	ask(422, "PUT", "/v1/certificates/sentinel", map[string]any{"spec": certificate})

	// Live, and used: by who may pass and who may not, at every door.
	ask(201, "PUT", "/v1/routes/sentinel?wait=live", `{"spec":{"hosts":["r.sentinel.test"],"auth_policy":"sentinel",`+
		`"direct_response":{"status":200}}}`)
	policy := second["auth-policies/sentinel"].(map[string]any)
	opaque := policy["tokens"].([]any)[0].(map[string]any)["value"].(string)
	c := probe.New(s.Proxy)
	defer c.Close()
	for token, want := range map[string]int{opaque: 200, wrong: 401} {
		if a, _, err := c.Get("r.sentinel.test", "/", "Authorization: Bearer "+token); err != nil || a.Status != want {
			t.Errorf("with a token of clients: %d %v, want %d", a.Status, err, want)
		}
	}
	ask(401, "GET", "/v1/routes", nil, "Authorization: Bearer "+wrong)
	ask(401, "GET", "/v1/routes", nil, "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte("u:"+wrong)))
	ask(404, "DELETE", "/v1/tokens/"+w.random("token in a path"), nil)
	out, err := s.CLI(t.Context(), "token", "delete", w.random("token in place of a name")).CombinedOutput()
	if err == nil {
		t.Errorf("a token that there is not is deleted: %s", out)
	}
	said("marchproxy token delete", out)
	for _, header := range []string{
		"Authorization: Bearer " + wrong, "Authorization: Bearer " + made.Token,
		"X-Api-Key: " + wrong,
	} {
		for _, body := range []string{"", `{"version":"1","services":[],"routes":[{"secret":"` + wrong + `"}]}`} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.XDS+"/v1/config", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			name, value, _ := strings.Cut(header, ": ")
			req.Header.Set(name, value)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(resp.Body)
			if err = errors.Join(err, resp.Body.Close()); err != nil || len(answer) == 0 || resp.StatusCode < 400 {
				t.Errorf("POST /v1/config is answered %d %s (%v)", resp.StatusCode, answer, err)
			}
			said(fmt.Sprintf("the answer %d to POST /v1/config", resp.StatusCode), fmt.Append(answer, resp.Header))
		}
	}

	// A node's agent, with the right key and with a wrong one.
	agents := w.agents(s, own["ClusterKey"])

	// Brought back, and deleted.
	back := fmt.Sprintf("/v1/revisions/%.0f/rollback", before)
	ask(200, "POST", back+"?dry_run=true", nil)
	ask(409, "POST", back, nil)
	ask(200, "POST", back+"?revive_credentials=true", nil)
	ask(200, "POST", "/v1/apply", map[string]any{"resources": list})
	ask(201, "PUT", "/v1/routes/sentinel?wait=live", `{"spec":{"hosts":["r.sentinel.test"],"auth_policy":"sentinel",`+
		`"direct_response":{"status":200}}}`)
	_, socket, err := s.AdminSocket().Do(t.Context(), http.MethodGet, "/config_dump")
	if err != nil {
		t.Fatal(err)
	}
	if has := w.in(socket); !slices.Contains(has, "hmac second") || !slices.Contains(has, "dev's ClusterKey") {
		t.Errorf("Envoy's own socket has %v of the secrets that it works with: this test does not know them again", has)
	}
	looks(t, s, call, said)
	ask(200, "DELETE", "/v1/routes/sentinel", nil)
	for _, path := range paths {
		ask(200, "DELETE", "/v1/"+path, nil, bearer)
	}
	s.Kill("api", "xds") // what they say at a start counts as well
	harness.Eventually(t, func() string {
		if _, err := s.PutLive(t.Context(), "routes/after",
			`{"spec":{"hosts":["after.test"],"direct_response":{"status":200}}}`); err != nil {
			return err.Error()
		}
		return ""
	})
	looks(t, s, call, said)
	for _, a := range agents {
		said("the agent's log", []byte(a.Log()))
	}

	total := 0
	for place, text := range places {
		total += len(text)
		for _, what := range w.in(text) {
			t.Errorf("%s is in %s", what, place)
		}
	}
	for path, raw := range disk(t, s.Dir) {
		total += len(raw)
		switch rel, _ := filepath.Rel(s.Dir, path); rel {
		case "secrets.json", "token": // dev's own, and its token's file
			continue
		case "envoy.json": // what Envoy begins with
			if has := w.in(raw); !slices.Equal(has, []string{"dev's ClusterKey"}) {
				t.Errorf("%s has %v", path, has)
			}
			continue
		}
		for _, what := range w.in(raw) {
			t.Errorf("%s is in %s", what, path)
		}
	}
	t.Logf("%d places and the files, %d MB", len(places), total>>20)
}

// agents runs two for as long as the test, of which one has a wrong key.
func (s *sentinels) agents(sys *harness.System, key string) (out []*harness.Agent) {
	s.t.Helper()
	envoy, err := harness.EnvoyPath()
	if err != nil {
		s.t.Fatal(err)
	}
	nats, err := sys.NATS()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, k := range []string{key, s.random("an agent's wrong key")} {
		ports, err := porttest.Take(1)
		if err != nil {
			s.t.Fatal(err)
		}
		a, err := harness.StartAgent([]string{
			"XDS_SERVER=" + sys.GRPC, "CLUSTER_API_KEY=" + k, "GATEWAY=sentinel", "ENVOY_PATH=" + envoy, "NATS_URL=" + nats,
			fmt.Sprintf("ENVOY_ADMIN_ADDR=127.0.0.1:%d", ports[0]), "ENVOY_CONCURRENCY=1", "MARCHPROXY_RUN_DIR=" + s.t.TempDir(),
			"LOGLEVEL=debug",
		})
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { _ = a.Stop(syscall.SIGTERM) }) // what it says of its end is not looked at here
		out = append(out, a)
	}
	return out
}
