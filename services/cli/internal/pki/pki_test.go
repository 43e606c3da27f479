package pki_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/services/cli/internal/pki"
)

func issue(t *testing.T, p *pki.PKI, role, name string, change ...func(*pki.Issued)) string {
	t.Helper()
	i := pki.Issued{Role: role, Name: name, Days: 30, User: "marchproxy"}
	if role != pki.Agent && role != pki.Reader {
		i.Hosts = []string{"127.0.0.1"}
	}
	for _, c := range change {
		c(&i)
	}
	dir, err := p.Issue(i)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, dir string) *identity.Identity {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	id, err := identity.Open(identity.Files{
		Cert: at("cert.pem"), Key: at("key.pem"), CA: at("ca.pem"),
		CRL: at("crl.pem"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// door echoes one byte to whoever is let in.
func door(t *testing.T, id *identity.Identity) string {
	t.Helper()
	plain, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lis := id.Wrap(plain, true, zap.NewNop())
	t.Cleanup(func() { _ = lis.Close() }) // it ends with the test
	go func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }() // it has its answer
				var b [1]byte
				if _, err := io.ReadFull(c, b[:]); err == nil {
					_, _ = c.Write(b[:]) // who is not let in learns it by then
				}
			}()
		}
	}()
	return lis.Addr().String()
}

func knock(t *testing.T, addr string, as *tls.Config) error {
	t.Helper()
	c, err := (&tls.Dialer{Config: as}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // it has answered
	var b [1]byte
	_, err = c.Write(b[:])
	if err == nil {
		_, err = io.ReadFull(c, b[:])
	}
	return err
}

// settle waits until the files count that there are now. It can only wait for time to pass: files are looked at 100 ms
// after the last look at the soonest, and files that do not fit must change nothing, so that nothing shows the look.
func settle() { time.Sleep(250 * time.Millisecond) }

// TestLife: what is issued lets parts in with each other; what is renewed, rotated or taken back counts without
// anything being opened again, and files that do not fit change nothing.
func TestLife(t *testing.T) {
	dir := t.TempDir()
	p, err := pki.Init(dir)
	if err != nil {
		t.Fatal(err)
	}
	server := issue(t, p, pki.XDS, "xds-1")
	agentDir := issue(t, p, pki.Agent, "edge-1", func(i *pki.Issued) { i.Gateways = []string{"default"} })
	other := issue(t, p, pki.Agent, "edge-2")
	addr := door(t, open(t, server))
	agent, second := open(t, agentDir), open(t, other)
	in := func(when string) {
		t.Helper()
		settle()
		if err := knock(t, addr, agent.Client("127.0.0.1")); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	in("at first")
	if err := knock(t, addr, &tls.Config{
		RootCAs: agent.Client("").RootCAs, ServerName: "127.0.0.1",
		MinVersion: tls.VersionTLS12,
	}); err == nil {
		t.Error("who has no certificate is let in")
	}
	if err := knock(t, addr, agent.Client("localhost")); err == nil {
		t.Error("another name is taken for the server's")
	}
	foreign, err := pki.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	stranger := open(t, issue(t, foreign, pki.Agent, "edge-1")).Client("127.0.0.1")
	stranger.RootCAs = agent.Client("").RootCAs
	if err := knock(t, addr, stranger); err == nil {
		t.Error("another authority's certificate is let in")
	}
	leaf := agent.Client("").Certificates[0].Leaf
	if identity.Opens(leaf, "default") != nil || identity.Opens(leaf, "edge") == nil {
		t.Error("the certificate of an agent of one gateway opens another, or not its own")
	}

	seed, err := os.ReadFile(filepath.Join(agentDir, "nats.nkey"))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"a certificate is renewed", func() error { issue(t, p, pki.Agent, "edge-1"); return nil }},
		{"the key is half written", func() error {
			return os.WriteFile(filepath.Join(server, "key.pem"),
				[]byte("-----BEGIN PRIV"), 0o600)
		}},
		{"all are renewed", func() error { _, err := p.Renew(); return err }},
		{"a rotation begins", p.Rotate},
		{"all are the new authority's", func() error { _, err := p.Renew(); return err }},
		{"the old authority is not trusted", p.Finish},
	} {
		if step.what == "all are the new authority's" {
			if err := p.Finish(); err == nil || !strings.Contains(err.Error(), "pki renew") {
				t.Errorf("a rotation is ended before its time: %v", err)
			}
		}
		if err := step.do(); err != nil {
			t.Fatal(step.what, err)
		}
		in(step.what)
	}
	if again, err := os.ReadFile(filepath.Join(agentDir, "nats.nkey")); err != nil || string(again) != string(seed) {
		t.Errorf("the user of NATS is another one: %v", err)
	}
	kept := second.Client("127.0.0.1")
	if err := p.Revoke(pki.Agent, "edge-2"); err != nil {
		t.Fatal(err)
	}
	in("another is revoked")
	if err := knock(t, addr, kept); err == nil {
		t.Error("a revoked certificate is let in")
	}
	if again, err := pki.Open(dir); err != nil || len(again.Members) != 1 || len(again.Revoked) != 1 {
		t.Errorf("what is in the directory: %+v %v", again, err)
	}
	if _, err := pki.Init(dir); err == nil {
		t.Error("an authority is overwritten")
	}
}

// TestModes: keys and seeds are for their owner alone.
func TestModes(t *testing.T) {
	dir := t.TempDir()
	p, err := pki.Init(dir)
	if err != nil {
		t.Fatal(err)
	}
	issue(t, p, pki.API, "api-1")
	issue(t, p, pki.NATS, "nats-1")
	n := 0
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		secret := strings.HasSuffix(path, "key.pem") || strings.HasSuffix(path, ".key") || strings.HasSuffix(path, ".nkey")
		if secret {
			n++
		}
		if secret && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %o", path, info.Mode().Perm())
		}
		return nil
	})
	if err != nil || n < 4 {
		t.Errorf("%d secrets, %v", n, err)
	}
}

// TestMistakes: what cannot be issued is said, and makes nothing.
func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	if _, err := pki.Open(dir); err == nil || !strings.Contains(err.Error(), "pki init") {
		t.Errorf("an empty directory: %v", err)
	}
	p, err := pki.Init(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []pki.Issued{
		{Role: "admin", Name: "a", Days: 1},
		{Role: pki.Agent, Name: "../a", Days: 1},
		{Role: pki.Agent, Name: "a.b", Days: 1},
		{Role: pki.API, Name: "a", Days: 1},
		{Role: pki.Agent, Name: "a"},
		{Role: pki.Reader, Name: "a", Days: 1, Gateways: []string{"g"}},
	} {
		if _, err := p.Issue(i); err == nil {
			t.Errorf("%+v is issued", i)
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "issued")); err != nil || len(left) > 0 {
		t.Errorf("%v %v", left, err)
	}
	err = errors.Join(p.Revoke(pki.Agent, "nobody"))
	if err == nil || p.Finish() == nil {
		t.Error("nobody is revoked, or no rotation ended")
	}
}
