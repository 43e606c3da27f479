package identity_test

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/identity"
)

// TestReady: a program's own health check gets in, by a certificate that does not name the address, and says why it
// is not ready.
func TestReady(t *testing.T) {
	dir := t.TempDir()
	caKey, ca := issue(t, nil, nil, time.Now().Add(time.Hour))
	key, cert := issue(t, caKey, ca, time.Now().Add(time.Hour))
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	files := identity.Files{Cert: at("cert.pem"), Key: at("key.pem"), CA: at("ca.pem")}
	for path, block := range map[string]*pem.Block{
		files.Cert: {Type: "CERTIFICATE", Bytes: cert.Raw},
		files.Key:  {Type: "PRIVATE KEY", Bytes: raw},
		files.CA:   {Type: "CERTIFICATE", Bytes: ca.Raw},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, of := range map[string]identity.Files{"plain": {}, "TLS": files} {
		by, err := identity.Open(of)
		if err != nil {
			t.Fatal(err)
		}
		const reason = "the database is away"
		var ready atomic.Bool
		plain, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		answer := func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/readyz" || !ready.Load() {
				http.Error(w, reason, http.StatusServiceUnavailable)
			}
		}
		s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(answer)}
		go func() { _ = s.Serve(by.Wrap(plain, true, zap.NewNop())) }() // until it is closed
		_, port, err := net.SplitHostPort(plain.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := identity.Ready(t.Context(), "0.0.0.0:"+port, of); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v, want %q", name, err, reason)
		}
		ready.Store(true)
		if err := identity.Ready(t.Context(), ":"+port, of); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if identity.Ready(t.Context(), ":"+port, of) == nil {
			t.Errorf("%s: nobody listens, and it is ready", name)
		}
	}
}
