//go:debug rsa1024min=0
package fleet_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// bad are certificates that Envoy refuses, one of each kind.
func bad(t *testing.T) map[string]*configv1.Certificate {
	out := map[string]*configv1.Certificate{
		"rsa-1024": issue(t, newKey(t, "RSA-1024"), nil, "rsa-1024.test"),
		"p-224":    issue(t, newKey(t, "P-224"), nil, "p-224.test"),
		"key-usage": issue(t, newKey(t, "P-256"), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement },
			"key-usage.test"),
		"other-key": issue(t, newKey(t, "P-256"), nil, "other-key.test"),
		"no-key":    issue(t, newKey(t, "P-256"), nil, "no-key.test"),
	}
	out["other-key"].PrivateKey = out["key-usage"].PrivateKey
	out["no-key"].PrivateKey = ""
	return out
}

// TestBadCertificates: a certificate of each kind that Envoy refuses, beside 100 good ones. The good ones are
// served and change in the usual time, the bad ones alone are reported, each fails its own name at once, and Envoy
// starts anew in the usual time.
func TestBadCertificates(t *testing.T) {
	w := newRig(t)
	l := &configv1.Listener{}
	objects := map[resource.Ref]proto.Message{}
	key := newKey(t, "P-256")
	for i := range 100 {
		name := fmt.Sprintf("good-%d", i)
		l.Certificates = append(l.Certificates, name)
		objects[certificateRef(name)] = issue(t, key, nil, name+".test")
	}
	objects[gatewayRef] = w.gateway(l)
	w.apply(objects)
	alone := w.start()
	w.live()
	rotate := func(name string) time.Duration {
		t.Helper()
		next := issue(t, key, nil, name+".test")
		w.apply(map[resource.Ref]proto.Message{certificateRef(name): next})
		took := w.live()
		cert, err := w.leaf(1, name+".test")
		if block, _ := pemDecode(next.GetChain()); err != nil || !bytes.Equal(cert.Raw, block) {
			t.Errorf("%s was rotated and is live, and is not what is presented (%v)", name, err)
		}
		return took
	}
	usual := max(rotate("good-3"), rotate("good-4"), rotate("good-5"))

	all := bad(t)
	damaged := map[resource.Ref]proto.Message{}
	for name, c := range all {
		l.Certificates = append(l.Certificates, name)
		damaged[certificateRef(name)] = c
	}
	damaged[gatewayRef] = w.gateway(l)
	begin := time.Now()
	w.apply(damaged)
	w.until("all of the bad ones are refused", func() bool {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("refused are only %v", slices.Sorted(maps.Keys(w.refused())))
		}
		return len(w.refused()) == len(all)
	})
	if got := slices.Sorted(maps.Keys(w.refused())); !slices.Equal(got, slices.Sorted(maps.Keys(all))) {
		t.Errorf("refused are %v", got)
	}
	check := func(when string) {
		t.Helper()
		for i := range 10 {
			name := fmt.Sprintf("good-%d", i*9)
			if took := rotate(name); took > usual+500*time.Millisecond {
				t.Errorf("%s: the rotation of %s took %v, before it was %v", when, name, took, usual)
			}
		}
		for name := range all {
			w.fails(1, name+".test")
		}
	}
	check("beside bad ones")
	// One that was good is rotated to a bad one: it stays, and the others change as before.
	w.apply(map[resource.Ref]proto.Message{certificateRef("good-50"): issue(t, newKey(t, "RSA-1024"), nil,
		"good-50.test")})
	w.until("it is refused", func() bool { return len(w.refused()) == len(all)+1 })
	check("beside one that was good")
	w.presents(1, "good-50.test", "good-50.test")

	w.kill()
	if took := w.start(); took > alone+2*time.Second {
		t.Errorf("Envoy started in %v, without bad certificates it was %v", took, alone)
	}
	for i := range 100 {
		name := fmt.Sprintf("good-%d.test", i)
		w.presents(1, name, name)
	}
	check("after a restart")

	// What is made good is served, and by an Envoy that had been told that there is none.
	w.apply(map[resource.Ref]proto.Message{certificateRef("rsa-1024"): issue(t, key, nil, "rsa-1024.test")})
	w.live()
	w.down()
	w.presents(1, "rsa-1024.test", "rsa-1024.test")
	if _, still := w.refused()["rsa-1024"]; still {
		t.Error("what was made good is still reported")
	}
}

// TestBadCertificateOfAChain: the same for certificates that a chain has in a context of several: a pair of keys, and a
// client's authority.
func TestBadCertificateOfAChain(t *testing.T) {
	w := newRig(t)
	key, rsaKey := newKey(t, "P-256"), newKey(t, "RSA-2048")
	l := &configv1.Listener{
		Certificates: []string{"main", "pair-ec", "pair-rsa", "strict"},
		ClientAuth:   []*configv1.ClientAuth{{Hosts: []string{"strict.test"}, CaCertificate: "ca"}},
	}
	authority := issue(t, key, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, "ca")
	authority.PrivateKey = ""
	w.apply(map[resource.Ref]proto.Message{
		gatewayRef: w.gateway(l), certificateRef("main"): issue(t, key, nil, "main.test"),
		certificateRef("strict"):   issue(t, key, nil, "strict.test"),
		certificateRef("pair-ec"):  issue(t, key, nil, "pair.test"),
		certificateRef("pair-rsa"): issue(t, rsaKey, nil, "pair.test"), certificateRef("ca"): authority,
	})
	w.start()
	w.live()
	w.presents(1, "pair.test", "pair.test")
	w.apply(map[resource.Ref]proto.Message{certificateRef("pair-rsa"): issue(t, newKey(t, "RSA-1024"), nil, "pair.test")})
	w.until("it is refused", func() bool { return w.refused()["pair-rsa"] != "" })
	next := issue(t, key, nil, "pair.test")
	w.apply(map[resource.Ref]proto.Message{certificateRef("pair-ec"): next})
	w.live()
	cert, err := w.leaf(1, "pair.test")
	if block, _ := pemDecode(next.GetChain()); err != nil || !bytes.Equal(cert.Raw, block) || len(w.refused()) != 1 {
		t.Errorf("the good half of a pair is not served beside a bad one (%v); refused are %v", err, w.refused())
	}
	w.kill()
	if took := w.start(); took > 4*time.Second {
		t.Errorf("Envoy started in %v", took)
	}
	w.presents(1, "pair.test", "pair.test")
	w.presents(1, "main.test", "main.test")
	w.presents(1, "strict.test", "strict.test")
}

// TestServerNames is which certificate serves a server name, at two listeners with different ones, whether they list
// the certificates or these name them.
func TestServerNames(t *testing.T) {
	for _, named := range []bool{false, true} {
		t.Run(fmt.Sprint("named=", named), func(t *testing.T) { serverNames(t, named) })
	}
}

func serverNames(t *testing.T, named bool) {
	w := newRig(t)
	key, rsaKey := newKey(t, "P-256"), newKey(t, "RSA-2048")
	certs := map[string]*configv1.Certificate{
		"a-first": issue(t, key, nil, "first.test"), // the default of a listener without a list goes by age, here by name
		"exact":   issue(t, key, nil, "exact.test", "also.exact.test"),
		"wild":    issue(t, key, nil, "*.wild.test", "wild.test"),
		"deep":    issue(t, key, nil, "*.deep.wild.test"),
		"below":   issue(t, key, nil, "below.wild.test", "far.below.wild.test", "out.test"),
		"pair-ec": issue(t, key, nil, "pair.test"), "pair-rsa": issue(t, rsaKey, nil, "pair.test"),
		"strict":       issue(t, key, nil, "strict.test", "*.strict.test", "a.b.strict.test"),
		"strict-below": issue(t, key, nil, "*.b.strict.test"),
		"one":          issue(t, key, nil, "differs.test"), "two": issue(t, key, nil, "differs.test"),
		"only-two": issue(t, key, nil, "intern.test"),
		"odd":      issue(t, key, nil, "Capital.test", "*", "*.*.odd.test", "o*d.test", "odd.test"),
		"ca":       issue(t, key, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, "ca"),
	}
	for _, n := range []string{"one", "two"} {
		c := issue(t, key, func(c *x509.Certificate) { c.Subject.CommonName = n }, "differs.test")
		certs[n] = c
	}
	listeners := []*configv1.Listener{
		{
			Certificates: []string{
				"a-first", "exact", "wild", "deep", "below", "pair-rsa", "pair-ec", "strict", "strict-below",
				"one", "odd",
			},
			ClientAuth: []*configv1.ClientAuth{{Hosts: []string{"*.strict.test", "strict.test"}, CaCertificate: "ca"}},
		},
		{Certificates: []string{"a-first", "exact", "two", "only-two"}},
	}
	if named {
		for i, l := range listeners {
			for _, name := range l.GetCertificates() {
				certs[name].Listeners = append(certs[name].Listeners, fmt.Sprint("https", i+1))
			}
			l.Certificates = nil
		}
	}
	objects := map[resource.Ref]proto.Message{gatewayRef: w.gateway(listeners...)}
	for name, c := range certs {
		objects[certificateRef(name)] = c
	}
	w.apply(objects)
	w.start()
	w.live()
	for _, c := range []struct {
		listener   int
		name, want string
	}{
		{1, "exact.test", "exact.test"},
		{1, "also.exact.test", "exact.test"},
		{1, "EXACT.Test", "exact.test"},
		{1, "wild.test", "*.wild.test"},
		{1, "a.wild.test", "*.wild.test"},
		{1, "A.Wild.Test", "*.wild.test"},
		{1, "a.deep.wild.test", "*.deep.wild.test"},
		{1, "below.wild.test", "below.wild.test"},
		{1, "far.below.wild.test", "below.wild.test"},
		{1, "out.test", "below.wild.test"},
		{1, "pair.test", "pair.test"},
		{1, "strict.test", "strict.test"},
		{1, "a.strict.test", "strict.test"},
		{1, "a.b.strict.test", "strict.test"},
		{1, "differs.test", "one"},
		{2, "differs.test", "two"},
		{1, "capital.test", "Capital.test"},
		{1, "odd.test", "Capital.test"},
		// What nobody has.
		{1, "", "first.test"},
		{1, "unknown.test", "first.test"},
		{1, "unknown", "first.test"},
		{1, "x\xffy.test", "first.test"},
		{1, "*", "first.test"},
		{1, "certificate/exact", "first.test"},
		{1, "a b.test", "first.test"},
		{1, strings.Repeat("x", 200) + ".test", "first.test"},
		{2, "", "first.test"},
		{2, "exact.test", "exact.test"},
		{2, "a.wild.test", "first.test"},
		{2, "out.test", "first.test"},
		{2, "strict.test", "first.test"},
		{2, "intern.test", "intern.test"},
		{1, "intern.test", "first.test"},
	} {
		w.presents(c.listener, c.name, c.want)
	}
	// Both keys of a pair are had, each by who can use it.
	for want, suite := range map[x509.PublicKeyAlgorithm]uint16{
		x509.RSA:   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		x509.ECDSA: tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	} {
		cert, err := w.old(1, "pair.test", suite)
		if err != nil {
			t.Errorf("%s: %v", want, err)
		} else if got := cert.PublicKeyAlgorithm; got != want {
			t.Errorf("presented is a key of %s to a client that knows %s only", got, want)
		}
	}
	// A host that demands a client certificate demands it, whatever certificates have its name.
	for name, demands := range map[string]bool{
		"strict.test": true, "a.strict.test": true, "a.b.strict.test": true,
		"x.b.strict.test": true, "exact.test": false,
	} {
		if got := w.demands(1, name); got != demands {
			t.Errorf("%s: demands a client certificate %t", name, got)
		}
	}
}

// TestFirstCertificatesDiffer: what one listener begins with is not shown to another one's clients.
func TestFirstCertificatesDiffer(t *testing.T) {
	w := newRig(t)
	key := newKey(t, "P-256")
	w.apply(map[resource.Ref]proto.Message{
		gatewayRef: w.gateway(&configv1.Listener{Certificates: []string{"intern", "both"}},
			&configv1.Listener{Certificates: []string{"public", "both"}}),
		certificateRef("both"): issue(t, key, nil, "both.test"), certificateRef("intern"): issue(t, key, nil, "intern.test"),
		certificateRef("public"): issue(t, key, nil, "public.test"),
	})
	w.start()
	w.live()
	for listener, first := range map[int]string{1: "intern.test", 2: "public.test"} {
		w.presents(listener, "", first)
		w.presents(listener, "x y", first)
		w.presents(listener, first, first)
		w.presents(listener, "both.test", "both.test")
		w.fails(listener, "unknown.test")
	}
	w.fails(1, "public.test")
	w.fails(2, "intern.test")
}

// demands says whether a client without a certificate is sent away. TLS 1.3 says so after the handshake.
func (w *rig) demands(listener int, name string) bool {
	w.t.Helper()
	c, err := w.dial(listener, name)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n"); err != nil {
		return true
	}
	_, err = io.ReadAll(c)
	return err != nil && strings.Contains(err.Error(), "certificate required")
}

// TestCertificatesComeAndGo: what happens to certificates changes no listener, ends no connection, is live when it is
// said to be, and is served while no xDS server can be reached, whether a client has asked for it before or not.
func TestCertificatesComeAndGo(t *testing.T) {
	for _, named := range []bool{false, true} {
		t.Run(fmt.Sprint("named=", named), func(t *testing.T) { comeAndGo(t, named) })
	}
}

// comeAndGo does it with certificates that the listener lists, or that name it.
func comeAndGo(t *testing.T, named bool) {
	w := newRig(t)
	key := newKey(t, "P-256")
	l := &configv1.Listener{Certificates: []string{"first"}}
	w.apply(map[resource.Ref]proto.Message{
		gatewayRef:              w.gateway(l),
		certificateRef("first"): issue(t, key, nil, "first.test"),
	})
	w.start()
	w.live()
	kept, err := w.dial(1, "first.test")
	if err != nil {
		t.Fatal(err)
	}
	before := w.updates()
	form := func(c *configv1.Certificate) *configv1.Certificate {
		if named {
			c.Gateways = []string{resource.DefaultGateway}
		}
		return c
	}
	change := func(certificates map[resource.Ref]proto.Message) {
		if !named {
			certificates[gatewayRef] = w.gateway(l)
		}
		w.apply(certificates)
		w.live()
	}
	add := func(name string, names ...string) {
		t.Helper()
		if !named {
			l.Certificates = append(l.Certificates, name)
		}
		change(map[resource.Ref]proto.Message{certificateRef(name): form(issue(t, key, nil, names...))})
	}
	remove := func(name string) {
		t.Helper()
		l.Certificates = slices.DeleteFunc(l.Certificates, func(n string) bool { return n == name })
		change(map[resource.Ref]proto.Message{certificateRef(name): nil})
	}
	for i := range 80 { // more than one carrier
		add(fmt.Sprint("c", i), fmt.Sprintf("c%d.test", i), fmt.Sprintf("www.c%d.test", i))
		// One that comes and goes again and again, while carriers are parted and put together by it.
		for range 2 {
			add("again", "again.test", "quiet.test") // one name that clients ask for, and one that none does
			w.presents(1, "again.test", "again.test")
			remove("again")
			w.presents(1, "again.test", "first.test")
		}
	}
	w.presents(1, "c3.test", "c3.test")
	w.presents(1, "c4.test", "c4.test")
	// A name that clients have asked for before it had a certificate.
	w.presents(1, "late.test", "first.test")
	add("late", "late.test")
	w.presents(1, "late.test", "late.test")
	// Rotated, with one client that has the old one, and to another certificate for the name.
	for range 3 {
		next := form(issue(t, key, nil, "c3.test"))
		w.apply(map[resource.Ref]proto.Message{certificateRef("c3"): next})
		w.live()
		cert, err := w.leaf(1, "c3.test")
		if block, _ := pemDecode(next.GetChain()); err != nil || !bytes.Equal(cert.Raw, block) {
			t.Errorf("what was rotated and is live is not what is presented (%v)", err)
		}
	}
	w.presents(1, "www.c3.test", "first.test") // it has lost that name
	// Removed: whether it was in use or not, and it comes back.
	remove("c4")
	remove("c5")
	w.presents(1, "c4.test", "first.test")
	w.presents(1, "c5.test", "first.test")
	add("c5", "c5.test")
	w.presents(1, "c5.test", "c5.test")
	// What unknown names are served changes with the first certificate.
	w.apply(map[resource.Ref]proto.Message{certificateRef("first"): issue(t, key,
		func(c *x509.Certificate) { c.Subject.CommonName = "renewed" }, "first.test")})
	w.live()
	for _, name := range []string{"", "late2.test", "c4.test", "first.test", "FIRST.test"} {
		w.presents(1, name, "renewed")
	}
	if got := w.updates(); got != before {
		t.Errorf("the listeners were updated %d times", got-before)
	}
	if got := w.stat("listener_manager.total_filter_chains_draining"); got != 0 {
		t.Errorf("%d filter chains drain", got)
	}

	// A wildcard is a chain of its own: an update, and no connection drains.
	add("wild", "*.wild.test")
	w.presents(1, "x.wild.test", "*.wild.test")
	remove("wild")

	w.down()
	for i := range 80 {
		if i != 3 && i != 4 && i != 5 {
			w.presents(1, fmt.Sprintf("www.c%d.test", i), fmt.Sprintf("c%d.test", i))
		}
	}
	w.presents(1, "c5.test", "c5.test")
	w.presents(1, "", "renewed")
	w.up()
	add("after", "after.test")
	w.presents(1, "after.test", "after.test")

	// The first connection still serves, longer than a drain would let it.
	client := &http.Client{Transport: &oneConn{kept}}
	resp, err := client.Get("http://first.test/")
	if err != nil {
		t.Fatalf("the connection was cut: %v", err)
	}
	_ = resp.Body.Close()
	if resp.Close || resp.Header.Get("Connection") == "close" {
		t.Error("the connection drains")
	}
}

// TestNamesWithoutEnd: clients make names up. Neither Envoy nor the server keeps them.
func TestNamesWithoutEnd(t *testing.T) {
	w := newRig(t)
	key := newKey(t, "P-256")
	l := &configv1.Listener{Certificates: []string{"first", "wild", "exact"}}
	w.apply(map[resource.Ref]proto.Message{
		gatewayRef: w.gateway(l), certificateRef("first"): issue(t, key, nil, "first.test"),
		certificateRef("wild"): issue(t, key, nil, "*.wild.test"), certificateRef("exact"): issue(t, key, nil, "exact.test"),
	})
	w.start()
	w.live()
	for i := range 1000 {
		for name, want := range map[string]string{
			fmt.Sprintf("u%d.test", i): "first.test", fmt.Sprintf("w%d.wild.test", i): "*.wild.test",
			capitals("exact.test", i): "exact.test",
		} {
			w.presents(1, name, want)
		}
	}
	const active = `listener\..*\.on_demand_secret\.cert_active`
	w.until("few names are kept", func() bool { return w.stat(active) < 100 })
	w.presents(1, "exact.test", "exact.test")
	if n := w.live(); n > 5*time.Second {
		t.Errorf("live took %v", n)
	}
}

// TestHandshakesEnd: a name that nobody can be asked about is not waited for without end.
func TestHandshakesEnd(t *testing.T) {
	w := newRig(t)
	l := &configv1.Listener{Certificates: []string{"first"}}
	first := issue(t, newKey(t, "P-256"), nil, "first.test")
	w.apply(map[resource.Ref]proto.Message{gatewayRef: w.gateway(l), certificateRef("first"): first})
	w.start()
	w.live()
	w.presents(1, "first.test", "first.test")
	w.down()
	begin := time.Now()
	got, err := w.handshake(1, "made-up.test")
	if took := time.Since(begin); err == nil || took < 10*time.Second || took > 20*time.Second {
		t.Errorf("after %v: the certificate of %q, %v; want an end after 15s", took, got, err)
	}
	w.presents(1, "first.test", "first.test")
}

// capitals is a name with some letters as capitals, another one for each i.
func capitals(name string, i int) string {
	out := []byte(name)
	for at := range out {
		if i>>at&1 == 1 && out[at] >= 'a' && out[at] <= 'z' {
			out[at] -= 'a' - 'A'
		}
	}
	return string(out)
}
