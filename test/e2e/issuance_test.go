package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/pebble"
)

// issuing is a system with two Envoys, and an authority that looks at them.
type issuing struct {
	*testing.T
	s     *harness.System
	ca    *pebble.Pebble
	https string // host:port
}

// startIssuing begins with an http and an https listener, the latter without a certificate, and the issuer "own".
func startIssuing(t *testing.T, o pebble.Options, issuer object) *issuing {
	t.Helper()
	s := start(t, "--no-demo", "--concurrency", "1")
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	o.HTTPPort = s.ProxyPort
	ca, err := pebble.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	i := &issuing{t, s, ca, net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))}
	secondEnvoy(t, s, s.GRPC)
	eventually(t, func() string {
		if n := call(t, s, "GET", s.API+"/v1/status", nil, 200)["proxies"]; n != 2.0 {
			return fmt.Sprintf("%v Envoys", n)
		}
		return ""
	})
	spec := object{"directory": ca.Directory, "terms_agreed": true, "trusted_ca": ca.CA}
	maps.Copy(spec, issuer)
	call(t, s, "PUT", s.API+"/v1/certificate-issuers/own", object{"spec": spec}, 201)
	call(t, s, "PATCH", s.API+"/v1/gateways/default?wait=live", object{"spec": object{
		"certificate_issuer": "own",
		"listeners": []any{
			object{"name": "http", "port": s.ProxyPort},
			object{"name": "https", "port": ports[0], "protocol": "https"},
		},
	}}, 200)
	return i
}

// want writes a certificate of the issuer.
func (i *issuing) want(name string, names ...string) {
	i.Helper()
	status, raw, err := i.s.Call(i.Context(), "PUT", i.s.API+"/v1/certificates/"+name, object{"spec": object{
		"issuer": "own", "names": names, "gateways": []string{"default"},
	}})
	if err != nil || status >= 300 {
		i.Fatalf("%s: %d %s (%v)", name, status, raw, err)
	}
}

func (i *issuing) issuance(name string) object {
	i.Helper()
	o := call(i.T, i.s, "GET", i.s.API+"/v1/certificates/"+name, nil, 200)
	x, _ := o["status"].(object)["issuance"].(object)
	return x
}

// reaches waits for a step of a certificate.
func (i *issuing) reaches(name, step string) object {
	i.Helper()
	var x object
	eventually(i.T, func() string {
		if x = i.issuance(name); x["step"] != step {
			return fmt.Sprintf("%s: %v\n%s", name, x, i.ca.Log())
		}
		return ""
	})
	return x
}

// served is the certificate that a client gets who trusts the authority.
func (i *issuing) served(name string) (*x509.Certificate, error) {
	i.Helper()
	roots, err := i.ca.Roots(i.Context())
	if err != nil {
		i.Fatal(err)
	}
	d := tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: roots, MinVersion: tls.VersionTLS12}}
	c, err := d.DialContext(i.Context(), "tcp", i.https)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// serves says that every Envoy serves a name with a certificate of the authority: each gets some of the connections.
func (i *issuing) serves(name string) (serial string) {
	i.Helper()
	eventually(i.T, func() string {
		for range 12 {
			c, err := i.served(name)
			if err != nil {
				return fmt.Sprintf("%s: %v", name, err)
			}
			serial = c.SerialNumber.String()
		}
		return ""
	})
	return serial
}

// TestIssuance: a certificate with an issuer and names is ordered, its names are proven by answers of both Envoys before
// redirects and policies, and it is served; nothing that was there is drained, and nothing is left of the answers. An
// https listener without a certificate opens for it.
func TestIssuance(t *testing.T) {
	i := startIssuing(t, pebble.Options{NonceReject: 30}, nil)
	s := i.s
	call(t, s, "POST", s.API+"/v1/apply?wait=live", object{"resources": []any{
		object{"kind": "AuthPolicy", "name": "keys", "spec": object{"tokens": []any{object{
			"name": "ci", "value": "a-token-of-sixteen-characters",
		}}}},
		object{"kind": "Route", "name": "to-https", "spec": object{
			"hosts": []string{"shop.example.com"}, "redirect": object{"scheme": "https"},
		}},
		object{"kind": "Route", "name": "closed", "spec": object{
			"hosts": []string{"*.inside.example.com"}, "auth_policy": "keys", "direct_response": object{"status": 200},
		}},
	}}, 200)
	i.want("shop", "shop.example.com", "a.inside.example.com", "nowhere.example.com")
	i.reaches("shop", "issued")
	first := i.serves("shop.example.com")
	i.serves("a.inside.example.com")
	i.serves("nowhere.example.com")
	if list := call(t, s, "GET", s.API+"/v1/certificate-challenges", nil, 200)["items"].([]any); len(list) > 0 {
		t.Errorf("answers are left: %v", list)
	}
	shown := fmt.Sprint(call(t, s, "GET", s.API+"/v1/certificates/shop", nil, 200))
	if strings.Contains(shown, "PRIVATE KEY") || strings.Contains(shown, "placeholder:true") {
		t.Errorf("the certificate is shown as %s", shown)
	}

	// Renewed: another one, and nothing drains.
	before := listenerStats(t, s)
	call(t, s, "POST", s.API+"/v1/certificates/shop/renew", nil, 202)
	eventually(t, func() string {
		if c, err := i.served("shop.example.com"); err != nil || c.SerialNumber.String() == first {
			return fmt.Sprintf("not renewed (%v): %v", err, i.issuance("shop"))
		}
		return ""
	})
	if after := listenerStats(t, s); !maps.Equal(before, after) {
		t.Errorf("the renewal changed a listener: %v, before %v", after, before)
	}
	renewal, err := time.Parse(time.RFC3339, i.reaches("shop", "issued")["renew_at"].(string))
	if days := time.Until(renewal).Hours() / 24; err != nil || days < 58 || days > 62 {
		t.Errorf("it is renewed after %.1f days (%v)", days, err)
	}
}

// TestAutomatic: a host that asks for TLS by one field gets a certificate from the gateway's issuer, which is renewed when
// the authority says so, and goes when no route asks for it. What cannot be issued is refused at the route's write.
func TestAutomatic(t *testing.T) {
	i := startIssuing(t, pebble.Options{Lasts: 25 * time.Second}, nil)
	s := i.s
	route := func(name string, spec object, status int) object {
		t.Helper()
		spec["direct_response"] = object{"status": 200, "body": name}
		return call(t, s, "PUT", s.API+"/v1/routes/"+name, object{"spec": spec}, status)
	}
	for want, hosts := range map[string][]string{
		"there is no certificate": {}, "has no dns01": {"*.example.com"}, "is an address": {"[2001:db8::1]"},
	} {
		if got := fmt.Sprint(route("refused", object{"hosts": hosts, "tls": "auto"}, 422)); !strings.Contains(got, want) {
			t.Errorf("%v: %s", hosts, got)
		}
	}
	route("one", object{"hosts": []string{"one.example.com"}, "tls": "auto"}, 201)
	route("two", object{"hosts": []string{"two.example.com"}, "tls": "auto"}, 201)
	route("plain", object{"hosts": []string{"plain.example.com"}}, 201)
	first := i.serves("one.example.com")
	i.serves("two.example.com")
	certificates := func() (names []string) {
		for _, o := range call(t, s, "GET", s.API+"/v1/certificates", nil, 200)["items"].([]any) {
			if o := o.(object); o["owner"] == "marchproxy-automatic" {
				names = append(names, o["name"].(string))
			}
		}
		return names
	}
	all := certificates()
	if len(all) != 2 || !strings.HasPrefix(all[0], "auto-one-example-com-") {
		t.Errorf("the certificates %v", all)
	}

	// The authority says when: within the time that the certificate lasts.
	eventually(t, func() string {
		if c, err := i.served("one.example.com"); err != nil || c.SerialNumber.String() == first {
			return fmt.Sprintf("not renewed (%v): %v", err, i.issuance(all[0]))
		}
		return ""
	})
	if i.ca.Requests("is a replacement of") == 0 {
		t.Error("the authority was not told that an order replaces a certificate")
	}

	call(t, s, "DELETE", s.API+"/v1/routes/one", nil, 200)
	eventually(t, func() string {
		if now := certificates(); len(now) != 1 || now[0] != all[1] {
			return fmt.Sprintf("%v are there", now)
		}
		return ""
	})
}

// TestIssuanceFails: what the authority refuses is said at the object, in the status and as a metric, what is served goes
// on, and nothing is tried before it is due. What was wrong is corrected by a write.
func TestIssuanceFails(t *testing.T) {
	i := startIssuing(t, pebble.Options{Refused: []string{"refused.example.com"}}, object{
		"order_limit": object{"orders": 4, "per": "3600s"},
	})
	s := i.s
	i.want("good", "good.example.com")
	i.reaches("good", "issued")
	i.want("refused", "refused.example.com")
	x := i.reaches("refused", "failed")
	if x["problem"] != "rejectedIdentifier" || x["failures"] != 1.0 || !strings.Contains(fmt.Sprint(x["reason"]), "refused") {
		t.Errorf("a name that the authority does not issue for: %v", x)
	}
	if next, err := time.Parse(time.RFC3339, x["next_at"].(string)); err != nil || time.Until(next) < 50*time.Second {
		t.Errorf("it is tried again at %v (%v)", x["next_at"], err)
	}
	if err := i.ca.Resolve(t.Context(), "lost.example.com", "224.0.0.1"); err != nil { // to which nobody connects
		t.Fatal(err)
	}
	i.want("lost", "lost.example.com")
	if x := i.reaches("lost", "failed"); x["problem"] != "connection" || !strings.Contains(fmt.Sprint(x["reason"]),
		"lost.example.com") {
		t.Errorf("a name that leads elsewhere: %v", x)
	}
	if list := call(t, s, "GET", s.API+"/v1/certificate-challenges", nil, 200)["items"].([]any); len(list) > 0 {
		t.Errorf("answers are left: %v", list)
	}
	warnings := fmt.Sprint(call(t, s, "GET", s.API+"/v1/status", nil, 200)["warnings"])
	if !strings.Contains(warnings, "lost") || !strings.Contains(warnings, "certificate.issuance") {
		t.Errorf("the status warns of %s", warnings)
	}
	_, metrics, err := s.Call(t.Context(), "GET", s.API+"/metrics", nil)
	if err != nil || !strings.Contains(string(metrics),
		`marchproxy_api_certificate_issuance{issuer="own",state="connection"} 1`) {
		t.Errorf("no metric of it (%v)", err)
	}

	// Corrected: by where the name leads, and a renewal that is asked for.
	if err := i.ca.Resolve(t.Context(), "lost.example.com", "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	out, _ := c.run(0, "certificates", "renew", "lost", "--timeout", "30s")
	if !strings.Contains(out, "lost.example.com") {
		t.Errorf("certificates renew says\n%s", out)
	}
	// One order too many waits for the issuer's limit.
	i.want("late", "late.example.com")
	eventually(t, func() string {
		if x := i.issuance("late"); !strings.Contains(fmt.Sprint(x["note"]), "order_limit") {
			return fmt.Sprint(x)
		}
		return ""
	})
	if out, _ := c.run(0, "certificates"); !strings.Contains(out, "order_limit") || !strings.Contains(out, "rejectedIdentifier") {
		t.Errorf("certificates says\n%s", out)
	}

	// Nobody but the server writes answers, and a rollback keeps what was issued.
	status, raw, err := s.Call(t.Context(), "PUT", s.API+"/v1/certificate-challenges/mine", object{"spec": object{
		"gateways":  []string{"default"},
		"responses": []any{object{"host": "good.example.com", "id": "mine", "body": "mine"}},
	}})
	if err != nil || status != 403 {
		t.Errorf("an answer of somebody's own: %d %s (%v)", status, raw, err)
	}
	at := call(t, s, "GET", s.API+"/v1/status", nil, 200)["revision"].(float64)
	before := i.serves("good.example.com")
	c.run(3, "certificates", "renew", "good", "--timeout", "1s") // over the limit
	call(t, s, "PATCH", s.API+"/v1/certificate-issuers/own", object{"spec": object{"order_limit": object{"orders": 100}}}, 200)
	i.reaches("late", "issued")
	c.run(0, "certificates", "renew", "good", "--timeout", "30s")
	call(t, s, "POST", fmt.Sprintf("%s/v1/revisions/%.0f/rollback?wait=live", s.API, at), nil, 200)
	if after := i.serves("good.example.com"); after == before {
		t.Error("a rollback brought a certificate back that was renewed since")
	}
}

// TestDNS01: wildcards are proven by records that are written to a real name server, by an issuer with a key for that, and
// taken away again; an account is bound to one that the authority knows.
func TestDNS01(t *testing.T) {
	names, err := pebble.StartNamed(t.Context(), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	mac := "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	way := func(key string) object {
		return object{"rfc2136": object{"server": names.Addr, "key_name": names.KeyName, "key": key}}
	}
	i := startIssuing(t, pebble.Options{DNS: names.Addr, Accounts: map[string]string{"customer-7": mac}}, object{
		"dns01": way(names.Key), "external_account": object{"key_id": "customer-7", "mac_key": mac},
	})
	i.want("wild", "*.example.com", "example.com", "*.deep.example.com")
	i.reaches("wild", "issued")
	i.serves("any.example.com")
	i.serves("example.com")
	if log := names.Log(); strings.Count(log, "adding an RR") < 3 || strings.Count(log, "deleting an RR") < 3 {
		t.Errorf("the name server has said\n%s", log)
	}
	shown := fmt.Sprint(call(t, i.s, "GET", i.s.API+"/v1/certificate-issuers/own", nil, 200))
	if strings.Contains(shown, names.Key) || strings.Contains(shown, mac) || strings.Contains(shown, "sealed:") {
		t.Errorf("the issuer is shown as %s", shown)
	}

	call(t, i.s, "PATCH", i.s.API+"/v1/certificate-issuers/own", object{"spec": object{
		"dns01": way("d3JvbmcgYXMgY2FuIGJlLCBidXQgbG9uZyBlbm91Z2g="),
	}}, 200)
	i.want("other", "*.other.example.com")
	if x := i.reaches("other", "failed"); !strings.Contains(fmt.Sprint(x["reason"]), names.Addr) {
		t.Errorf("with a wrong key: %v", x)
	}
}

// TestIssuanceGoesOn: an api is killed in the middle of an order, and the next one goes on with it: none is made twice.
func TestIssuanceGoesOn(t *testing.T) {
	i := startIssuing(t, pebble.Options{Sleep: 4 * time.Second}, nil)
	for n := range 4 {
		i.want(fmt.Sprintf("c%d", n), fmt.Sprintf("c%d.example.com", n))
	}
	eventually(t, func() string { // an order of which nobody knows yet could not be gone on with
		at := map[any]int{}
		for n := range 4 {
			at[i.issuance(fmt.Sprintf("c%d", n))["step"]]++
		}
		if at["validating"] == 0 || at["validating"]+at["finalizing"]+at["issued"] < 4 {
			return fmt.Sprint(at)
		}
		return ""
	})
	pid := i.s.Pid("api")
	i.s.Kill("api")
	eventually(t, func() string {
		if now := i.s.Pid("api"); now == 0 || now == pid {
			return "the api is not back"
		}
		return ""
	})
	for n := range 4 {
		eventually(t, func() string { // the dead api's lease ends first
			status, raw, err := i.s.Call(t.Context(), "GET", fmt.Sprintf("%s/v1/certificates/c%d", i.s.API, n), nil)
			if err != nil || status != 200 || !strings.Contains(string(raw), `"step":"issued"`) {
				return fmt.Sprintf("%d %s (%v)", status, raw, err)
			}
			return ""
		})
		i.serves(fmt.Sprintf("c%d.example.com", n))
	}
	if n := i.ca.Requests("Added order "); n != 4 {
		t.Errorf("%d orders were made for 4 certificates", n)
	}
}
