package stack_test

import (
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/services/cli/internal/stack"
)

func initialise(t *testing.T, dir string, hosts []string, renew bool, now time.Time) stack.Made {
	t.Helper()
	m, err := stack.Init(dir, hosts, renew, now)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func certificate(t *testing.T, dir, part string) *x509.Certificate {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "pki", "issued", part, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode(raw)
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestAgain: what is there stays, what ends soon is made anew, and a name that was asked for once is not forgotten.
func TestAgain(t *testing.T) {
	dir, now := filepath.Join(t.TempDir(), "secrets"), time.Now()
	first := initialise(t, dir, []string{"api.example.com"}, false, now)
	if len(first.New) != 5 || len(first.Certificates) != 12 {
		t.Fatalf("made %v and the certificates of %v", first.New, first.Certificates)
	}
	key, err := os.ReadFile(filepath.Join(dir, "secret-key"))
	if err != nil {
		t.Fatal(err)
	}
	if again := initialise(t, dir, nil, false, now); len(again.New)+len(again.Certificates) != 0 {
		t.Errorf("a second time makes %+v", again)
	}
	old := certificate(t, dir, "api-api-1")
	if later := initialise(t, dir, nil, false, now.Add(61*24*time.Hour)); len(later.Certificates) != 12 ||
		len(later.New) != 0 {
		t.Errorf("29 days before the end %+v is made", later)
	}
	c := certificate(t, dir, "api-api-1")
	if c.SerialNumber.Cmp(old.SerialNumber) == 0 {
		t.Error("the certificate is the old one")
	}
	for _, host := range []string{"api", "api-1", "localhost", "api.example.com"} {
		if !slices.Contains(c.DNSNames, host) {
			t.Errorf("the api's certificate has not the name %s: %v", host, c.DNSNames)
		}
	}
	if now, err := os.ReadFile(filepath.Join(dir, "secret-key")); err != nil || string(now) != string(key) {
		t.Errorf("the secret key is another one: %v", err)
	}
	if more := initialise(t, dir, []string{"other.example.com"}, false,
		now); !slices.Contains(more.Certificates, "api-1") ||
		!slices.Contains(certificate(t, dir, "xds-xds-2").DNSNames, "other.example.com") {
		t.Errorf("a new name made the certificates of %v", more.Certificates)
	}
}

// TestOwners: each file is its container's user's, nobody else reads it, and what is the authority's belongs to whoever
// has the directory.
func TestOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root, as docker compose run --rm init has it")
	}
	dir := filepath.Join(t.TempDir(), "secrets")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 1000, 1001); err != nil {
		t.Fatal(err)
	}
	if m := initialise(t, dir, nil, false, time.Now()); !m.Owned {
		t.Fatal("nothing was given away")
	}
	type owner struct {
		uid, gid uint32
		mode     fs.FileMode
	}
	for path, want := range map[string]owner{
		"secret-key":                           {65532, 65532, 0o440},
		"cluster-key":                          {65532, 0, 0o440},
		"admin-token":                          {65532, 1001, 0o440},
		"postgres-password":                    {999, 999, 0o440},
		"pki/ca-1.key":                         {1000, 1001, 0o600},
		"pki/issued/api-api-1/key.pem":         {65532, 65532, 0o600},
		"pki/issued/xds-xds-2/nats.nkey":       {65532, 65532, 0o600},
		"pki/issued/agent-proxy-1/key.pem":     {0, 0, 0o600},
		"pki/issued/nats-nats-3/users.conf":    {0, 0, 0o600},
		"pki/issued/postgres-postgres/key.pem": {999, 999, 0o600},
		"pki/issued/operator-admin/key.pem":    {65532, 1001, 0o640},
		"pki/issued/agent-proxy-1/":            {0, 0, fs.ModeDir | 0o700},
	} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Error(err)
			continue
		}
		s := info.Sys().(*syscall.Stat_t)
		if got := (owner{s.Uid, s.Gid, info.Mode()}); got != want {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		public := strings.HasSuffix(path, ".pem") && !strings.HasSuffix(path, "key.pem")
		if info.Mode().Perm()&0o007 != 0 && !public {
			t.Errorf("everybody reads %s (%v)", path, info.Mode())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestAllThatIsMounted: the compose files find what they name.
func TestAllThatIsMounted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	initialise(t, dir, nil, false, time.Now())
	files, err := filepath.Glob("../../../../deployments/compose/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\./secrets/([A-Za-z0-9/-]+)`)
	n := 0
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(raw), -1) {
			n++
			if _, err := os.Stat(filepath.Join(dir, m[1])); err != nil {
				t.Errorf("%s: %v", f, err)
			}
		}
	}
	if n < 15 {
		t.Errorf("only %d files are named", n)
	}
}
