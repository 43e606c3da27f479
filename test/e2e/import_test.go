package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/authority"
	"github.com/marchproxy/marchproxy/test/harness"
)

// echoing is a backend that answers with what it was asked: its name, method, host, path with query, and some headers.
func echoing(t *testing.T, name string) (port string) {
	t.Helper()
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Hidden", "from "+name)
		if r.Header.Get("Upgrade") != "" {
			w.Header().Set("Upgrade", "websocket")
			w.Header().Set("Connection", "Upgrade")
			w.WriteHeader(http.StatusSwitchingProtocols)
			return
		}
		_, _ = fmt.Fprintf(w, "%s %s %s %s", name, r.Method, r.Host, r.URL.RequestURI())
		for _, h := range []string{"X-Real-IP", "X-Fixed", "X-Gone", "X-Host", "X-Edge", "X-Canary"} {
			_, _ = fmt.Fprintf(w, " %s=%s", h, r.Header.Get(h))
		}
	}))
	t.Cleanup(b.Close)
	return b.URL[strings.LastIndexByte(b.URL, ':')+1:]
}

// certified writes a certificate of a name, and its key, into a folder.
func certified(t *testing.T, dir, name string) {
	t.Helper()
	ca, err := authority.New("a test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := ca.Issue(authority.Server(time.Hour, name))
	if err != nil {
		t.Fatal(err)
	}
	for ending, text := range map[string]string{".pem": chain, ".key": key} {
		if err := os.WriteFile(filepath.Join(dir, name+ending), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// asking is a request.
type asking struct {
	tls                bool
	method, host, path string
	headers            []string // names and values in turn
}

// door is where a configuration listens: the ports that it names, in its order.
type doors struct{ plain, secure string }

// reply is what is compared of an answer.
type reply struct {
	status                   int
	location, body, own, fix string
}

func (a asking) ask(t *testing.T, d doors) reply {
	t.Helper()
	scheme, port := "http", d.plain
	if a.tls {
		scheme, port = "https", d.secure
	}
	req, err := http.NewRequestWithContext(t.Context(), a.method, scheme+"://"+a.host+":"+port+a.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(a.headers); i += 2 {
		req.Header.Set(a.headers[i], a.headers[i+1])
	}
	c := http.Client{
		Timeout:       20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: a.host},
			DialContext: (&hereDialer{}).dial,
		},
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatalf("%+v: %v", a, err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%+v: %v", a, err)
	}
	out := reply{
		status: res.StatusCode, location: res.Header.Get("Location"), body: string(raw), own: res.Header.Get("X-Own"),
		fix: res.Header.Get("X-Hidden"),
	}
	if u, err := url.Parse(out.location); err == nil && out.location != "" {
		// The ports are other ones in the original, and Envoy leaves that of the request out where it puts a path.
		u.Host = u.Hostname()
		if u.Scheme == "" {
			u.Scheme, u.Host = scheme, a.host
		}
		out.location = u.String()
	}
	out.body = strings.ReplaceAll(out.body, ":"+port, ":PORT")
	if res.StatusCode >= 300 && (!strings.Contains(out.body, " ") || strings.Contains(out.body, "<html>")) {
		out.body = "" // a page for the error
	}
	return out
}

// hereDialer connects to this machine, whatever the name.
type hereDialer struct{ net.Dialer }

func (d *hereDialer) dial(ctx context.Context, _, address string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return d.DialContext(ctx, "tcp", "127.0.0.1:"+port)
}

// listens waits until a port is open.
func listens(t *testing.T, port string) {
	t.Helper()
	eventually(t, func() string {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err != nil {
			return err.Error()
		}
		_ = c.Close()
		return ""
	})
}

// original runs another proxy until the test ends.
func original(t *testing.T, log string, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			raw, _ := os.ReadFile(log)
			t.Logf("%s: %s%s", filepath.Base(name), out.String(), raw)
		}
	})
}

func ports(t *testing.T, n int) (out []string) {
	t.Helper()
	free, err := porttest.Take(n)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range free {
		out = append(out, strconv.Itoa(p))
	}
	return out
}

// imports imports a file into a system, and waits until it is live.
func imports(t *testing.T, c *terminalOf, code int, files ...string) (list string) {
	t.Helper()
	_, list = c.run(code, append(append([]string{"import"}, files...), "--apply", "--owner", "imported",
		"--despite-list", "--wait")...)
	return list
}

// agreeing asks the original and what was made of it, and compares the answers.
func agreeing(t *testing.T, first, second doors, all []asking) {
	t.Helper()
	for _, a := range all {
		if a.method == "" {
			a.method = "GET"
		}
		want, got := a.ask(t, first), a.ask(t, second)
		if got != want {
			t.Errorf("%s %s%s (TLS: %v) %v:\n got %+v\nwant %+v", a.method, a.host, a.path, a.tls, a.headers, got, want)
		}
	}
}

// TestImportNginx: what nginx answers to each request, Envoy answers with the imported configuration.
func TestImportNginx(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	certified(t, c.dir, "shop.example.com")
	shop, api := echoing(t, "shop"), echoing(t, "api")
	dead := ports(t, 1)[0]
	config := func(plain, secure string) string {
		return strings.NewReplacer("PLAIN", plain, "SECURE", secure, "SHOP", shop, "API", api, "DEAD", dead).Replace(`
worker_processes 1;
events {}
http {
    access_log off;
    default_type text/plain;
    map $http_upgrade $connection_upgrade { default upgrade; '' close; }
    upstream shop { server 127.0.0.1:SHOP weight=3; server 127.0.0.1:SHOP; }
    upstream half { server 127.0.0.1:DEAD; server 127.0.0.1:API; }
    server {
        listen PLAIN default_server;
        server_name _;
        location / { return 404; }
        location = /ping { return 200 "pong\n"; }
    }
    server {
        listen PLAIN;
        server_name www.example.com *.old.example.com;
        return 301 https://shop.example.com$request_uri;
    }
    server {
        listen PLAIN;
        server_name gone.example.com;
        return 307 https://new.example.com/moved?to=here;
    }
    server {
        listen PLAIN;
        server_name half.example.com;
        location / { proxy_pass http://half; proxy_set_header Host $host; }
    }
    server {
        listen PLAIN;
        server_name certbot.example.com;
        if ($host = certbot.example.com) { return 301 https://$host$request_uri; }
        return 404;
    }
    server {
        listen PLAIN;
        server_name plain.example.com;
        location /a/ { proxy_pass http://127.0.0.1:API/; proxy_set_header Host $host; }
        location /a/b/ { proxy_pass http://127.0.0.1:API/c/; proxy_set_header Host $host; }
        location / { proxy_pass http://shop; }
    }
    server {
        listen SECURE ssl;
        server_name shop.example.com;
        ssl_certificate shop.example.com.pem;
        ssl_certificate_key shop.example.com.key;
        add_header X-Own "shop" always;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Fixed "100%";
        proxy_set_header X-Gone "";
        proxy_set_header X-Host "$host:$server_port";
        proxy_hide_header X-Hidden;
        location / { proxy_pass http://shop; }
        location = / { proxy_pass http://127.0.0.1:API/home; }
        location = /status { return 200 "fine"; }
        location /api { proxy_pass http://127.0.0.1:API; proxy_read_timeout 5s; }
        location /api/v2/ { proxy_pass http://127.0.0.1:API/two/; add_header X-Own "two" always; }
        location /strip/ { proxy_pass http://127.0.0.1:API/; }
        location /glue/ { proxy_pass http://127.0.0.1:API/x; }
        location ^~ /static/ { proxy_pass http://127.0.0.1:API; }
        location ~ \.php$ { return 403; }
        location ~* ^/(img|media)/.*\.(png|gif)$ { proxy_pass http://127.0.0.1:API; proxy_set_header Host images.internal; }
        location ~ ^/img/ { proxy_pass http://shop; }
        location /rewritten/ { rewrite ^/rewritten/(.*)$ /r/$1 break; proxy_pass http://127.0.0.1:API; }
        location /moved/ { return 302 /elsewhere; }
        location /closed/ { auth_basic "Staff"; auth_basic_user_file /dev/null; proxy_pass http://shop; }
        location /ws { proxy_pass http://127.0.0.1:API; proxy_http_version 1.1; proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; }
    }
}
`)
	}
	p := ports(t, 4)
	first, second := doors{p[0], p[1]}, doors{p[2], p[3]}
	c.file("original.conf", config(first.plain, first.secure))
	c.file("nginx.conf", config(second.plain, second.secure))
	log := filepath.Join(c.dir, "error.log")
	original(t, log, "nginx", "-e", log, "-c", filepath.Join(c.dir, "original.conf"), "-g",
		"daemon off; pid "+filepath.Join(c.dir, "pid")+";")
	listens(t, first.plain)
	list := imports(t, c, 2, "nginx.conf")
	if n := strings.Count(list, "nginx.conf:"); n != 1 || !strings.Contains(list, "auth_basic") {
		t.Errorf("%d lines are listed, want that of auth_basic alone:\n%s", n, list)
	}
	var all []asking
	for _, path := range []string{
		"/", "/?a=1", "/x", "/status", "/status/", "/statusx", "/api", "/api/", "/apix", "/api?x=1", "/api/v2", "/api/v2/",
		"/api/v2/x?y=2", "/strip", "/strip/", "/strip/a/b",
		"/glue/a", "/static/a.php", "/static", "/x.php", "/x.php5", "/img/a.PNG", "/img/a.txt",
		"/media/a.gif", "/media/a", "/rewritten/a?b=c", "/moved/x?y=1", "/moved", "/a%20b", "/ws",
	} {
		all = append(all, asking{tls: true, host: "shop.example.com", path: path, headers: []string{"X-Gone", "1"}})
	}
	for _, host := range []string{
		"www.example.com", "a.b.old.example.com", "gone.example.com", "certbot.example.com",
		"other.test",
	} {
		all = append(all, asking{host: host, path: "/x/y?z=1"}, asking{host: host, path: "/ping"})
	}
	for _, path := range []string{"/", "/a", "/a/", "/a/x", "/a/b", "/a/b/", "/a/b/c?d", "/ab"} {
		all = append(all, asking{host: "plain.example.com", path: path})
	}
	all = append(all, asking{host: "half.example.com", path: "/"}, asking{host: "half.example.com", path: "/"},
		asking{method: "POST", tls: true, host: "shop.example.com", path: "/api/x"},
		asking{tls: true, host: "shop.example.com", path: "/ws", headers: []string{
			"Connection", "Upgrade", "Upgrade",
			"websocket",
		}})
	agreeing(t, first, second, all)
	if got := (asking{tls: true, method: "GET", host: "shop.example.com", path: "/closed/x"}).ask(t,
		second); got.status != 503 {
		t.Errorf("what nginx asks a password for: %+v", got)
	}
}

// TestImportEnvoy: the same of a static Envoy.
func TestImportEnvoy(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	certified(t, c.dir, "shop.example.com")
	shop, api := echoing(t, "shop"), echoing(t, "api")
	config := func(plain, secure string) string {
		manager := `
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          use_remote_address: true
          normalize_path: true
          merge_slashes: true
          strip_any_host_port: true
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
`
		cluster := func(name, port, more string) string {
			return `  - name: ` + name + `
    type: STATIC
    connect_timeout: 2s
    load_assignment: {cluster_name: ` + name + `, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: ` +
				`{address: 127.0.0.1, port_value: ` + port + `}}}}]}]}
` + more
		}
		return `static_resources:
  clusters:
` + cluster("shop", shop, "    health_checks: [{timeout: 1s, interval: 5s, unhealthy_threshold: 3, healthy_threshold: 1, "+
			"http_health_check: {path: /}}]\n") + cluster("api", api, "") + `  listeners:
  - name: plain
    address: {socket_address: {address: 127.0.0.1, port_value: ` + plain + `}}
    filter_chains:
    - filters:` + manager + `            virtual_hosts:
            - {name: shop, domains: [shop.example.com], require_tls: ALL, routes: [{match: {prefix: /}, route: {cluster: shop}}]}
            - name: rest
              domains: ["*"]
              routes:
              - {match: {path: /ping}, direct_response: {status: 200, body: {inline_string: pong}}}
              - {match: {prefix: /}, redirect: {host_redirect: shop.example.com, https_redirect: true, response_code: FOUND}}
  - name: secure
    address: {socket_address: {address: 127.0.0.1, port_value: ` + secure + `}}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates: [{certificate_chain: {filename: DIR/shop.example.com.pem}, private_key: {filename: DIR/shop.example.com.key}}]
      filters:` + manager + `            response_headers_to_add: [{header: {key: x-own, value: edge}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
            response_headers_to_remove: [x-hidden]
            virtual_hosts:
            - name: shop
              domains: ["shop.example.com", "*.shop.example.com"]
              request_headers_to_add: [{header: {key: x-fixed, value: "100%%"}}]
              request_headers_to_remove: [x-gone]
              routes:
              - {match: {path: /}, route: {cluster: api, prefix_rewrite: /home}}
              - {match: {prefix: /api/, headers: [{name: x-canary, string_match: {exact: "yes"}}]}, route: {cluster: shop, prefix_rewrite: /}}
              - {match: {prefix: /api/}, route: {cluster: api, prefix_rewrite: /}}
              - {match: {prefix: /api}, route: {cluster: api, host_rewrite_literal: api.internal}}
              - {match: {path_separated_prefix: /seg}, route: {cluster: api}}
              - {match: {prefix: /q, query_parameters: [{name: a, string_match: {exact: "1"}}]}, direct_response: {status: 202}}
              - {match: {prefix: /m, headers: [{name: ":method", string_match: {exact: POST}}]}, direct_response: {status: 203}}
              - {match: {prefix: /Case, case_sensitive: false}, direct_response: {status: 200, body: {inline_string: any case}}}
              - {match: {safe_regex: {regex: "/item/[0-9]+"}}, route: {cluster: api, regex_rewrite: {pattern: {regex: "^/item/([0-9]+)"}, substitution: "/items/\\1"}}}
              - {match: {path: /gone}, redirect: {path_redirect: /new, response_code: SEE_OTHER}}
              - {match: {prefix: /}, route: {cluster: shop, timeout: 5s}}
              - {match: {prefix: /never}, direct_response: {status: 418}}
`
	}
	p := ports(t, 5)
	first, second := doors{p[0], p[1]}, doors{p[2], p[3]}
	admin := "admin: {address: {socket_address: {address: 127.0.0.1, port_value: " + p[4] + "}}}\n"
	place := func(text string) string { return strings.ReplaceAll(text, "DIR", c.dir) }
	c.file("original.yaml", admin+place(config(first.plain, first.secure)))
	c.file("envoy.yaml", place(config(second.plain, second.secure)))
	envoy, err := harness.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	original(t, "", envoy, "-c", filepath.Join(c.dir, "original.yaml"), "--use-dynamic-base-id", "--concurrency", "1",
		"-l", "error")
	listens(t, first.secure)
	if list := imports(t, c, 0, "envoy.yaml"); strings.Contains(list, "envoy.yaml:") {
		t.Errorf("is listed: %s", list)
	}
	var all []asking
	for _, path := range []string{
		"/", "/?a=1", "/x", "/api", "/apix?y", "/api/", "/api/x?y=1", "/seg", "/seg/x", "/segx", "/q?a=1", "/q?a=2", "/m", "/case/x", "/CASE",
		"/item/12", "/item/12a", "/gone?x=1", "/never",
	} {
		all = append(all, asking{tls: true, host: "shop.example.com", path: path, headers: []string{"X-Gone", "1"}},
			asking{tls: true, host: "a.b.shop.example.com", path: path, headers: []string{"X-Canary", "yes"}})
	}
	for _, host := range []string{"shop.example.com", "other.test"} {
		all = append(all, asking{host: host, path: "/x/y?z=1"}, asking{host: host, path: "/ping"})
	}
	all = append(all, asking{method: "POST", tls: true, host: "shop.example.com", path: "/m/x"})
	agreeing(t, first, second, all)
}

// answers compares answers with what the original's documents say.
func answering(t *testing.T, d doors, all []expecting) {
	t.Helper()
	for _, a := range all {
		if a.method == "" {
			a.method = "GET"
		}
		got := a.ask(t, d)
		if got.status != a.status || got.location != a.location || !strings.HasPrefix(got.body, a.body) {
			t.Errorf("%s %s%s (TLS: %v): %+v, want %d %q %q", a.method, a.host, a.path, a.tls, got, a.status, a.location, a.body)
		}
	}
}

type expecting struct {
	asking
	status         int
	location, body string
}

// TestImportTraefik: files and labels of Traefik answer as it does.
func TestImportTraefik(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	certified(t, c.dir, "shop.example.com")
	shop, api := echoing(t, "shop"), echoing(t, "api")
	p := ports(t, 2)
	d := doors{p[0], p[1]}
	c.file("traefik.toml",
		"[entryPoints.web]\n  address = \":"+d.plain+"\"\n[entryPoints.websecure]\n  address = \":"+d.secure+"\"\n")
	c.file("dynamic.yml", strings.NewReplacer("SHOP", shop, "API", api).Replace(`
http:
  routers:
    shop: {rule: "Host(`+"`shop.example.com`"+`)", entryPoints: [websecure], service: shop, middlewares: [secure], tls: {}}
    api: {rule: "Host(`+"`shop.example.com`"+`) && PathPrefix(`+"`/api`"+`)", entryPoints: [websecure], service: api, middlewares: [strip], tls: {}}
    post: {rule: "Host(`+"`shop.example.com`"+`) && Method(`+"`POST`"+`) && PathPrefix(`+"`/api`"+`)", entryPoints: [websecure], service: shop, tls: {}}
    admin: {rule: "Host(`+"`shop.example.com`"+`) && PathPrefix(`+"`/admin`"+`)", entryPoints: [websecure], service: shop, middlewares: [users], tls: {}}
    number: {rule: "Host(`+"`shop.example.com`"+`) && PathRegexp(`+"`^/n/[0-9]+$`"+`)", entryPoints: [websecure], service: api, tls: {}}
    plain: {rule: "Host(`+"`shop.example.com`"+`)", entryPoints: [web], service: shop, middlewares: [to-https]}
    first: {rule: "PathPrefix(`+"`/health`"+`)", priority: 1000, entryPoints: [web], service: api}
  services:
    shop: {loadBalancer: {servers: [{url: "http://127.0.0.1:SHOP"}], healthCheck: {path: /, interval: 1s}}}
    api: {weighted: {services: [{name: one, weight: 3}, {name: two, weight: 1}]}}
    one: {loadBalancer: {servers: [{url: "http://127.0.0.1:API"}]}}
    two: {loadBalancer: {servers: [{url: "http://127.0.0.1:API"}]}}
  middlewares:
    secure: {headers: {stsSeconds: 100, customResponseHeaders: {X-Own: shop}, customRequestHeaders: {X-Edge: traefik}}}
    strip: {stripPrefix: {prefixes: [/api]}}
    users: {basicAuth: {users: ["a:secretsecret"]}}
    to-https: {redirectScheme: {scheme: https, permanent: true}}
tls: {certificates: [{certFile: shop.example.com.pem, keyFile: shop.example.com.key}]}
`))
	out, list := c.run(2, "import", "traefik.toml", "dynamic.yml", "--secrets", "secrets.yaml")
	for what, text := range map[string]string{"what is printed": out, "the list": list} {
		if strings.Contains(text, "secretsecret") || strings.Contains(text, "PRIVATE KEY") {
			t.Errorf("%s has a secret", what)
		}
	}
	c.says(list, "dynamic.yml:19: middleware users (basicAuth)")
	c.file("imported.yaml", out)
	c.run(0, "apply", "-f", "imported.yaml", "--secrets", "secrets.yaml", "--wait")
	on := func(secure bool, path string) asking {
		return asking{tls: secure, host: "shop.example.com", path: path}
	}
	post := on(true, "/api/x")
	post.method = "POST"
	answering(t, d, []expecting{
		{on(true, "/"), 200, "", "shop GET shop.example.com / X-Real-IP= X-Fixed= X-Gone= X-Host= X-Edge=traefik"},
		{on(true, "/api/x?y=1"), 200, "", "api GET shop.example.com /x?y=1 "},
		{on(true, "/api"), 200, "", "api GET shop.example.com / "},
		{on(true, "/apix"), 200, "", "api GET shop.example.com /x "},
		{post, 200, "", "shop POST shop.example.com /api/x "},
		{on(true, "/admin/x"), 503, "", ""},
		{on(true, "/n/12"), 200, "", "api GET shop.example.com /n/12 "},
		{on(true, "/n/12a"), 200, "", "shop "},
		{on(false, "/x?y=1"), 301, "https://shop.example.com/x?y=1", ""},
		{on(false, "/healthy"), 200, "", "api "},
		{asking{host: "other.test", path: "/health"}, 200, "", "api "},
		{asking{host: "other.test", path: "/"}, 404, "", ""},
	})
}

// TestImportLabels: labels of a compose file.
func TestImportLabels(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	p := ports(t, 1)
	c.file("compose.yaml", `services:
  traefik: {image: traefik, command: ["--entrypoints.web.address=:`+p[0]+`"]}
  web:
    container_name: localhost
    labels:
    - traefik.http.routers.web.rule=Host(`+"`labels.example.com`"+`) && PathPrefix(`+"`/x`"+`)
    - traefik.http.routers.web.middlewares=add
    - traefik.http.middlewares.add.addprefix.prefix=/base
    - traefik.http.services.web.loadbalancer.server.port=`+echoing(t, "labels")+"\n")
	imports(t, c, 0, "compose.yaml")
	answering(t, doors{plain: p[0]}, []expecting{
		{asking{host: "labels.example.com", path: "/x/y?z"}, 200, "", "labels GET labels.example.com /base/x/y?z "},
		{asking{host: "labels.example.com", path: "/y"}, 404, "", ""},
	})
}

// TestImportNPM: hosts of Nginx Proxy Manager's database.
func TestImportNPM(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	certified(t, c.dir, "shop.example.com")
	shop, api := echoing(t, "shop"), echoing(t, "api")
	pem, err := os.ReadFile(filepath.Join(c.dir, "shop.example.com.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(c.dir, "shop.example.com.key"))
	if err != nil {
		t.Fatal(err)
	}
	c.file("npm.json", strings.NewReplacer("SHOP", shop, "API", api).Replace(`{"proxy_hosts": [
 {"id": 1, "domain_names": ["shop.example.com"], "forward_scheme": "http", "forward_host": "127.0.0.1", "forward_port": SHOP,
  "certificate_id": 1, "ssl_forced": true, "hsts_enabled": true, "allow_websocket_upgrade": true, "enabled": true,
  "advanced_config": "add_header X-Own npm always;\nlocation = /fine { return 200 ok; }",
  "locations": [{"path": "/api/", "forward_scheme": "http", "forward_host": "127.0.0.1/v1/", "forward_port": API}]},
 {"id": 2, "domain_names": ["private.example.com"], "forward_scheme": "http", "forward_host": "127.0.0.1", "forward_port": SHOP,
  "access_list_id": 7, "enabled": true}],
 "redirection_hosts": [{"id": 1, "domain_names": ["old.example.com"], "forward_scheme": "https", "forward_http_code": 301,
  "forward_domain_name": "shop.example.com", "preserve_path": true, "enabled": true}],
 "dead_hosts": [{"id": 1, "domain_names": ["dead.example.com"], "enabled": true}],
 "certificates": [{"id": 1, "provider": "other", "domain_names": ["shop.example.com"],
  "meta": {"certificate": `)+strconv.Quote(string(pem))+`, "certificate_key": `+strconv.Quote(string(key))+`}}]}`)
	out, list := c.run(2, "import", "npm.json", "--secrets", "secrets.yaml")
	if n := strings.Count(list, "npm.json:"); n != 1 || !strings.Contains(list, "deny") {
		t.Errorf("%d lines are listed:\n%s", n, list)
	}
	// Its nginx listens on 80 and 443, where a test does not.
	p := ports(t, 2)
	d := doors{p[0], p[1]}
	c.file("imported.yaml", strings.NewReplacer("port: 80\n", "port: "+d.plain+"\n", "port: 443\n",
		"port: "+d.secure+"\n").Replace(out))
	c.run(0, "apply", "-f", "imported.yaml", "--secrets", "secrets.yaml", "--wait")
	ask := func(secure bool, host, path string) asking { return asking{tls: secure, host: host, path: path} }
	answering(t, d, []expecting{
		{ask(false, "shop.example.com", "/x?y=1"), 301, "https://shop.example.com/x?y=1", ""},
		{ask(true, "shop.example.com", "/x?y=1"), 200, "", "shop GET shop.example.com /x?y=1 X-Real-IP=127.0.0.1"},
		{ask(true, "shop.example.com", "/fine"), 200, "", "ok"},
		{ask(true, "shop.example.com", "/api/a?b=c"), 200, "", "api GET shop.example.com /v1/a?b=c "},
		{ask(false, "private.example.com", "/"), 503, "", ""},
		{ask(false, "old.example.com", "/a?b=c"), 301, "https://shop.example.com/a?b=c", ""},
		{ask(false, "dead.example.com", "/"), 404, "", ""},
		{ask(false, "unknown.example.com", "/"), 404, "", ""},
	})
}

// TestImportGuide: the integration guide's document.
func TestImportGuide(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	c.file("guide.json",
		`{"version": "1", "services": [{"name": "test-backend", "hosts": ["localhost"], "port": `+echoing(t, "guide")+
			`, "protocol": "http"}], "routes": [{"name": "test-route", "prefix": "/api", "cluster_name": "test-backend", "hosts": ["*"], "timeout": 30}]}`)
	out, _ := c.run(0, "import", "guide.json")
	before, _ := c.run(0, "get", "routes", "-o", "json")
	if strings.Contains(before, "test-route") || !strings.Contains(out, "name: test-route") {
		t.Errorf("without --apply it has changed something, or printed nothing:\n%s%s", before, out)
	}
	if _, e := c.run(1, "import", "guide.json", "--apply"); !strings.Contains(e, "--apply needs --owner") {
		t.Error(e)
	}
	imports(t, c, 0, "guide.json")
	for path, want := range map[string]int{"/api/x": 200, "/apix": 404, "/": 404} {
		if status, body := proxied(t, s, "any.test", path); status != want || want == 200 && !strings.HasPrefix(body,
			"guide GET any.test /api/x") {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	c.file("bad.json", `{"services": [], "routes": [{"name": "r", "prefix": "/", "cluster_name": "nobody"}]}`)
	if _, e := c.run(2, "import", "bad.json", "--apply", "--owner", "imported"); !slices.Contains(strings.Split(e, "\n"),
		"bad.json:1: "+
			`$.routes[0].cluster_name: names the service "nobody", which is not in this document; correct it: the document is refused whole`) {
		t.Error(e)
	}
}
