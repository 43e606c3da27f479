package issuance

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mholt/acmez/v3/acme"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/endpoint"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// directories are the words for directories.
var directories = map[string]string{
	"letsencrypt":         "https://acme-v02.api.letsencrypt.org/directory",
	"letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}

func directoryOf(i *configv1.CertificateIssuer) string {
	if url, is := directories[i.GetDirectory()]; is {
		return url
	}
	return i.GetDirectory()
}

// client speaks with an issuer's authority. It is made anew where what it is made of changes.
type client struct {
	*acme.Client
	of string
}

// client is an issuer's.
func (m *Manager) client(name string, i *configv1.CertificateIssuer) (*acme.Client, error) {
	of := fmt.Sprintf("%q %x", directoryOf(i), sha256.Sum256([]byte(i.GetTrustedCa())))
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.clients[name]; c != nil && c.of == of {
		return c.Client, nil
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = dialer(m.writer.Allowed).DialContext
	if ca := i.GetTrustedCa(); ca != "" {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("trusted_ca has no certificate that can be read")
		}
		t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	c := &client{&acme.Client{
		Directory:   directoryOf(i),
		HTTPClient:  &http.Client{Transport: listening{t}, Timeout: 45 * time.Second},
		UserAgent:   "marchproxy",
		PollTimeout: 2 * time.Minute,
	}, of}
	m.clients[name] = c
	return c.Client, nil
}

// dialer connects to no address to which services may send nothing either: whoever writes issuers is not to reach what
// listens on the api's machine, or the metadata service of its cloud.
func dialer(allowed endpoint.Allowed) *net.Dialer {
	return &net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if why := allowed.Refusal(at.Addr()); why != "" {
			return errors.New(address + " " + why)
		}
		return nil
	}}
}

// listening notes what an authority says of when to come again.
type listening struct{ http.RoundTripper }

// said is what an authority has said while somebody listened.
type said struct {
	status     int
	retryAfter time.Duration
}

type saidKey struct{}

// listen returns a context whose requests note what the authority says of when to come again.
func listen(ctx context.Context) (context.Context, *said) {
	s := &said{}
	return context.WithValue(ctx, saidKey{}, s), s
}

// RoundTrip implements http.RoundTripper.
func (l listening) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if s, ok := r.Context().Value(saidKey{}).(*said); ok && err == nil && resp.StatusCode >= 400 {
		s.status, s.retryAfter = resp.StatusCode, retryAfter(resp.Header.Get("Retry-After"))
	}
	return resp, err
}

// retryAfter reads the header, 0 where it says nothing (RFC 9110, 10.2.3). More than a month is a mistake.
func retryAfter(value string) time.Duration {
	var d time.Duration
	if n, err := strconv.Atoi(value); err == nil {
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		d = time.Until(at)
	}
	return min(max(d, 0), 30*24*time.Hour)
}

// accountKey is what an account's key is sealed for, and orderKey what that of a certificate that is ordered is.
const accountKey, orderKey = "account_key", "order_key"

// account is an issuer's account with its authority, which makes it where there is none yet.
func (m *Manager) account(
	ctx context.Context, c *acme.Client, name string, i *configv1.CertificateIssuer,
) (acme.Account, store.Account, error) {
	fresh := func() (string, error) {
		k, err := newKey(configv1.CertificateIssuer_ecdsa_p256)
		if err != nil {
			return "", err
		}
		return m.box.Seal(k, resource.KindIssuer, name, accountKey), nil
	}
	row, err := m.store.Account(ctx, name, c.Directory, fresh)
	if err != nil {
		return acme.Account{}, row, err
	}
	text, err := m.box.Open(row.Key, resource.KindIssuer, name, accountKey)
	if err != nil {
		return acme.Account{}, row, fmt.Errorf("the account's key cannot be opened: %w; rename the issuer, or choose another "+
			"one, for a new account", err)
	}
	signer, err := readKey(text)
	if err != nil {
		return acme.Account{}, row, err
	}
	if !m.box.Current(row.Key) { // SECRET_KEY was rotated
		row.Key = m.box.Seal(text, resource.KindIssuer, name, accountKey)
		if err := m.store.SaveAccount(ctx, row); err != nil {
			return acme.Account{}, row, err
		}
	}
	out := acme.Account{Location: row.URL, PrivateKey: signer, TermsOfServiceAgreed: i.GetTermsAgreed()}
	for _, mail := range i.GetContacts() {
		out.Contact = append(out.Contact, "mailto:"+mail)
	}
	contacts := strings.Join(out.Contact, " ")
	switch {
	case row.URL == "":
		if out, err = m.register(ctx, c, name, i, out); err != nil {
			return out, row, err
		}
	case row.Contacts != contacts:
		if _, err := c.UpdateAccount(ctx, out); err != nil {
			return out, row, fmt.Errorf("change the account's contacts: %w", err)
		}
	default:
		return out, row, nil
	}
	row.URL, row.Contacts = out.Location, contacts
	return out, row, m.store.SaveAccount(ctx, row)
}

// register makes an account. The same key has the same account, so that two apis that do it at once get one.
func (m *Manager) register(
	ctx context.Context, c *acme.Client, name string, i *configv1.CertificateIssuer, a acme.Account,
) (acme.Account, error) {
	if e := i.GetExternalAccount(); e != nil {
		mac, err := m.box.Open(e.GetMacKey(), resource.KindIssuer, name, "external_account.mac_key")
		if err != nil {
			return a, fmt.Errorf("external_account.mac_key cannot be opened: %w; write it again", err)
		}
		mac = strings.TrimRight(mac, "=")
		if err := a.SetExternalAccountBinding(ctx, c, acme.EAB{KeyID: e.GetKeyId(), MACKey: mac}); err != nil {
			return a, fmt.Errorf("external_account: %w", err)
		}
	}
	out, err := c.NewAccount(ctx, a)
	if err != nil {
		return a, fmt.Errorf("make an account: %w", err)
	}
	return out, nil
}

// newKey makes a private key, as PEM.
func newKey(t configv1.CertificateIssuer_KeyType) (string, error) {
	var key any
	var err error
	switch t {
	case configv1.CertificateIssuer_rsa_2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case configv1.CertificateIssuer_ecdsa_p384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	return certificate.KeyPEM(key)
}

func readKey(text string) (crypto.Signer, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("a stored key is no PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("a stored key cannot be read: %w", err)
	}
	return key.(crypto.Signer), nil // all kinds of keys that are made here are
}
