package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/identity"
)

// TestLasting: a connection is closed when the client's certificate ends, and one whose certificate goes on is not.
func TestLasting(t *testing.T) {
	dir := t.TempDir()
	authority, ca := issue(t, nil, nil, time.Now().Add(time.Hour))
	file := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	files := func(name string, end time.Time) identity.Files {
		key, cert := issue(t, authority, ca, end)
		raw, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return identity.Files{
			Cert: file(name+".pem", "CERTIFICATE", cert.Raw), Key: file(name+".key", "PRIVATE KEY", raw),
			CA: file("ca.pem", "CERTIFICATE", ca.Raw),
		}
	}
	open := func(f identity.Files) *identity.Identity {
		id, err := identity.Open(f)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	plain, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lis := open(files("server", time.Now().Add(time.Hour))).Wrap(plain, true, zap.NewNop())
	t.Cleanup(func() { _ = lis.Close() }) // nobody connects any more
	go func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c) }() // until it is closed
		}
	}()
	dial := func(f identity.Files) *tls.Conn {
		c, err := tls.Dial("tcp", lis.Addr().String(), open(f).Client("127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() }) // it may be closed
		return c
	}
	echoes := func(c *tls.Conn) error {
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		_, err := c.Write([]byte("x"))
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		return err
	}
	end := time.Now().Add(3 * time.Second).Truncate(time.Second)
	short, long := dial(files("short", end)), dial(files("long", time.Now().Add(time.Hour)))
	if err := errors.Join(echoes(short), echoes(long)); err != nil {
		t.Fatal(err)
	}
	_, err = short.Read(make([]byte, 1))
	if late := time.Since(end); err == nil || os.IsTimeout(err) || late < 0 || late > 2*time.Second {
		t.Errorf("closed %v after the certificate has ended: %v", late, err)
	}
	if err := echoes(long); err != nil {
		t.Errorf("another connection is closed too: %v", err)
	}
}

// issue makes a key and a certificate of it, by an authority or, without one, of its own.
func issue(
	t *testing.T, by *ecdsa.PrivateKey, ca *x509.Certificate, end time.Time,
) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: end,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{
			x509.ExtKeyUsageClientAuth,
			x509.ExtKeyUsageServerAuth,
		},
		IsCA: ca == nil, BasicConstraintsValid: true,
	}
	if ca == nil {
		by, ca = key, c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}
