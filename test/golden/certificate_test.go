package golden

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// pair is a certificate that is presented.
type pair struct{ chain, key string }

// TestPresentedCertificates: what package certificate takes to present, Envoy takes, and what it refuses Envoy
// refuses, or cannot use.
func TestPresentedCertificates(t *testing.T) {
	root := issue(t, nil, key(t, elliptic.P256()),
		func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
	middle := issue(t, root, key(t, elliptic.P256()),
		func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
	leaf := issue(t, middle, key(t, elliptic.P256()), nil)
	other := issue(t, middle, key(t, elliptic.P256()), nil)
	rsa2048 := rsaKey(t, 2048)
	of := func(i *issued) pair { return pair{i.pem(), pkcs8(t, i.key)} }
	sec1, err := x509.MarshalECPrivateKey(leaf.key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block := func(typ string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
	}
	long := strings.ReplaceAll(strings.TrimPrefix(strings.TrimSuffix(leaf.pem(), "-----END CERTIFICATE-----\n"),
		"-----BEGIN CERTIFICATE-----\n"), "\n", "")
	leafKey := pkcs8(t, leaf.key)
	// Unwanted is what Envoy takes and we do not: keys that no client can use, secrets where everybody may read
	// them, and spellings that other programs do not know.
	const takes, refuses, unwanted = "takes", "refuses", "takes, but should not get"
	cases := []struct {
		name string
		pair pair
		want string
	}{
		{"rsa 2048", of(issue(t, root, rsa2048, nil)), takes},
		{"rsa 1024", of(issue(t, root, rsaKey(t, 1024), nil)), refuses},
		{"rsa 2047", of(issue(t, root, rsaKey(t, 2047), nil)), refuses},
		{"rsa 4096", of(issue(t, root, rsaKey(t, 4096), nil)), takes},
		{"rsa with exponent 3", of(issue(t, root, rsaWith(t, 3), nil)), takes},
		{"rsa with exponent 17", of(issue(t, root, rsaWith(t, 17), nil)), takes},
		{"p224", of(issue(t, root, key(t, elliptic.P224()), nil)), refuses},
		{"p256", of(leaf), takes},
		{"p384", of(issue(t, root, key(t, elliptic.P384()), nil)), takes},
		{"p521", of(issue(t, root, key(t, elliptic.P521()), nil)), takes},
		{"ed25519", of(issue(t, root, ed, nil)), unwanted},
		{"chain", pair{leaf.pem() + middle.pem() + root.pem(), leafKey}, takes},
		{"chain out of order", pair{leaf.pem() + root.pem() + middle.pem(), leafKey}, takes},
		{"leaf last", pair{root.pem() + middle.pem() + leaf.pem(), leafKey}, refuses},
		{"the leaf twice", pair{leaf.pem() + leaf.pem(), leafKey}, takes},
		{"another's key", pair{leaf.pem(), pkcs8(t, other.key)}, refuses},
		{"no key", pair{leaf.pem(), ""}, refuses},
		{
			"expired", of(issue(t, root, leaf.key, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })),
			takes,
		},
		{"not yet", of(issue(t, root, leaf.key, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		})), takes},
		{"must staple", of(issue(t, root, leaf.key, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{
				Id:    asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24},
				Value: []byte{0x30, 3, 2, 1, 5},
			}}
		})), refuses},
		{
			"ecdsa for key agreement",
			of(issue(t, root, leaf.key, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })), refuses,
		},
		{
			"rsa for encipherment",
			of(issue(t, root, rsa2048, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })), takes,
		},
		{
			"for clients",
			of(issue(t, root, leaf.key,
				func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })), takes,
		},
		{
			"no names", of(issue(t, root, leaf.key, func(c *x509.Certificate) { c.DNSNames, c.Subject = nil, pkix.Name{} })),
			refuses,
		},
		{"a common name only", of(issue(t, root, leaf.key, func(c *x509.Certificate) { c.DNSNames = nil })), takes},
		{
			"an organisation only",
			of(issue(t, root, leaf.key,
				func(c *x509.Certificate) { c.DNSNames, c.Subject = nil, pkix.Name{Organization: []string{"x"}} })), refuses,
		},
		{"an address only", of(issue(t, root, leaf.key, func(c *x509.Certificate) {
			c.DNSNames, c.Subject, c.IPAddresses = nil, pkix.Name{}, []net.IP{net.IPv4(127, 0, 0, 1)}
		})), takes},
		{"a mail address only", of(issue(t, root, leaf.key, func(c *x509.Certificate) {
			c.DNSNames, c.Subject, c.EmailAddresses = nil, pkix.Name{}, []string{"a@b.c"}
		})), refuses},
		{"a uri only", of(issue(t, root, leaf.key, func(c *x509.Certificate) {
			c.DNSNames, c.Subject, c.URIs = nil, pkix.Name{}, []*url.URL{{Scheme: "spiffe", Host: "a"}}
		})), takes},
		{"no key usage", of(issue(t, root, leaf.key, func(c *x509.Certificate) { c.KeyUsage = 0 })), takes},
		{
			"odd names",
			of(issue(t, root, leaf.key, func(c *x509.Certificate) { c.DNSNames = []string{"*", "*.*.x", "a_b.x", "a..b"} })),
			takes,
		},
		{"authority", of(root), refuses},
		{"sec1 key", pair{leaf.pem(), block("EC PRIVATE KEY", sec1)}, takes},
		{"pkcs1 key", pair{
			issue(t, root, rsa2048, nil).pem(),
			block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsa2048)),
		}, takes},
		{"pkcs1 key called pkcs8", pair{
			issue(t, root, rsa2048, nil).pem(),
			block("PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsa2048)),
		}, refuses},
		{"sec1 key called pkcs8", pair{leaf.pem(), block("PRIVATE KEY", sec1)}, refuses},
		{"key with parameters", pair{leaf.pem(), block("EC PARAMETERS", []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}) +
			block("EC PRIVATE KEY", sec1)}, takes},
		{"key of an odd type", pair{leaf.pem(), strings.ReplaceAll(leafKey, "PRIVATE KEY", "ODD PRIVATE KEY")}, refuses},
		{"two keys", pair{leaf.pem(), leafKey + pkcs8(t, other.key)}, takes},
		{"another's key first", pair{leaf.pem(), pkcs8(t, other.key) + leafKey}, refuses},
		{"the chain with the key", pair{leaf.pem(), leaf.pem() + leafKey}, takes},
		{"the key in the chain", pair{leaf.pem() + leafKey, leafKey}, unwanted},
		{"text around", pair{"subject=x\n" + leaf.pem() + "\nissuer=y\n" + middle.pem(), "Bag\n" + leafKey}, takes},
		{"crlf", pair{strings.ReplaceAll(leaf.pem(), "\n", "\r\n"), strings.ReplaceAll(leafKey, "\n", "\r\n")}, takes},
		{"no final newline", pair{strings.TrimSpace(leaf.pem()), strings.TrimSpace(leafKey)}, takes},
		{"one long line", pair{"-----BEGIN CERTIFICATE-----\n" + long + "\n-----END CERTIFICATE-----\n", leafKey}, takes},
		{"no newlines", pair{"-----BEGIN CERTIFICATE-----" + long + "-----END CERTIFICATE-----", leafKey}, refuses},
		{"indented", pair{"  " + strings.ReplaceAll(leaf.pem(), "\n", "\n  "), leafKey}, refuses},
		{"spaces at the ends of lines", pair{strings.ReplaceAll(leaf.pem(), "\n", "  \n"), leafKey}, takes},
		{"empty lines", pair{strings.ReplaceAll(leaf.pem(), "\n", "\n\n"), leafKey}, takes},
		{"headers", pair{strings.Replace(leaf.pem(), "-----\n", "-----\nA: b\n\n", 1), leafKey}, refuses},
		{"byte order mark", pair{"\ufeff" + leaf.pem(), leafKey}, refuses},
		{"a second block that is broken", pair{leaf.pem() + "-----BEGIN CERTIFICATE-----\nAAAA\n", leafKey}, refuses},
		{"a second certificate that is none", pair{leaf.pem() + block("CERTIFICATE", []byte("none")), leafKey}, refuses},
		{"x509 certificate", pair{strings.ReplaceAll(leaf.pem(), "CERTIFICATE", "X509 CERTIFICATE"), leafKey}, unwanted},
		{
			"trusted certificate",
			pair{strings.ReplaceAll(leaf.pem(), "CERTIFICATE", "TRUSTED CERTIFICATE"), leafKey},
			unwanted,
		},
	}
	e := startLive(t, nil)
	var listeners []any
	for i, c := range cases {
		objects := golden(t, translatorCase(t, "https"))
		for _, o := range objects {
			if m, ok := o.Message().(*configv1.Certificate); ok && o.Name == "site" {
				m.Chain, m.PrivateKey = c.pair.chain, c.pair.key
			}
		}
		listeners = append(listeners, listenersOf(t, i, objects)[:1]...)
	}
	answers := e.load(t, "lds", listeners)
	for i, c := range cases {
		said, refused := answers[i]
		if refused != (c.want == refuses) {
			t.Errorf("Envoy on %s: %q, expected: %s", c.name, said, c.want)
		}
		leaf, err := certificate.Leaf(c.pair.chain)
		if err == nil {
			err = certificate.Presentable(leaf)
		}
		if err == nil {
			err = certificate.CheckKey(c.pair.chain, c.pair.key)
		}
		if (err == nil) != (c.want == takes) {
			t.Errorf("the check of %s: %v, while Envoy %s (%s)", c.name, err, c.want, said)
		}
	}
}

// TestTrustedCertificates: what is only trusted may have weak keys; all of it must be readable.
func TestTrustedCertificates(t *testing.T) {
	root := issue(t, nil, key(t, elliptic.P256()),
		func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
	weak := issue(t, nil, rsaKey(t, 1024), func(c *x509.Certificate) { c.IsCA = true })
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	odd := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("none")}))
	cases := []struct {
		name, chain string
		takes       bool
	}{
		{"one", root.pem(), true},
		{"a bundle", root.pem() + weak.pem() + issue(t, nil, key(t, elliptic.P224()), nil).pem() +
			issue(t, nil, ed, nil).pem(), true},
		{"twice", root.pem() + root.pem(), true},
		{"no authority", issue(t, root, key(t, elliptic.P256()), nil).pem(), true},
		{
			"expired", issue(t, nil, root.key, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }).pem(),
			true,
		},
		{"none", "none", false},
		{"a block that is none", root.pem() + odd, false},
		{"a broken block", root.pem() + "-----BEGIN CERTIFICATE-----\nAAAA\n", false},
		{"no newlines", strings.ReplaceAll(root.pem(), "\n", ""), false},
	}
	e := startLive(t, nil)
	var listeners []any
	for i, c := range cases {
		objects := golden(t, translatorCase(t, "client-auth"))
		for _, o := range objects {
			if m, ok := o.Message().(*configv1.Certificate); ok && o.Name == "authority" {
				m.Chain = c.chain
			}
		}
		listeners = append(listeners, listenersOf(t, i, objects)[:1]...)
	}
	answers := e.load(t, "lds", listeners)
	for i, c := range cases {
		said, refused := answers[i]
		_, err := certificate.Leaf(c.chain)
		if refused && c.takes || (err == nil) != c.takes {
			t.Errorf("%s: Envoy says %q, the check %v", c.name, said, err)
		}
	}
}

// listenersOf are the https listener of a state and those with its route tables.
func listenersOf(t testing.TB, n int, objects []*resource.Object) []any {
	t.Helper()
	return slices.DeleteFunc(listenersWithTables(t, n, objects),
		func(l any) bool { return l.(object)["listener_filters"] == nil })
}

// listenersWithTables are all listeners of a state and those with its route tables.
func listenersWithTables(t testing.TB, n int, objects []*resource.Object) []any {
	t.Helper()
	st := config.New()
	fresh := make([]*resource.Object, len(objects))
	for i, o := range objects {
		var err error
		if fresh[i], err = resource.New(o.Ref(), proto.Clone(o.Message())); err != nil {
			t.Fatal(err)
		}
	}
	st.Apply(fresh)
	now := built(t, st)
	listeners, _ := alone(t, n, differing(now, now), rootsOf(t))
	return listeners
}

// issued is a certificate with its key.
type issued struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (i *issued) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw}))
}

var serial int64

// issue makes a certificate, signed by an authority or by itself.
func issue(t testing.TB, by *issued, key crypto.Signer, change func(*x509.Certificate)) *issued {
	t.Helper()
	serial++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "n" + big.NewInt(serial).String()},
		DNSNames: []string{"a.example.com"}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(100 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if change != nil {
		change(c)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{cert, key}
}

func key(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// rsaWith is a key with another exponent than Go's.
func rsaWith(t testing.TB, e int64) *rsa.PrivateKey {
	t.Helper()
	one := big.NewInt(1)
	for {
		p, err := rand.Prime(rand.Reader, 1024)
		if err != nil {
			t.Fatal(err)
		}
		q, err := rand.Prime(rand.Reader, 1024)
		if err != nil {
			t.Fatal(err)
		}
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d := new(big.Int).ModInverse(big.NewInt(e), phi)
		n := new(big.Int).Mul(p, q)
		if d == nil || n.BitLen() < 2048 {
			continue
		}
		k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: int(e)}, D: d, Primes: []*big.Int{p, q}}
		k.Precompute()
		return k
	}
}

func pkcs8(t testing.TB, k crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
