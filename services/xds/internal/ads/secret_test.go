package ads_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// TestRefusedSecret: one secret of a hundred is refused. The others come and change as ever, it is the only one that is
// reported, its last good content is what the Envoy has, and what was refused is not sent again.
func TestRefusedSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		var all []*translate.Resource
		want := map[string]string{}
		for i := range 100 {
			all = append(all, res(secret, name("s", i), "1"))
			want[name("s", i)] = "1"
		}
		apply(g, 1, append(all, res(secret, "never", "bad from the beginning")))
		e := connect(t, g, "a")
		for _, r := range all {
			e.ask(secret, r.Name)
		}
		e.settle()
		e.want(secret, want)

		apply(g, 2, []*translate.Resource{res(secret, "s07", "bad")})
		e.settle()
		e.want(secret, want)
		if e.stored["s07"] != ";1" {
			t.Errorf("the Envoy's last content of what it refused is %q, so that it would build every context with that",
				e.stored["s07"])
		}
		for i := range int64(5) {
			apply(g, 3+i, []*translate.Resource{
				res(secret, "s08", fmt.Sprint("rotated ", i)),
				res(secret, "s99", fmt.Sprint("rotated ", i)),
			})
			e.settle()
			want["s08"], want["s99"] = fmt.Sprint("rotated ", i), fmt.Sprint("rotated ", i)
			e.want(secret, want)
			if got := g.Live(); got != 3+i {
				t.Errorf("live %d, want %d", got, 3+i)
			}
		}
		only := func(names ...string) {
			t.Helper()
			var got []string
			for _, r := range g.Rejections() {
				got = append(got, r.Resource.Name)
			}
			if fmt.Sprint(got) != fmt.Sprint(names) {
				t.Errorf("refused are %v, want %v", got, names)
			}
		}
		only("s07")
		// One that never was good is said not to exist: nothing waits for it. And again to who asks after that.
		e.log = nil
		e.ask(secret, "never")
		e.settle()
		e.sent("Secret never", "Secret -never")
		e.ask(secret, "never")
		e.settle()
		e.sent("Secret -never")
		only("never", "s07")

		// Another Envoy, and this one with a new connection.
		late := connect(t, g, "b")
		for n := range want {
			late.ask(secret, n)
		}
		late.ask(secret, "never")
		late.settle()
		late.want(secret, want)
		e.hangUp()
		e.dial(g)
		e.settle()
		e.want(secret, want)

		apply(g, 9, []*translate.Resource{res(secret, "s07", "2"), res(secret, "never", "1")})
		for _, x := range []*envoy{e, late} {
			want["s07"], want["never"] = "2", "1"
			x.settle()
			x.want(secret, want)
		}
		only()
	})
}

// TestSecretsGoTogether: a thousand secrets are under way at once, not one after the other.
func TestSecretsGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		var all []*translate.Resource
		for i := range 1000 {
			all = append(all, res(secret, fmt.Sprint("s", i), "1"))
		}
		apply(g, 1, all)
		e := connect(t, g, "a")
		for _, r := range all {
			e.ask(secret, r.Name)
		}
		e.read()
		if n := len(e.waiting); n < 100 || n > 200 {
			t.Errorf("%d responses are under way", n)
		}
		e.settle()
		if n := len(e.has[secret]); n != 1000 {
			t.Errorf("the Envoy has %d secrets", n)
		}
	})
}

// TestTogether: two secrets share a TLS context, which Envoy builds when the second one comes, and refuses then. The
// one whose content is at fault is blamed.
func TestTogether(t *testing.T) {
	for _, order := range [][]string{{"good", "weak"}, {"weak", "good"}} {
		synctest.Test(t, func(t *testing.T) {
			g := newGateway()
			pair := res(listener, "https", "1")
			pair.Secrets = order
			pair.Together = [][]string{order}
			apply(g, 1, []*translate.Resource{pair, keyed(t, "good", elliptic.P256()), keyed(t, "weak", elliptic.P224())})
			e := connect(t, g, "a")
			e.together = order
			for _, n := range order {
				e.ask(secret, n)
			}
			e.settle()
			about := map[string]string{}
			for _, r := range g.Rejections() {
				about[r.Resource.Name] = r.Reason
			}
			if about["weak"] == "" || (about["good"] != "" && about["good"] != disputed) {
				t.Errorf("%v: refused are %v", order, about)
			}
			apply(g, 2, []*translate.Resource{keyed(t, "weak", elliptic.P384())})
			e.settle()
			if r := g.Rejections(); len(r) > 0 || g.Live() != 2 {
				t.Errorf("%v: after the weak one was replaced, live is %d and refused are %v", order, g.Live(), r)
			}
		})
	}
}

const disputed = "not at fault: it shares a TLS context with weak, which was refused: something is wrong " +
	"with one of them"

// weakMark is in certificates whose key Envoy refuses.
const weakMark = "of a weak key"

// keyed is a certificate with a key on a curve.
func keyed(t *testing.T, name string, curve elliptic.Curve) *translate.Resource {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name + ".test"},
		NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	inline := func(block string, b []byte) *corev3.DataSource {
		text := string(pem.EncodeToMemory(&pem.Block{Type: block, Bytes: b}))
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}}
	}
	mark := ""
	if curve == elliptic.P224() {
		mark = weakMark
	}
	body, err := anypb.New(&tlsv3.Secret{Name: name +
		mark, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline("CERTIFICATE", der), PrivateKey: inline("PRIVATE KEY", raw),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return &translate.Resource{
		Key: translate.Key{Type: secret, Name: name}, Body: body,
		Version: fmt.Sprintf("%x", sha256.Sum256(body.Value)),
	}
}
