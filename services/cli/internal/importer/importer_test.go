package importer

import (
	"bytes"
	"database/sql"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/services/cli/internal/manifest"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

// imported is what a file comes to, for people: the resources and the list.
func imported(t *testing.T, o Options, names ...string) string {
	t.Helper()
	inputs, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, x := range inputs {
		raw, err := os.ReadFile(filepath.Join("testdata", x.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, x.Name()), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	chain, key, err := certificate.Placeholder()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"shop.pem": chain, "shop.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	if o.Gateway == "" {
		o.Gateway = "default"
	}
	r, err := Read(t.Context(), names, o)
	if err != nil {
		t.Fatal(err)
	}
	manifest.TakeSecrets(r.Files)
	var b bytes.Buffer
	for _, n := range r.Notes {
		fmt.Fprintln(&b, "#", n)
	}
	if err := manifest.WriteYAML(&b, r.Files); err != nil {
		t.Fatal(err)
	}
	return blocks.ReplaceAllString(b.String(), "PEM")
}

// blocks are the certificates, which are new in each run.
var blocks = regexp.MustCompile(`-----BEGIN CERTIFICATE-----(\s+[A-Za-z0-9+/=]+)+\s+-----END CERTIFICATE-----`)

// TestGolden: what real inputs come to, as each format is written by people who use it.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		golden string
		o      Options
		files  []string
	}{
		{"guide", Options{}, []string{"guide.json"}},
		{"envoy", Options{}, []string{"envoy.yaml"}},
		{"traefik", Options{}, []string{"traefik.yml", "dynamic.yml"}},
		{"traefik-agreed", Options{Agreed: true, Gateway: "edge"}, []string{"traefik.yml", "dynamic.yml"}},
		{"traefik-toml", Options{}, []string{"dynamic.toml"}},
		{"compose", Options{}, []string{"compose.yaml"}},
		{"nginx", Options{}, []string{"nginx.conf"}},
		{"npm", Options{}, []string{"npm.sql"}},
	} {
		t.Run(c.golden, func(t *testing.T) {
			name, err := filepath.Abs(filepath.Join("testdata", c.golden+".golden"))
			if err != nil {
				t.Fatal(err)
			}
			got := imported(t, c.o, c.files...)
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s is not what is made now; look at the difference of go test -run TestGolden -update:\n%s", name, got)
			}
			for _, secret := range []string{"secretsecret", "PRIVATE KEY"} {
				if strings.Contains(got, secret) {
					t.Errorf("%s is shown", secret)
				}
			}
		})
	}
}

// TestDatabase: the file of Nginx Proxy Manager itself comes to what its dump does, row by row.
func TestDatabase(t *testing.T) {
	dump, err := os.ReadFile("testdata/npm.sql")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "a database?#%.sqlite")
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(string(dump)); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("VACUUM INTO ?", name); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(imported(t, Options{}, name), name, "npm.sql")
	want, err := os.ReadFile("npm.golden")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the database comes to\n%s", got)
	}
}

// TestRefused: what is no input is refused as a whole, in words that name the file, and repeats nothing of it.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ name, text, from, says string }{
		{"x.txt", "hello", "", "is of no format that is known by its content"},
		{"x.txt", "hello", "caddy", "--from caddy is not known; it is one of npm, guide"},
		{"x.conf", "server { listen 80", "", "cannot be read as nginx's configuration"},
		{"x.yaml", "static_resources: {listeners: secretsecret}", "", "is no bootstrap that an Envoy would take"},
		{"x.yaml", "static_resources: [", "envoy", "x.yaml: "},
		{"x.toml", "[http\n", "", "x.toml: "},
		{"x.sql", "CREATE TABLE `proxy_host` (id int) ENGINE=InnoDB; secretsecret \\'", "", "is no dump of SQLite"},
	} {
		t.Run(c.says, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile(c.name, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Read(t.Context(), []string{c.name}, Options{From: c.from, Gateway: "default"})
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secretsecret") {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

// TestClosed: what says who may come in, and cannot be translated, closes its routes, and nothing more: their requests
// would otherwise be taken by the next route that fits.
func TestClosed(t *testing.T) {
	const head = "server {\n listen 81;\n server_name a.test;\n location / { proxy_pass http://10.0.0.1; }\n"
	for _, c := range []struct{ name, text string }{
		{"password", head + " location /x/ { auth_basic Staff; proxy_pass http://10.0.0.1; }\n}"},
		{"addresses", head + " location /x/ { allow 10.0.0.0/8; deny all; proxy_pass http://10.0.0.1; }\n}"},
		{"another server", head + " location /x/ { auth_request /auth; proxy_pass http://10.0.0.1; }\n}"},
		{"methods", head + " location /x/ { limit_except GET { deny all; } proxy_pass http://10.0.0.1; }\n}"},
		{"condition", head + " location /x/ { if ($arg_k) { return 403; } proxy_pass http://10.0.0.1; }\n}"},
		{"files", head + " location /x/ { alias /srv/; }\n}"},
		{"nested", head + " location /x/ { proxy_pass http://10.0.0.1; location /x/y { deny all; } }\n}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile("n.conf", []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := Read(t.Context(), []string{"n.conf"}, Options{Gateway: "default"})
			if err != nil {
				t.Fatal(err)
			}
			closed, open := 0, 0
			for _, f := range r.Files {
				if f.Kind == "Route" && strings.Contains(string(f.Spec), `"status":503`) {
					closed++
				} else if f.Kind == "Route" && strings.Contains(string(f.Spec), `"backends"`) {
					open++
				}
			}
			if closed != 1 || open != 1 || len(r.Notes) == 0 {
				t.Errorf("%d closed, %d open: %v", closed, open, r.Notes)
			}
		})
	}
}

// TestSearching: expressions that are found anywhere, as expressions of the whole path.
func TestSearching(t *testing.T) {
	for _, c := range []struct {
		re   string
		any  bool
		want string
	}{
		{`\.php$`, false, `.*\.php`},
		{`^/a/(\d+)$`, false, `/a/(\d+)`},
		{`^/a|/b$`, false, `.*(?:^/a|/b$).*`},
		{`^/a(x|y)`, true, `(?i)/a(x|y).*`},
		{`^/(?!a)`, false, ""},
		{`(a`, false, ""},
	} {
		if got, ok := searching(c.re, c.any); got != c.want || ok != (c.want != "") {
			t.Errorf("%s is %q, want %q", c.re, got, c.want)
		}
	}
}
