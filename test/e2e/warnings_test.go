package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestCertificatesAreWarnedOf: what has ended or ends soon is taken with a warning, in the answer, a dry run's too,
// the status, the command line and a metric; what Envoy refuses is refused with its field.
func TestCertificatesAreWarnedOf(t *testing.T) {
	s := start(t, "--no-demo")
	a := newAuthority(t)
	term := &terminalOf{T: t, s: s, dir: t.TempDir()}
	spec := func(end time.Time) map[string]any {
		chain, key := a.until(t, end, "a.test")
		return map[string]any{"spec": map[string]any{"chain": chain, "private_key": key}}
	}
	said := func(answer map[string]any) string {
		var out []string
		list, _ := answer["warnings"].([]any)
		for _, w := range list {
			x := w.(map[string]any)
			out = append(out, fmt.Sprint(x["kind"], "/", x["name"], " ", x["path"], " ", x["rule"], " ", x["message"]))
		}
		return strings.Join(out, "; ")
	}
	want := func(answer map[string]any, parts ...string) {
		t.Helper()
		got := said(answer)
		if (len(parts) == 0) != (got == "") {
			t.Errorf("warnings %q, want %q", got, parts)
		}
		term.says(got, parts...)
	}
	now := time.Now()
	want(call(t, s, "PUT", s.API+"/v1/certificates/good", spec(now.Add(100*24*time.Hour)), 201))
	soon := call(t, s, "PUT", s.API+"/v1/certificates/soon", spec(now.Add(13*24*time.Hour)), 201)
	want(soon, "Certificate/soon $.chain certificate.dates ends on", "renew it")
	want(call(t, s, "PUT", s.API+"/v1/certificates/soon", soon, 200), "ends on") // as it was answered
	ended := spec(now.Add(-time.Minute))
	want(call(t, s, "PUT", s.API+"/v1/certificates/ended?dry_run=true", ended, 200),
		"Certificate/ended $.chain certificate.dates has ended on")
	want(call(t, s, "POST", s.API+"/v1/apply",
		map[string]any{"resources": []any{map[string]any{"kind": "Certificate", "name": "ended", "spec": ended["spec"]}}},
		200), "has ended on")
	want(call(t, s, "GET", s.API+"/v1/status", nil, 200), "Certificate/ended $.chain certificate.dates has ended on",
		"; Certificate/soon")

	out, _ := term.run(0, "status")
	term.says(out, "warning: Certificate/ended has ended on", "warning: Certificate/soon ends on")
	out, _ = term.in(fmt.Sprintf("kind: Certificate\nname: more\nspec:\n  chain: %q\n", a.PEM), 0, "apply", "-f",
		"-", "--dry-run")
	term.says(out, "warning: Certificate/more ends on")

	// Renewed by one write, it is warned of no more.
	want(call(t, s, "PUT", s.API+"/v1/certificates/ended", spec(now.Add(100*24*time.Hour)), 200))
	if got := said(call(t, s, "GET", s.API+"/v1/status", nil, 200)); strings.Contains(got, "ended") {
		t.Errorf("after it is renewed: %s", got)
	}
	_, raw, err := s.Call(t.Context(), "GET", s.API+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	term.says(string(raw), "marchproxy_api_certificate_expiry_timestamp_seconds{certificate=\"soon\"} "+
		strconv.FormatFloat(float64(now.Add(13*24*time.Hour).Unix()), 'g', -1, 64)+"\n")

	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a.test"}, NotBefore: now,
		NotAfter: now.Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, weak.Public(), weak)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(weak)
	if err != nil {
		t.Fatal(err)
	}
	block := func(typ string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
	}
	refused := call(t, s, "PUT", s.API+"/v1/certificates/good",
		map[string]any{"spec": map[string]any{"chain": block("CERTIFICATE", der), "private_key": block("PRIVATE KEY", key)}},
		422)
	term.says(fmt.Sprint(refused["errors"]), "$.spec.chain", "P-224", "issue it anew")
}

// TestLargestBody: a direct response's body of 64 KiB is served, one byte more is refused at the write.
func TestLargestBody(t *testing.T) {
	s := start(t, "--no-demo")
	body := strings.Repeat("b", 64<<10)
	put := func(body string, status int) map[string]any {
		t.Helper()
		return call(t, s, "PUT", s.API+"/v1/routes/r?wait=live",
			map[string]any{"spec": map[string]any{"hosts": []any{"body.test"}, "direct_response": map[string]any{
				"status": 200,
				"body":   body, "content_type": "text/plain; q=100%",
			}}}, status)
	}
	if l := put(body, 201)["live"].(map[string]any); l["state"] != "live" {
		t.Errorf("%v", l)
	}
	if status, got := proxied(t, s, "body.test", "/"); status != 200 || got != body {
		t.Errorf("%d with %d bytes", status, len(got))
	}
	if got := fmt.Sprint(put(body+"b", 422)["errors"]); !strings.Contains(got, "$.spec.direct_response.body") {
		t.Error(got)
	}
}
