package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/dnstest"
	"github.com/marchproxy/marchproxy/test/harness"
)

// withDNS is a system whose names a DNS server of the test's own resolves.
func withDNS(t *testing.T) (*harness.System, *dnstest.Server) {
	t.Helper()
	dns, err := dnstest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dns.Close() }) // its port is the test's own
	return harness.ForTest(t, []string{"XDS_DNS_SERVERS=" + dns.Addr}, "--no-demo"), dns
}

// twins are two backends on one port: 127.0.0.1 says one, 127.0.0.2 says two.
func twins(t *testing.T) (port int) {
	t.Helper()
	for i, says := range []string{"one", "two"} {
		lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.%d:%d", i+1, port))
		if err != nil {
			t.Fatal(err)
		}
		port = lis.Addr().(*net.TCPAddr).Port
		b := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, says)
		}))
		b.Listener.Close()
		b.Listener = lis
		b.Start()
		t.Cleanup(b.Close)
	}
	return port
}

// putService writes a service, and returns what its answer says of live.
func putService(t *testing.T, s *harness.System, name, query, host string, port, status int) api.Live {
	t.Helper()
	raw, err := json.Marshal(call(t, s, "PUT", s.API+"/v1/services/"+name+"?"+query,
		fmt.Sprintf(`{"spec":{"endpoints":[{"host":%q,"port":%d}]}}`, host, port), status)["live"])
	if err != nil {
		t.Fatal(err)
	}
	var l api.Live
	if err := json.Unmarshal(raw, &l); err != nil {
		t.Fatal(err)
	}
	return l
}

func putRoute(t *testing.T, s *harness.System, host, service string) {
	t.Helper()
	call(t, s, "PUT", s.API+"/v1/routes/"+service+"?wait=live",
		fmt.Sprintf(`{"spec":{"hosts":[%q],"backends":[{"service":%q}]}}`, host, service), 201)
}

func nameStatus(t *testing.T, s *harness.System) api.Status {
	t.Helper()
	_, raw, err := s.Call(t.Context(), "GET", s.API+"/v1/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	var out api.Status
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	return out
}

// knows waits until an xDS server that was started anew serves endpoints of the services: what it makes of names
// that it cannot look up.
func knows(t *testing.T, s *harness.System, services []string) {
	t.Helper()
	eventually(t, func() string {
		_, raw, err := s.Call(t.Context(), "GET", s.XDS+"/v1/resources", nil)
		if err != nil {
			return err.Error()
		}
		for _, x := range services {
			if !strings.Contains(string(raw), fmt.Sprintf(`{"type":"clusterloadassignment","name":%q`, x)) {
				return "xds has no endpoints of " + x
			}
		}
		return ""
	})
	eventually(t, func() string { // and its Envoy has all that it gets
		if st := nameStatus(t, s); st.Proxies != 1 || st.LiveRevision != st.Revision || len(st.Xds) != 1 {
			return fmt.Sprintf("%d Envoys, live %d of %d", st.Proxies, st.LiveRevision, st.Revision)
		}
		return ""
	})
}

// TestNamesOutliveDNS: DNS goes away, and then each part is restarted, and all of them at once: no request to a
// service by name fails. Only while Envoy itself is down is there nobody to take a connection.
func TestNamesOutliveDNS(t *testing.T) {
	s, dns := withDNS(t)
	port := twins(t)
	var hosts, services []string
	for i := range 5 {
		name := fmt.Sprintf("named%d", i)
		hosts, services = append(hosts, name+".example.com"), append(services, name)
		dns.Set(name+".test", dnstest.Answer{Addresses: []string{"127.0.0.1"}})
		putService(t, s, name, "wait=live", name+".test", port, 201)
		putRoute(t, s, name+".example.com", name)
	}
	dns.Away(dnstest.Answer{Silent: true})
	all := []string{"nats", "postgres", "api", "xds", "envoy"}
	groups := [][]string{{"xds"}, {"nats"}, {"postgres"}, {"api"}, {"envoy"}, {"xds", "envoy"}, all}
	for _, parts := range groups {
		t.Run(strings.Join(parts, " "), func(t *testing.T) {
			x := ask(s, hosts)
			x.more(t, 50)
			pids := map[string]int{}
			for _, p := range parts {
				pids[p] = s.Pid(p)
			}
			s.Kill(parts...)
			eventually(t, func() string {
				for p, was := range pids {
					if now := s.Pid(p); now == 0 || now == was {
						return p + " is not started again"
					}
				}
				return ""
			})
			eventually(t, func() string {
				if status, _, err := s.Call(t.Context(), "GET", s.API+"/v1/status", nil); err != nil || status != 200 {
					return "the api does not answer"
				}
				return ""
			})
			knows(t, s, services)
			x.more(t, 200)
			close(x.stop)
			<-x.done
			t.Logf("%d requests, %d failed, %d connections broke", x.asked, len(x.failed), x.refused)
			if len(x.failed) > 0 {
				t.Errorf("%d of %d requests failed: %s", len(x.failed), x.asked, x.failed[0])
			}
			if x.refused > 0 && pids["envoy"] == 0 {
				t.Errorf("%d of %d connections broke", x.refused, x.asked)
			}
		})
	}
	eventually(t, func() string {
		st := nameStatus(t, s)
		if st.UnresolvedNames != 5 || len(st.Names) != 5 || st.Names[0].Problem != "timeout" || st.Names[0].Addresses != 1 {
			return fmt.Sprintf("status says of the names: %+v", st.Names)
		}
		return ""
	})

	// A service that moved, while DNS is away, to a name that nobody knows the address of, is served as it was.
	if l := putService(t, s, "named0", "wait=live&timeout=1s", "moved.test", port,
		202); !strings.Contains(l.Reason, "moved.test") {
		t.Errorf("moved while DNS is away: %+v", l)
	}
	xds, envoy := s.Pid("xds"), s.Pid("envoy")
	s.Kill("xds", "envoy")
	eventually(t, func() string {
		if x, e := s.Pid("xds"), s.Pid("envoy"); x == 0 || x == xds || e == 0 || e == envoy {
			return "xds or envoy is not started again"
		}
		return ""
	})
	knows(t, s, services)
	if status, body := proxied(t, s, "named0.example.com", "/"); status != 200 || body != "one" {
		t.Errorf("after a restart: %d %s", status, body)
	}
	dns.Set("moved.test", dnstest.Answer{Addresses: []string{"127.0.0.2"}})
	dns.Back()
	eventually(t, func() string { return fewer(nameStatus(t, s), 0) })
	eventually(t, func() string {
		if status, body := proxied(t, s, "named0.example.com", "/"); status != 200 || body != "two" {
			return fmt.Sprintf("where it moved: %d %s", status, body)
		}
		return ""
	})
}

func fewer(st api.Status, want int32) string {
	if st.UnresolvedNames != want {
		return fmt.Sprintf("%d names do not resolve: %+v", st.UnresolvedNames, st.Names)
	}
	return ""
}

// TestNamesOutliveTheDisk: xds loses its state while DNS is away. Its Envoy keeps the endpoints that it has, other
// objects are written and live as ever, and what it waits for is said. Then DNS comes back, with another address.
func TestNamesOutliveTheDisk(t *testing.T) {
	s, dns := withDNS(t)
	port := twins(t)
	dns.Set("db.test", dnstest.Answer{Addresses: []string{"127.0.0.1"}})
	putService(t, s, "db", "wait=live", "db.test", port, 201)
	putRoute(t, s, "db.example.com", "db")
	dns.Away(dnstest.Answer{Code: dnsmessage.RCodeServerFailure})
	x := ask(s, []string{"db.example.com"})
	err := s.Down(t.Context(), func() error { return os.RemoveAll(filepath.Join(s.Dir, "xds")) }, "xds")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if status, _, err := s.Call(t.Context(), "GET", s.XDS+"/readyz", nil); err != nil || status != 200 {
			return "xds does not come back"
		}
		return ""
	})
	knows(t, s, []string{"db"})
	eventually(t, func() string {
		if st := nameStatus(t, s); len(st.Names) != 1 || st.Names[0].Problem != "failed" || st.Names[0].Addresses != 0 ||
			!strings.Contains(st.Names[0].Reason, "SERVFAIL") {
			return fmt.Sprintf("status says of the names: %+v", st.Names)
		}
		return ""
	})
	if l := putOther(t, s, 1); l.State != "live" {
		t.Errorf("another object: %+v", l)
	}
	x.more(t, 200)
	if o := call(t, s, "GET", s.API+"/v1/services/db", nil, 200)["status"].(map[string]any); o["state"] != "pending" ||
		!strings.Contains(fmt.Sprint(o["reason"]), "db.test cannot be looked up") {
		t.Errorf("the service says of itself: %v", o)
	}
	dns.Set("db.test", dnstest.Answer{Addresses: []string{"127.0.0.2"}})
	dns.Back()
	eventually(t, func() string {
		if status, body := proxied(t, s, "db.example.com", "/"); status != 200 || body != "two" {
			return fmt.Sprintf("the new address is not served: %d %s", status, body)
		}
		return ""
	})
	close(x.stop)
	<-x.done
	t.Logf("%d requests, %d failed, %d connections broke", x.asked, len(x.failed), x.refused)
	if len(x.failed)+x.refused > 0 {
		t.Errorf("of %d requests %d failed: %v, and %d connections broke", x.asked, len(x.failed),
			x.failed[:min(len(x.failed), 3)], x.refused)
	}
}

// putOther writes a route that has nothing to do with names.
func putOther(t *testing.T, s *harness.System, k int) api.Live {
	t.Helper()
	raw, err := json.Marshal(call(t, s, "PUT", fmt.Sprintf("%s/v1/routes/other%d?wait=live&timeout=5s", s.API, k),
		fmt.Sprintf(`{"spec":{"hosts":["other%d.example.com"],"direct_response":{"status":200}}}`, k), 201)["live"])
	if err != nil {
		t.Fatal(err)
	}
	var l api.Live
	if err := json.Unmarshal(raw, &l); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestLiveWaitsForNames: a service that moves to a name is live when the name has an address, not before, and serves
// from where it was until then. A name that does not exist is said on the object, in status and in the answer, and
// holds nobody else up; when it resolves, nothing is said any more.
func TestLiveWaitsForNames(t *testing.T) {
	s, dns := withDNS(t)
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	port := twins(t)
	serves := func(want string) {
		t.Helper()
		if status, body := proxied(t, s, "moves.example.com", "/"); status != 200 || body != want {
			t.Errorf("%d %s, want %s", status, body, want)
		}
	}
	putService(t, s, "moves", "wait=live", "127.0.0.1", port, 201)
	putRoute(t, s, "moves.example.com", "moves")
	x := ask(s, []string{"moves.example.com"})

	// A name that takes a second.
	dns.Set("slow.test", dnstest.Answer{Addresses: []string{"127.0.0.2"}, Delay: time.Second})
	if l := putService(t, s, "moves", "wait=live", "slow.test", port, 200); l.State != "live" || l.WaitedMS < 900 {
		t.Errorf("a name that takes a second: %+v", l)
	}
	serves("two")

	// Back to an address: at once.
	if l := putService(t, s, "moves", "wait=live", "127.0.0.1", port, 200); l.State != "live" || l.Reason != "" {
		t.Errorf("back to an address: %+v", l)
	}
	serves("one")

	// A name that does not exist.
	l := putService(t, s, "moves", "wait=live&timeout=1s", "nobody.test", port, 202)
	if l.State != "timeout" || !strings.Contains(l.Reason, "service moves waits for a name") ||
		!strings.Contains(l.Reason, "nobody.test does not exist (NXDOMAIN)") {
		t.Errorf("a name that does not exist: %+v", l)
	}
	serves("one")
	if l := putOther(t, s, 1); l.State != "live" {
		t.Errorf("another object meanwhile: %+v", l)
	}
	if o := call(t, s, "GET", s.API+"/v1/services/moves", nil, 200)["status"].(map[string]any); o["state"] != "pending" ||
		!strings.Contains(fmt.Sprint(o["reason"]), "nobody.test does not exist (NXDOMAIN)") {
		t.Errorf("the service says of itself: %v", o)
	}
	st := nameStatus(t, s)
	if len(st.Names) != 1 || st.Names[0].Host != "nobody.test" || st.Names[0].Problem != "not_found" ||
		strings.Join(st.Names[0].Services, ",") != "moves" {
		t.Errorf("status: %+v", st.Names)
	}
	out, errs := c.run(3, "status")
	c.says(out, "name: nobody.test does not exist (NXDOMAIN)", "Service/moves")
	c.says(errs, "1 name without an address")
	c.says(c.text("get", "service", "moves"), "Service/moves is pending: service moves waits for a name", "nobody.test")

	// It comes to exist while somebody waits.
	asked := dns.Asked("nobody.test")
	go func() {
		for dns.Asked("nobody.test") == asked { // by xds, while the request below waits
			select {
			case <-time.After(time.Millisecond):
			case <-t.Context().Done():
				return
			}
		}
		dns.Set("nobody.test", dnstest.Answer{Addresses: []string{"127.0.0.2"}})
	}()
	if l := putService(t, s, "moves", "wait=live&timeout=30s", "nobody.test", port, 200); l.State != "live" ||
		l.Reason != "" {
		t.Errorf("it exists now: %+v", l)
	}
	serves("two")
	eventually(t, func() string { return fewer(nameStatus(t, s), 0) })
	if out := c.text("status"); strings.Contains(out, "name:") {
		t.Errorf("status still speaks of names:\n%s", out)
	}

	// It loses its addresses, is taken away: it is served with the last ones, which is said.
	for _, is := range []struct {
		problem string
		answer  dnstest.Answer
	}{{"no_addresses", dnstest.Answer{}}, {"not_found", dnstest.Answer{Code: dnsmessage.RCodeNameError}}} {
		problem := is.problem
		dns.Set("nobody.test", is.answer)
		eventually(t, func() string {
			if st := nameStatus(t, s); len(st.Names) != 1 || st.Names[0].Problem != problem || st.Names[0].Addresses != 1 {
				return fmt.Sprintf("status: %+v, want %s", st.Names, problem)
			}
			return ""
		})
		serves("two")
	}
	c.says(c.text("status"), "its last address is served")
	if l := putService(t, s, "moves", "wait=live", "nobody.test", port, 200); l.State != "live" ||
		!strings.Contains(l.Reason, "nobody.test does not exist (NXDOMAIN)") {
		t.Errorf("served with its last addresses: %+v", l)
	}
	close(x.stop)
	<-x.done
	t.Logf("%d requests, %d failed, %d connections broke", x.asked, len(x.failed), x.refused)
	if len(x.failed)+x.refused > 0 {
		t.Errorf("of %d requests %d failed: %v, and %d connections broke", x.asked, len(x.failed),
			x.failed[:min(len(x.failed), 3)], x.refused)
	}
}

// TestNamedLikeAPart: a service may be called what the parts and their clusters are called.
func TestNamedLikeAPart(t *testing.T) {
	s := start(t, "--no-demo")
	served := backends(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "here") })
	for _, name := range []string{"xds", "marchproxy", "default", "admin"} {
		call(t, s, "PUT", s.API+"/v1/services/"+name, map[string]any{"spec": map[string]any{"endpoints": served}}, 201)
		spec := map[string]any{"hosts": []string{name + ".test"}, "backends": []any{map[string]any{"service": name}}}
		answer := call(t, s, "PUT", s.API+"/v1/routes/"+name+"?wait=live&timeout=20s", map[string]any{"spec": spec}, 201)
		if l := answer["live"].(map[string]any); l["state"] != "live" {
			t.Errorf("%s: %v", name, l)
		}
	}
}
