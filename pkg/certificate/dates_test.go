package certificate_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/certificate"
)

func TestWarnings(t *testing.T) {
	now := time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)
	// one is a certificate from a day before now, by its subject, issuer and days left.
	one := func(subject, issuer string, days int) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: subject}, RawSubject: []byte(subject), RawIssuer: []byte(issuer),
			NotBefore: now.AddDate(0, 0, min(-1, days-1)), NotAfter: now.AddDate(0, 0, days).Add(time.Minute),
		}
	}
	early := one("leaf", "a", 90)
	early.NotBefore = now.Add(time.Hour)
	for _, c := range []struct {
		what      string
		chain     []*x509.Certificate
		presented bool
		want      string
	}{
		{"good", []*x509.Certificate{one("leaf", "a", 15)}, true, ""},
		{"ends soon", []*x509.Certificate{one("leaf", "a", 13)}, true, "ends on 2027-01-14 12:01 UTC, in 13 days; renew it"},
		{"ends today", []*x509.Certificate{one("leaf", "a", 1)}, true, "ends on 2027-01-02 12:01 UTC, in 24 hours; renew it"},
		{"has ended", []*x509.Certificate{one("leaf", "a", -2)}, true, "has ended on 2026-12-30 12:01 UTC"},
		{"too early", []*x509.Certificate{early}, true, "is not valid before 2027-01-01 13:00 UTC"},
		{
			"an intermediate ends first",
			[]*x509.Certificate{one("leaf", "a", 90), one("a", "root", 3)},
			true,
			"its intermediate CN=a ends on 2027-01-04 12:01 UTC, in 3 days",
		},
		{"a root is the client's", []*x509.Certificate{one("leaf", "root", 90), one("root", "root", -3)}, true, ""},
		{"of a bundle one is good", []*x509.Certificate{one("x", "x", -90), one("y", "y", 90)}, false, ""},
		{"of a bundle none is good", []*x509.Certificate{one("x", "x", -90), one("y", "y", -2)}, false, "CN=y has ended on"},
		{
			"out of order",
			[]*x509.Certificate{one("leaf", "a", 90), one("root", "root", 90), one("a", "root", 90)},
			true,
			"is out of order: its certificate 2 (CN=root)",
		},
	} {
		got := certificate.DatesOf(c.chain, c.presented).Warning(now, certificate.Soon)
		if c.presented {
			got += certificate.OrderWarning(c.chain)
		}
		if !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}
