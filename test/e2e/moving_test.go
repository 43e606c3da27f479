package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
)

// house is a configuration with every kind of secret, and the secrets.
type house struct {
	a          *ownAuthority
	https      int
	chain, key string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{a: newAuthority(t), https: ports[0]}
	h.chain, h.key = h.a.issue(t, "tls.test")
	return h
}

// furnish writes the configuration.
func (h *house) furnish(t *testing.T, s *harness.System) {
	t.Helper()
	type object = map[string]any
	resource := func(kind, name string, spec any) object {
		return object{"kind": kind, "name": name, "owner": "house", "labels": object{"room": "hall"}, "spec": spec}
	}
	text := func(s string) any { return json.RawMessage(s) }
	web := object{"backends": []any{object{"service": "web"}}}
	with := func(more object) object {
		for k, v := range web {
			more[k] = v
		}
		return more
	}
	call(t, s, "POST", s.API+"/v1/apply?wait=live", object{"resources": []any{
		resource("Certificate", "tls", object{"chain": h.chain, "private_key": h.key}),
		resource("Certificate", "ca", object{"chain": h.a.PEM}),
		resource("Service", "web", text(`{"endpoints":[{"host":"127.0.0.1","port":`+echo(t)+`}]}`)),
		resource("AuthPolicy", "staff", text(`{"jwt":{"keys":[`+hmacKey("one", firstSecret)+`]},
			"tokens":[{"name":"machine","value":"`+opaque+`"}]}`)),
		resource("License", "main", text(`{"key":"`+licenseKey()+`","features":["multi-cloud"],
			"gates":[{"feature":"multi-cloud","paths":["/multi"]}]}`)),
		resource("Gateway", "default", object{"license": "main", "listeners": []any{
			object{"name": "http", "port": s.ProxyPort},
			object{"name": "https", "port": h.https, "protocol": "https", "certificates": []string{"tls"}},
		}}),
		resource("Gateway", "edge", text(`{"listeners":[{"name":"http","port":1}],
			"api_keys":[{"name":"a","key":"a-key-of-the-first-place"}]}`)),
		resource("Route", "open", with(object{"hosts": []string{"open.test", "tls.test"}})),
		resource("Route", "staff", with(object{"hosts": []string{"staff.test"}, "auth_policy": "staff"})),
	}}, 200)
}

// secrets is the file that apply needs elsewhere.
func (h *house) secrets() string {
	return fmt.Sprintf("Certificate/tls:\n  private_key: |\n    %s\n"+
		"AuthPolicy/staff:\n  jwt.keys.one.secret: %s\n  tokens.machine.value: %s\nLicense/main: {key: %s}\n",
		strings.ReplaceAll(strings.TrimSpace(h.key), "\n", "\n    "), firstSecret, opaque, licenseKey())
}

// works asks for everything that needs a secret.
func (h *house) works(t *testing.T, s *harness.System) {
	t.Helper()
	open, staff := visit(t, s, "open.test"), visit(t, s, "staff.test")
	open.want(200, "/", "")
	open.want(200, "/multi", "")
	staff.want(401, "/", "")
	staff.want(200, "/", signed(t, "one", firstSecret, nil))
	staff.want(200, "/", opaque)
	status, _, cn, _, _ := fetch(t, browser(h.a, "tls.test", nil), strconv.Itoa(h.https), "tls.test")
	if status != 200 || cn != "tls.test" {
		t.Errorf("https answers %d with the certificate of %s", status, cn)
	}
}

// TestMovingHouse: what is exported from one place works in another one, whose Envoys keep their keys. Every
// secret that is missing there is said before anything is done.
func TestMovingHouse(t *testing.T) {
	h := newHouse(t)
	a, err := harness.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	leave := sync.OnceValue(a.Close)
	t.Cleanup(func() { _ = leave() }) // where the test ends before
	h.furnish(t, a)
	h.works(t, a)
	from := &terminalOf{T: t, s: a, dir: t.TempDir()}
	all := from.text("export")
	from.says(all, "#     Certificate/tls:", "#       private_key: ...", "#       jwt.keys.one.secret: ...",
		"#       key: ...")
	if strings.Contains(all, "api_keys") || strings.Contains(all, "PRIVATE KEY") {
		t.Errorf("the export has a key in it:\n%s", all)
	}
	from.says(from.text("export", "gateways", "--api-keys"), "api_keys", "name: bootstrap")
	if err := leave(); err != nil { // its ports are needed
		t.Fatal(err)
	}

	b := start(t, "--no-demo")
	keys := func() any {
		return call(t, b, "GET", b.API+"/v1/gateways/default", nil, 200)["spec"].(map[string]any)["api_keys"]
	}
	own := keys()
	c := &terminalOf{T: t, s: b, dir: t.TempDir()}
	c.file("all.yaml", all)
	for _, command := range []string{"apply", "diff"} {
		_, e := c.run(1, command, "-f", "all.yaml")
		c.says(e, "all.yaml:", "Certificate/tls spec.private_key is missing",
			"AuthPolicy/staff spec.jwt.keys[0].secret is missing", "AuthPolicy/staff spec.tokens[0] has neither value "+
				"nor sha256", "License/main spec.key is missing", "--secrets FILE",
			"    AuthPolicy/staff:\n      jwt.keys.one.secret: ...\n      tokens.machine.value: ...",
			"    License/main:\n      key: ...")
		if strings.Contains(e, "Certificate/ca") {
			t.Errorf("what needs no secret is said to:\n%s", e)
		}
	}
	// What else is wrong is said with it.
	c.file("more.yaml", all+"---\nkind: Route\nname: astray\nspec: {backends: [{service: nowhere}]}\n")
	_, e := c.run(1, "apply", "-f", "more.yaml")
	c.says(e, "License/main spec.key is missing", `names the service "nowhere"`)
	for text, want := range map[string]string{
		"Certificate/tsl: {private_key: x}":      "secrets.yaml:1: Certificate/tsl is not in the files",
		"AuthPolicy/staff: {jwt.keys.two: hush}": "secrets.yaml:1: AuthPolicy/staff jwt.keys.two is no secret",
		"License/main: hush":                     "secrets.yaml:1: must be a mapping",
		"License/main: {key: [hush]}":            "secrets.yaml:1: License/main key must be text",
	} {
		c.file("secrets.yaml", text+"\n")
		_, e := c.run(1, "apply", "-f", "all.yaml", "--secrets", "secrets.yaml")
		c.says(e, want)
		if strings.Contains(e, "hush") {
			t.Errorf("a secret is repeated:\n%s", e)
		}
	}
	if now := c.json("status"); now["revision"] != 1.0 {
		t.Errorf("what was refused made revision %v", now["revision"])
	}

	c.file("secrets.yaml", h.secrets())
	if err := os.Chmod(c.dir+"/secrets.yaml", 0o644); err != nil {
		t.Fatal(err)
	}
	out, e := c.run(0, "apply", "-f", "all.yaml", "--secrets", "secrets.yaml", "--wait")
	c.says(out, "create License/main", "update Gateway/default", "live on 1 proxy")
	c.says(e, "the secrets in secrets.yaml can be read by other users", "chmod 600")
	proxy := b.Proxy
	b.Proxy = a.Proxy // the gateway's listeners have moved as well
	h.works(t, b)
	if now := keys(); fmt.Sprint(now) != fmt.Sprint(own) {
		t.Errorf("the keys of Envoys are %s, and were %s", now, own)
	}
	c.in(c.text("export"), 0, "diff", "-f", "-")
	if o := c.json("get", "route", "open"); o["owner"] != "house" || fmt.Sprint(o["labels"]) != "map[room:hall]" {
		t.Errorf("owner %v, labels %v", o["owner"], o["labels"])
	}

	// Envoy gets in again, too. The system's own --proxy-port moves the listener back.
	b.Proxy = proxy
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.works(t, b)
}

var remedy = regexp.MustCompile(`curl -X PATCH (\S+) -H "Authorization: Bearer \$\(cat \S+/token\)" -H ` +
	`'Content-Type: (\S+)' -d '(.*)'`)

// TestLockedOut: where Envoy's key is refused, dev says so within 5 s and again, and what it says mends it.
func TestLockedOut(t *testing.T) {
	s := start(t)
	path := s.API + "/v1/gateways/default"
	call(t, s, "PATCH", path, `{"spec":{"api_keys":[{"name":"elsewhere","key":"a-key-of-another-place"}]}}`, 200)

	// A write that does not speak of the keys keeps them, and an empty list takes them away.
	plain := fmt.Sprintf(`{"spec":{"listeners":[{"name":"http","port":%d}]}}`, s.ProxyPort)
	const other, elsewhere = `{"name":"other","key":"one-more-key-of-another"}`, `{"name":"elsewhere",` +
		`"key":"a-key-of-another-place"}`
	for _, c := range []struct {
		method, url, body string
		keys              int
		warning           string
	}{
		{"PUT", path, plain, 1, ""},
		{"POST", s.API + "/v1/apply", `{"resources":[{"kind":"Gateway","name":"default",` + plain[1:] + `]}`, 1, ""},
		{"PATCH", path, `{"spec":{"limits":{"max_connections":1000}}}`, 1, ""},
		{"PATCH", path, `{"spec":{"api_keys":[` + other + `,` + elsewhere + `]}}`, 2, ""},
		{"PATCH", path, `{"spec":{"api_keys":[` + other + `]}}`, 1, ""},
		{"PATCH", path + "?dry_run=true", `{"spec":{"api_keys":[` + elsewhere + `]}}`, 1, "keeps none of the api_keys"},
		{"PUT", path, strings.Replace(plain, `"listeners"`, `"api_keys":[],"listeners"`, 1), 0, "has no api_keys any more"},
		{"PATCH", path, `{"spec":{"api_keys":[` + elsewhere + `]}}`, 1, "has api_keys now"},
	} {
		answer := call(t, s, c.method, c.url, c.body, 200)
		if w := answer["warnings"]; (w == nil) != (c.warning == "") || !strings.Contains(fmt.Sprint(w), c.warning) {
			t.Errorf("%s %s is warned of with %v", c.method, c.body, w)
		}
		got, _ := call(t, s, "GET", path, nil, 200)["spec"].(map[string]any)["api_keys"].([]any)
		if len(got) != c.keys {
			t.Errorf("%s %s leaves %d keys", c.method, c.body, len(got))
		}
	}

	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	before, ran := len(s.Output()), make(chan error, 1)
	go func() { ran <- s.Run(t.Context()) }()
	said := func() int { return strings.Count(s.Output()[before:], "refuses its key") }
	eventually(t, func() string {
		if s.Pid("envoy") == 0 {
			return "Envoy is not started"
		}
		return ""
	})
	t0 := time.Now()
	for n := 1; n <= 2; n++ {
		eventually(t, func() string {
			if said() < n {
				return fmt.Sprintf("said %d times: %s", said(), s.Output()[before:])
			}
			return ""
		})
		if took := time.Since(t0); n == 1 && took > 5*time.Second {
			t.Errorf("it says why after %v", took)
		}
	}
	text := s.Output()[before:]
	m := remedy.FindStringSubmatch(text)
	if m == nil || !strings.Contains(text, "api_keys elsewhere") || !strings.Contains(text, s.Dir+"/secrets.json") {
		t.Fatalf("it says:\n%s", text)
	}
	call(t, s, "PATCH", m[1], m[3], 200)
	select {
	case err := <-ran:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("it does not become ready: %s", s.Output()[before:])
	}
	if status, body := proxied(t, s, "localhost", "/"); status != 200 {
		t.Errorf("%d %s at %s", status, body, net.JoinHostPort("localhost", strconv.Itoa(s.ProxyPort)))
	}
}

// TestSilentPart: a part that does not answer while the system starts is named, with what it was asked.
func TestSilentPart(t *testing.T) {
	s := start(t, "--no-demo")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	before, ran := len(s.Output()), make(chan error, 1)
	go func() { ran <- s.Run(t.Context()) }()
	stopped := 0
	for limit := time.After(time.Minute); stopped == 0; stopped = s.Pid("api") { // closely: it is soon ready
		select {
		case <-time.After(time.Millisecond):
		case <-limit:
			t.Fatal("the api is not started")
		}
	}
	if err := syscall.Kill(stopped, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if said := s.Output()[before:]; !strings.Contains(said, "waiting for api: ") || !strings.Contains(said, s.API) {
			return "it says: " + said
		}
		return ""
	})
	if err := syscall.Kill(stopped, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
}
