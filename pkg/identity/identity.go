// Package identity is how the parts know each other: a certificate with its key, and the authorities that are trusted,
// as files. They are read again when they have changed, so that what is renewed, rotated or revoked counts from the
// next handshake on, without a restart. A file that is half written, or wrong, changes nothing: what was good last
// counts.
package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// Files are PEM files; each may be "".
type Files struct {
	// Cert is the part's own certificate with its chain, and Key its private key.
	Cert, Key string
	// CA are the authorities of the other parts, several while one is replaced by another.
	CA string
	// CRL are their lists of revoked certificates.
	CRL string
}

// Identity is safe for concurrent use.
type Identity struct {
	files Files

	mu     sync.Mutex
	now    *contents
	stamp  string
	looked time.Time
	err    error // why the files as they are now are not what counts
}

// contents is what the files said.
type contents struct {
	cert        *tls.Certificate
	certPEM     []byte
	keyPEM      []byte
	caPEM       []byte
	pool        *x509.CertPool
	authorities []*x509.Certificate
	revoked     []*x509.RevocationList
}

// fresh is for how long files are taken to be what they were: a flood of handshakes costs no flood of looks at the
// disk.
const fresh = 100 * time.Millisecond

// Open reads the files. The error names the settings, and the file that is wrong.
func Open(f Files) (*Identity, error) {
	i := &Identity{files: f, stamp: f.stamp(), looked: time.Now()}
	var err error
	if i.now, err = f.read(); err != nil {
		return nil, fmt.Errorf("MARCHPROXY_TLS_*: %w", err)
	}
	return i, nil
}

// stamp changes when a file does.
func (f Files) stamp() string {
	var out strings.Builder
	for _, name := range []string{f.Cert, f.Key, f.CA, f.CRL} {
		if info, err := os.Stat(name); err == nil {
			fmt.Fprint(&out, info.Size(), " ", info.ModTime().UnixNano())
			if sys, ok := info.Sys().(*syscall.Stat_t); ok {
				fmt.Fprint(&out, " ", sys.Ino) // a file that was renamed there may be as old and as long as the one before
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}

func (f Files) read() (*contents, error) {
	h := &contents{}
	if f.Cert != "" {
		var err error
		if h.certPEM, err = os.ReadFile(f.Cert); err != nil {
			return nil, err
		}
		if h.keyPEM, err = os.ReadFile(f.Key); err != nil {
			return nil, err
		}
		cert, err := tls.X509KeyPair(h.certPEM, h.keyPEM)
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", f.Cert, f.Key, err)
		}
		h.cert = &cert
	}
	if f.CA != "" {
		h.pool = x509.NewCertPool()
		raw, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, err
		}
		h.caPEM = raw
		err = blocks(raw, "CERTIFICATE", func(der []byte) error {
			c, err := x509.ParseCertificate(der)
			if err == nil {
				h.pool.AddCert(c)
				h.authorities = append(h.authorities, c)
			}
			return err
		})
		if err == nil && len(h.authorities) == 0 {
			err = errors.New("has no certificate")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.CA, err)
		}
	}
	if f.CRL == "" {
		return h, nil
	}
	raw, err := os.ReadFile(f.CRL)
	if err != nil {
		return nil, err
	}
	err = blocks(raw, "X509 CRL", func(der []byte) error {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return err
		}
		for _, a := range h.authorities {
			if list.CheckSignatureFrom(a) == nil {
				h.revoked = append(h.revoked, list)
				return nil
			}
		}
		return nil // of an authority that is not trusted: nothing of it is let in anyway
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.CRL, err)
	}
	return h, nil
}

func blocks(raw []byte, kind string, take func(der []byte) error) error {
	for {
		var b *pem.Block
		if b, raw = pem.Decode(raw); b == nil {
			return nil
		}
		if b.Type != kind {
			return fmt.Errorf("has a block %s; it is for %s", b.Type, kind)
		}
		if err := take(b.Bytes); err != nil {
			return err
		}
	}
}

func (i *Identity) current() *contents {
	i.mu.Lock()
	defer i.mu.Unlock()
	if time.Since(i.looked) < fresh {
		return i.now
	}
	i.looked = time.Now()
	stamp := i.files.stamp()
	if stamp == i.stamp {
		return i.now
	}
	h, err := i.files.read()
	// What was written while it was read is read again the next time.
	if i.err = err; err == nil {
		i.now, i.stamp = h, stamp
	}
	return i.now
}

// Watch calls a function when the files say something else, until the context ends. Files that cannot be used are
// said in the log, once.
func (i *Identity) Watch(ctx context.Context, log *zap.Logger, changed func()) error {
	tick := time.NewTicker(fresh + fresh/2)
	defer tick.Stop()
	last, said := i.current(), ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := i.current()
		if now != last {
			last = now
			log.Info("the certificate files have changed; they count from now on")
			changed()
		}
		i.mu.Lock()
		trouble := ""
		if i.err != nil {
			trouble = i.err.Error()
		}
		i.mu.Unlock()
		if trouble != said && trouble != "" {
			log.Warn("the certificate files cannot be used; those before them count on", zap.String("reason", trouble))
		}
		said = trouble
	}
}

// HasCert and Trusts say what there is: a certificate to show, and authorities to demand one of.
func (i *Identity) HasCert() bool { return i != nil && i.files.Cert != "" }

// Trusts says whether there are authorities.
func (i *Identity) Trusts() bool { return i != nil && i.files.CA != "" }

// Server is the TLS of a listener. Where there are authorities and clients is true, who connects must show a
// certificate of one of them, and is let go on until that ends where the listener is [Lasting]. Protos are for ALPN.
func (i *Identity) Server(clients bool, protos ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protos,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			h := i.current()
			c := &tls.Config{
				MinVersion: tls.VersionTLS12, NextProtos: protos, Certificates: []tls.Certificate{*h.cert},
				// A resumed session would be let in by what counted when it began.
				SessionTicketsDisabled: true,
			}
			if clients && h.pool != nil {
				c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, h.pool
				c.VerifyConnection = func(s tls.ConnectionState) error {
					err := h.notRevoked(s.VerifiedChains)
					if b, ok := hello.Conn.(*bounded); ok && err == nil {
						b.until(ends(s), s.PeerCertificates[0].Subject.CommonName)
					}
					return err
				}
			}
			return c, nil
		},
	}
}

// Client is the TLS of one connection to another part; without authorities of its own it trusts the system's.
func (i *Identity) Client(serverName string) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
	if i == nil {
		return c
	}
	h := i.current()
	c.RootCAs = h.pool
	if h.cert != nil {
		c.Certificates = []tls.Certificate{*h.cert}
	}
	c.VerifyConnection = func(s tls.ConnectionState) error { return h.notRevoked(s.VerifiedChains) }
	return c
}

// PEM are the files' contents as they count now, in one piece: the key is the certificate's.
func (i *Identity) PEM() (cert, key, ca []byte) {
	h := i.current()
	return h.certPEM, h.keyPEM, h.caPEM
}

// Certificate is the part's own, as it is now.
func (i *Identity) Certificate() (tls.Certificate, error) {
	if c := i.current().cert; c != nil {
		return *c, nil
	}
	return tls.Certificate{}, nil
}

// Expiry is when the part's own certificate ends, or the first of its chain, in seconds since 1970; +Inf where there is
// none, which is what a metric of it says.
func (i *Identity) Expiry() float64 {
	c := i.current().cert
	if c == nil {
		return math.Inf(1)
	}
	first := math.Inf(1)
	for _, der := range c.Certificate {
		if x, err := x509.ParseCertificate(der); err == nil { // as it was when the files were read
			first = min(first, float64(x.NotAfter.Unix()))
		}
	}
	return first
}

// Authorities are those that are trusted now.
func (i *Identity) Authorities() (*x509.CertPool, error) { return i.current().pool, nil }

// Check says what is wrong, now, with a client's certificate that was good in its handshake.
func (i *Identity) Check(chain []*x509.Certificate) error {
	h := i.current()
	if len(chain) == 0 {
		return errors.New("there is no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	chains, err := chain[0].Verify(x509.VerifyOptions{
		Roots: h.pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	return h.notRevoked(chains)
}

// notRevoked wants one chain without a revoked certificate.
func (h *contents) notRevoked(chains [][]*x509.Certificate) error {
	var err error
	for _, chain := range chains {
		if err = h.clean(chain); err == nil {
			return nil
		}
	}
	return err
}

func (h *contents) clean(chain []*x509.Certificate) error {
	for n, c := range chain[:len(chain)-1] {
		for _, list := range h.revoked {
			if list.CheckSignatureFrom(chain[n+1]) != nil {
				continue
			}
			for _, e := range list.RevokedCertificateEntries {
				if e.SerialNumber.Cmp(c.SerialNumber) == 0 {
					return fmt.Errorf("the certificate of %s is revoked", c.Subject.CommonName)
				}
			}
		}
	}
	return nil
}
