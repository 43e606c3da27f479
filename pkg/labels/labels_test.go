package labels

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestRead: what labels say, by the JSON that is made of them.
func TestRead(t *testing.T) {
	s := Read(map[string]string{
		"marchproxy.enable": "true", "marchproxy.name": "shop", "marchproxy.port": "8080", "marchproxy.weight": "3",
		"marchproxy.zone":             "a",
		"marchproxy.service.protocol": "http2", "marchproxy.service.health_check.http.path": "/ok",
		"marchproxy.service.health_check.interval":               "5s",
		"marchproxy.service.panic_threshold":                     "20",
		"marchproxy.service.health_check.http.expected_statuses": "200, 204",
		"marchproxy.routes.0.hosts":                              "a.example.com, b.example.com",
		"marchproxy.routes.0.path.prefix":                        "/api",
		"marchproxy.routes.0.headers.1.name":                     "x-b", "marchproxy.routes.0.headers.1.value.exact": "2",
		"marchproxy.routes.0.headers.0.name": "x-a", "marchproxy.routes.0.headers.0.value.present": "true",
		"marchproxy.routes.0.websocket": "true", "marchproxy.routes.0.timeout": "30s",
		"marchproxy.routes.moved.redirect.path": "/new", "marchproxy.routes.moved.redirect.status": "301",
		"marchproxy.routes.moved.request_headers": `{"remove":["x-c"]}`,
		"com.docker.compose.project":              "shop",
	})
	if len(s.Problems) > 0 || !s.Enabled || s.Name != "shop" || s.Port != 8080 || s.Weight != 3 || s.Zone != "a" {
		t.Errorf("%+v", s)
	}
	for what, c := range map[string][2]string{
		"the service": {string(s.Service), `{"health_check":{"http":{"expected_statuses":[200,204],"path":"/ok"},` +
			`"interval":"5s"},"panic_threshold":20,"protocol":"http2"}`},
		"route 0": {
			string(s.Routes["0"]),
			`{"headers":[{"name":"x-a","value":{"present":true}},{"name":"x-b","value":{"exact":"2"}}],` +
				`"hosts":["a.example.com","b.example.com"],"path":{"prefix":"/api"},"timeout":"30s","websocket":true}`,
		},
		"route moved": {string(s.Routes["moved"]), `{"redirect":{"path":"/new","status":301},` +
			`"request_headers":{"remove":["x-c"]}}`},
	} {
		if c[0] != c[1] {
			t.Errorf("%s is %s, want %s", what, c[0], c[1])
		}
	}
}

// TestBadLabels: a label that is wrong is said by its name, with what it may be, and takes only its own route with it.
func TestBadLabels(t *testing.T) {
	for _, c := range []struct{ label, value, says string }{
		{"marchproxy.enable", "yes", "is not true or false"},
		{"marchproxy.port", "70000", "is not a number from 1 to 65535"},
		{"marchproxy.name", "Web", "must be an RFC 1123 label"},
		{"marchproxy.router.0.hosts", "a.test", "is not known; there are"},
		{"marchproxy.routes.0", "a.test", "write marchproxy.routes.NAME.FIELD"},
		{"marchproxy.routes.0.host", "a.test", `Route has no field "host"; it has auth_policy, backends`},
		{"marchproxy.routes.0.path", "/", "path has fields of its own (exact, prefix, regex)"},
		{"marchproxy.routes.0.path.prefix.x", "/", "prefix has no fields"},
		{"marchproxy.routes.0.backends.first.service", "x", `"first" is no number of an element`},
		{"marchproxy.routes.0.websocket", "on", `"on" is not true or false`},
		{"marchproxy.routes.0.auth_policy", "none", "a container cannot take the policy off a route"},
		{"marchproxy.routes.0.request_headers", "{", "is no JSON"},
	} {
		s := Read(map[string]string{
			"marchproxy.enable": "true", "marchproxy.routes.good.hosts": "good.test",
			c.label: c.value,
		})
		if len(s.Problems) != 1 || !strings.HasPrefix(s.Problems[0], "label "+c.label+": ") ||
			!strings.Contains(s.Problems[0], c.says) {
			t.Errorf("%s=%s: %q, want %q", c.label, c.value, s.Problems, c.says)
		}
		if names := slices.Sorted(maps.Keys(s.Routes)); !slices.Equal(names, []string{"good"}) {
			t.Errorf("%s=%s: routes %v", c.label, c.value, names)
		}
	}
}

// TestTraefik: what common labels of Traefik come to.
func TestTraefik(t *testing.T) {
	for _, c := range []struct{ rule, want string }{
		{"Host(`a.test`)", "hosts=a.test"},
		{"Host(`A.test`, `b.test`)", "hosts=a.test,b.test"},
		{"Host(`a.test`) || Host(\"b.test\")", "hosts=a.test,b.test"},
		{"Host(`a.test`) && PathPrefix(`/x`)", "hosts=a.test path.prefix=/x"},
		{
			"(Host(`a.test`) || Host(`b.test`)) && Path(`/x`) && Method(`get`, `POST`)",
			"hosts=a.test,b.test methods=GET,POST path.exact=/x",
		},
		{
			"Host(`a.test`) && (Header(`x`, `1`) && Header(`y`, `2`)) && Query(`q`, `3`)",
			"headers.0.name=x headers.0.value.exact=1 headers.1.name=y headers.1.value.exact=2 hosts=a.test query.0.name=q " +
				"query.0.value.exact=3",
		},
		{"HostRegexp(`.*`)", "HostRegexp is not read here"},
		{"!Host(`a.test`)", "!Host is not read here"},
		{"Host(`a.test`) && Host(`b.test`)", "asks for two hosts at once"},
		{"Host(`a.test`", "lacks a comma or a closing parenthesis"},
		{"Host(a.test)", "lacks a value in backticks"},
		{"Host(`a.test`) or", `cannot be read from "or" on`},
	} {
		all, notes := FromTraefik(map[string]string{"traefik.enable": "true", "traefik.http.routers.Web.rule": c.rule})
		var got []string
		for _, label := range slices.Sorted(maps.Keys(all)) {
			if rest, is := strings.CutPrefix(label, "marchproxy.routes.web."); is {
				got = append(got, rest+"="+all[label])
			}
		}
		if text := strings.Join(append(got, notes...), " "); text != c.want &&
			(len(got) > 0 || !strings.Contains(text, c.want)) {
			t.Errorf("%s: %q, want %q", c.rule, text, c.want)
		}
	}
	two := Read(map[string]string{"traefik.enable": "true", "traefik.http.routers.w.rule": "Path(`/a`) || " +
		"PathPrefix(`/b`)"})
	if string(two.Routes["w"]) != `{"path":{"exact":"/a"}}` || string(two.Routes["w-2"]) != `{"path":{"prefix":"/b"}}` {
		t.Errorf("alternatives: %s", two.Routes)
	}
	s := Read(map[string]string{
		"traefik.enable": "true", "traefik.docker.network": "front", "traefik.http.services.w.loadbalancer.server.port": "81",
		"traefik.http.services.w.loadbalancer.server.scheme":    "h2c",
		"traefik.http.services.w.loadBalancer.healthcheck.path": "/ok",
		"traefik.http.routers.w.middlewares":                    "auth", "marchproxy.port": "82",
	})
	if !s.Enabled || s.Network != "front" || s.Port != 82 ||
		string(s.Service) != `{"health_check":{"http":{"path":"/ok"}},"protocol":"http2"}` {
		t.Errorf("%+v", s)
	}
	if len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "middlewares: has no equal here") {
		t.Errorf("what is not done: %q", s.Problems)
	}
	if s := Read(map[string]string{"traefik.http.routers.w.rule": "Host(`a.test`)"}); s.Enabled || len(s.Problems) > 0 {
		t.Errorf("nobody asked for it: %+v", s)
	}
}
