package config_test

import (
	"strings"
	"testing"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// TestIssuers: what an issuer can prove, and what a gateway and its routes need of one.
func TestIssuers(t *testing.T) {
	const (
		issuer = `{"directory":"letsencrypt","terms_agreed":true}`
		byDNS  = `{"directory":"letsencrypt","terms_agreed":true,"dns01":{"rfc2136":{"server":"ns","key_name":"k"}}}`
		https  = `"listeners":[{"name":"https","port":1,"protocol":"https"}]`
		wild   = `{"issuer":"ca","names":["*.a.test"],"chain":"x","private_key":"y"}`
		auto   = `{"hosts":["a.test"],"tls":"auto"}`
	)
	for name, c := range map[string]struct {
		there []*resource.Object
		write *resource.Object
		path  string // of the only problem, "" for none
	}{
		"a wildcard without dns01": {
			[]*resource.Object{object(t, "CertificateIssuer", "ca", issuer)}, object(t, "Certificate", "c", wild), "$.names[0]",
		},
		"a wildcard with dns01": {
			[]*resource.Object{object(t, "CertificateIssuer", "ca", byDNS)}, object(t, "Certificate", "c", wild), "",
		},
		"dns01 taken from a wildcard": {
			[]*resource.Object{object(t, "CertificateIssuer", "ca", byDNS), object(t, "Certificate", "c", wild)},
			object(t, "CertificateIssuer", "ca", issuer), "$.dns01",
		},
		"an issuer that is not there": {nil, object(t, "Certificate", "c", wild), "$.issuer"},
		"https without certificates": {
			[]*resource.Object{object(t, "CertificateIssuer", "ca", issuer)},
			object(t, "Gateway", "default", `{"certificate_issuer":"ca",`+https+`}`), "",
		},
		"https without certificates or issuer": {
			nil, object(t, "Gateway", "default", `{`+https+`}`), "$.listeners[0].certificates",
		},
		"tls auto": {
			[]*resource.Object{
				object(t, "CertificateIssuer", "ca", issuer), object(t, "Gateway", "default", `{"certificate_issuer":"ca",`+https+`}`),
			}, object(t, "Route", "r", auto), "",
		},
		"tls auto of a gateway without issuer": {
			[]*resource.Object{object(t, "Gateway", "default", `{"listeners":[{"name":"https","port":1,"protocol":"https",`+
				`"certificates":["c"]}]}`)}, object(t, "Route", "r", auto), "$.tls",
		},
		"tls auto of a gateway without https": {
			[]*resource.Object{
				object(t, "CertificateIssuer", "ca", issuer),
				object(t, "Gateway", "default", `{"certificate_issuer":"ca","listeners":[{"name":"http","port":1}]}`),
			}, object(t, "Route", "r", auto), "$.tls",
		},
		"the issuer taken from routes with tls auto": {
			[]*resource.Object{
				object(t, "CertificateIssuer", "ca", issuer), object(t, "Route", "r", auto),
				object(t, "Certificate", "c", `{"chain":"x","private_key":"y","gateways":["default"]}`),
				object(t, "Gateway", "default", `{"certificate_issuer":"ca",`+https+`}`),
			}, object(t, "Gateway", "default", `{`+https+`}`), "$.certificate_issuer",
		},
	} {
		st := config.New()
		st.Apply(c.there)
		changes, _ := st.Apply([]*resource.Object{c.write})
		found := st.Check(changes)
		if c.path == "" && len(found) == 0 || len(found) == 1 && found[0].Path == c.path {
			continue
		}
		t.Errorf("%s: %v, want a problem at %q", name, found, c.path)
	}
}

// TestPlaceholders: a certificate with an issuer gets one that stands in, keeps what it has when a write leaves it out or
// sends back an older chain, and keeps it in a rollback.
func TestPlaceholders(t *testing.T) {
	k := config.KindOf(resource.KindCertificate)
	write := func(c *configv1.Certificate, before *configv1.Certificate) *configv1.Certificate {
		t.Helper()
		w := &config.SecretWrite{Spec: c}
		if before != nil {
			w.Before = before
			for _, s := range resource.Secrets(c) {
				if s.Get() == "" {
					w.Keep(s, before.GetPrivateKey())
				}
			}
		}
		if k.Secrets(w); len(w.Found) > 0 {
			t.Fatal(w.Found)
		}
		return c
	}
	first := write(&configv1.Certificate{Issuer: "ca", Names: []string{"a.test"}}, nil)
	if !first.GetFacts().GetPlaceholder() || first.GetPrivateKey() == "" || len(first.GetFacts().GetDnsNames()) > 0 {
		t.Errorf("%v", first.GetFacts())
	}
	again := write(&configv1.Certificate{Issuer: "ca", Names: []string{"b.test"}, Chain: "an older one"}, first)
	if again.GetChain() != first.GetChain() || again.GetPrivateKey() != first.GetPrivateKey() {
		t.Error("a write without a key has another certificate")
	}
	now := write(&configv1.Certificate{Issuer: "ca", Names: []string{"b.test"}}, nil)
	back := k.Kept(now, first).(*configv1.Certificate)
	if back.GetChain() != now.GetChain() || back.GetNames()[0] != "a.test" || first.GetChain() == now.GetChain() {
		t.Error("a rollback brings back what was issued")
	}
	if own := (&configv1.Certificate{Chain: "own"}); k.Kept(now, own) != own {
		t.Error("a rollback to a certificate of one's own keeps the issuer's")
	}
	if !strings.Contains(first.GetChain(), "BEGIN CERTIFICATE") {
		t.Error(first.GetChain())
	}
}
