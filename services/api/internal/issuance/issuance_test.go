package issuance

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// TestExplain: an authority's error is told by its word, with the name that it is about and what to do; what is none of
// an authority's is told as it is.
func TestExplain(t *testing.T) {
	caa := acme.Problem{Type: acme.ProblemTypeCAA, Detail: "CAA record for shop.example.com prevents issuance", Status: 403}
	for _, c := range []struct {
		err           error
		problem, says string
	}{
		{caa, "caa", "prevents issuance (a CAA record"},
		{named(acme.Authorization{Identifier: acme.Identifier{Value: "a.test"}}, fmt.Errorf("attempt 1: %w", caa)), "caa", "a.test: CAA"},
		{acme.Problem{Type: acme.ProblemTypeRejectedIdentifier, Detail: "Error", Subproblems: []acme.Subproblem{
			{Problem: acme.Problem{Detail: "blocked"}, Identifier: acme.Identifier{Value: "b.test"}},
		}}, "rejectedIdentifier", "b.test: blocked"},
		{fmt.Errorf("provisioning client: %w", errors.New("performing request: dial tcp: refused")), "unreachable", "refused"},
		{errors.New("something"), "failed", "something"},
	} {
		problem, reason := explain(c.err)
		if problem != c.problem || !strings.Contains(reason, c.says) {
			t.Errorf("%v is explained as %s: %s", c.err, problem, reason)
		}
	}
	if _, reason := explain(errors.New(strings.Repeat("x", 10000))); len(reason) > 2000 {
		t.Errorf("a reason of %d bytes", len(reason))
	}
}

// TestPauses: each is longer than the one before, fewer than five attempts are made in an hour, and none comes later than
// a day and a tenth.
func TestPauses(t *testing.T) {
	hour, last := time.Duration(0), time.Duration(0)
	for n := 1; n < 30; n++ {
		p := pauseAfter(n)
		if p < last && n <= len(pauses) || p > 27*time.Hour {
			t.Errorf("the pause after %d failures is %s, after %s", n, p, last)
		}
		last = p
		if n <= 4 {
			hour += p
		}
	}
	if hour < time.Hour {
		t.Errorf("five attempts within %s", hour)
	}
}

// TestRetryAfter reads both forms of the header, and believes no nonsense.
func TestRetryAfter(t *testing.T) {
	at := time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
	for value, want := range map[string]time.Duration{
		"": 0, "120": 2 * time.Minute, "-5": 0, "soon": 0, at: 90 * time.Second, "999999999": 30 * 24 * time.Hour,
	} {
		if got := retryAfter(value); got < want-2*time.Second || got > want {
			t.Errorf("%q is %s, want %s", value, got, want)
		}
	}
}

// TestAutomaticName: names of certificates are names of objects, readable, and another one for each host and issuer.
func TestAutomaticName(t *testing.T) {
	seen := map[string]string{}
	for _, host := range []string{
		"shop.example.com", "shop-example.com", "shop.example-com", "*.example.com", "wildcard.example.com", "_x.test",
		strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ".test",
	} {
		for _, issuer := range []string{"one", "two"} {
			name := automaticName(host, issuer)
			if msg := resource.CheckName(name); msg != "" {
				t.Errorf("%s: %q %s", host, name, msg)
			}
			if other := seen[name]; other != "" {
				t.Errorf("%s and %s are both %s", host, other, name)
			}
			seen[name] = host
		}
	}
	if name := automaticName("shop.example.com", "one"); !strings.HasPrefix(name, "auto-shop-example-com-") {
		t.Errorf("%q is not readable", name)
	}
}

// TestDesires: what the configuration asks for: certificates with an issuer, and those of routes with tls: auto, but for
// hosts that have one; the last certificate of a listener stays, and others' are left alone.
func TestDesires(t *testing.T) {
	st := config.New()
	put := func(kind, name, owner string, spec string) {
		t.Helper()
		k, _ := resource.KindByName(kind)
		m, v := resource.DecodeSpec(k, []byte(spec))
		if len(v) > 0 {
			t.Fatal(v)
		}
		o, err := resource.New(resource.Ref{Kind: kind, Name: name}, m)
		if err != nil {
			t.Fatal(err)
		}
		o.UID, o.Owner, o.Revision = "uid-"+name, owner, 1
		st.Apply([]*resource.Object{o})
	}
	put("CertificateIssuer", "ca", "", `{"directory":"letsencrypt","terms_agreed":true}`)
	put("Gateway", "default", "", `{"certificate_issuer":"ca","listeners":[{"name":"https","port":443,"protocol":"https"}]}`)
	put("Certificate", "own", "", `{"issuer":"ca","names":["own.test","*.wild.test"],"gateways":["default"]}`)
	put("Route", "r", "", `{"hosts":["a.test","own.test","b.wild.test"],"tls":"auto","direct_response":{"status":200}}`)
	put("Route", "none", "", `{"hosts":["c.test"],"direct_response":{"status":200}}`)
	put("CertificateChallenge", "gone", "", `{"gateways":["default"],"responses":[{"host":"x.test","id":"i","body":"b"}]}`)
	old := automaticName("old.test", "ca")
	put("Certificate", old, config.AutomaticOwner, `{"issuer":"ca","names":["old.test"],"gateways":["default"]}`)
	theirs := automaticName("theirs.test", "ca")
	put("Certificate", theirs, "team", `{"issuer":"ca","names":["theirs.test"],"gateways":["default"]}`)

	d := desires(st)
	if len(d.certificates) != 3 || d.certificates["own"].Issuer != "ca" || d.certificates["own"].UID != "uid-own" {
		t.Errorf("certificates %+v", d.certificates)
	}
	if len(d.make) != 1 || d.make[0].Ref.Name != automaticName("a.test", "ca") ||
		d.make[0].Spec.(*configv1.Certificate).GetGateways()[0] != "default" {
		t.Errorf("to be made: %+v", d.make)
	}
	if len(d.drop) != 1 || d.drop[0].Name != old {
		t.Errorf("to be dropped: %+v", d.drop)
	}
	if len(d.challenges) != 1 || d.challenges[0].Name != "gone" {
		t.Errorf("answers to be taken away: %+v", d.challenges)
	}

	was := d.certificates["own"].Wanted
	put("Certificate", "own", "", `{"issuer":"ca","names":["*.wild.test","own.test"],"gateways":["default"],"listeners":["https"]}`)
	if desires(st).certificates["own"].Wanted != was {
		t.Error("another order of the names is another order")
	}
	put("CertificateIssuer", "ca", "", `{"directory":"letsencrypt-staging","terms_agreed":true}`)
	if desires(st).certificates["own"].Wanted == was {
		t.Error("another directory is the same order")
	}
}

// TestMessage: the history says what was done, in a line that stays short.
func TestMessage(t *testing.T) {
	some := []write{{words: "issued shop"}, {words: "asks for blog"}}
	if got := message(some); got != "certificates: issued shop, asks for blog" {
		t.Errorf("%q", got)
	}
	for n := range 100 {
		some = append(some, write{words: fmt.Sprintf("issued certificate-number-%d", n)})
	}
	if got := message(some); len(got) > 450 || !strings.HasSuffix(got, "and others") {
		t.Errorf("%q", got)
	}
}

// TestRenewal: an authority's time is kept while its window stands, and moved with it; without one it is after two thirds
// of the certificate's life, or half of a short one. What is planned is not in the past unless the authority says so.
func TestRenewal(t *testing.T) {
	now := time.Now()
	leaf := &x509.Certificate{NotBefore: now, NotAfter: now.Add(90 * 24 * time.Hour)}
	j := &job{}
	j.plan(nil, leaf, now)
	if days := j.row.RenewAt.Sub(now).Hours() / 24; days < 60 || days > 62 || !j.row.NextAt.Before(*j.row.RenewAt) {
		t.Errorf("renewed after %.1f days, looked at %s", days, j.row.NextAt)
	}
	first := *j.row.RenewAt
	j.plan(nil, leaf, now.Add(time.Hour))
	if !j.row.RenewAt.Equal(first) {
		t.Error("the time wanders")
	}
	short := &job{}
	short.plan(nil, &x509.Certificate{NotBefore: now, NotAfter: now.Add(6 * 24 * time.Hour)}, now)
	if days := short.row.RenewAt.Sub(now).Hours() / 24; days < 3 || days > 3.2 {
		t.Errorf("one of six days is renewed after %.1f", days)
	}

	ari := &acme.RenewalInfo{SelectedTime: now.Add(50 * 24 * time.Hour), ExplanationURL: "https://ca.test/why"}
	ari.SuggestedWindow.Start, ari.SuggestedWindow.End = now.Add(49*24*time.Hour), now.Add(51*24*time.Hour)
	soon := now.Add(time.Minute)
	ari.RetryAfter = &soon
	j.plan(ari, leaf, now)
	if !j.row.RenewAt.Equal(ari.SelectedTime) || !j.row.NextAt.Equal(soon) || j.row.Explanation != ari.ExplanationURL {
		t.Errorf("%+v", j.row)
	}
	again := *ari
	again.SelectedTime = now.Add(49*24*time.Hour + time.Hour)
	j.plan(&again, leaf, now)
	if !j.row.RenewAt.Equal(ari.SelectedTime) {
		t.Error("another time is chosen in the same window")
	}
	again.SuggestedWindow.Start, again.SuggestedWindow.End = now.Add(-2*time.Hour), now.Add(-time.Hour)
	again.SelectedTime = now.Add(-90 * time.Minute)
	j.plan(&again, leaf, now)
	if j.row.RenewAt.After(now) || j.row.NextAt.After(now) {
		t.Errorf("the authority has to revoke, and it is renewed at %s", j.row.RenewAt)
	}
}

// TestRefusesReplacement: an order that is refused with the certificate that it replaces is made without it, also where
// the authority calls that an error of its own.
func TestRefusesReplacement(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{acme.Problem{Type: acme.ProblemTypeServerInternal, Status: 500, Detail: "could not find an order for the given certificate"}, true},
		{fmt.Errorf("attempt 1: %w", acme.Problem{Type: acme.ProblemTypeMalformed, Status: 400}), true},
		{acme.Problem{Type: acme.ProblemTypeRateLimited, Status: 429}, false},
		{acme.Problem{Type: acme.ProblemTypeAccountDoesNotExist, Status: 400}, false},
		{errors.New("connection refused"), false},
		{nil, false},
	} {
		if got := refusesReplacement(c.err); got != c.want {
			t.Errorf("%v: %t, want %t", c.err, got, c.want)
		}
	}
}
