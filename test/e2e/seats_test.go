package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
)

// secondEnvoy runs an Envoy of the gateway default beside that of dev, on the same ports: the kernel distributes
// new connections over both. It returns its admin interface.
func secondEnvoy(t *testing.T, s *harness.System, grpc string) string {
	t.Helper()
	e, err := s.StartEnvoy(t.Context(), "second", grpc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e.Admin
}

// secondXDS runs an xDS server beside that of dev, and returns its doors.
func secondXDS(t *testing.T, s *harness.System, cache string) (grpc, http string) {
	t.Helper()
	ports, err := porttest.Take(2)
	if err != nil {
		t.Fatal(err)
	}
	local := func(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i])) }
	grpc, http = local(0), "http://"+local(1)
	var secrets [3]string
	for i, f := range []func() (string, error){s.NATS, s.SecretKey, s.ClusterKey} {
		if secrets[i], err = f(); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), harness.ProgramForTest(t, "marchproxy-xds"))
	cmd.Env = append(os.Environ(), "NATS_URL="+secrets[0], "SECRET_KEY="+secrets[1], "CLUSTER_API_KEY="+secrets[2],
		"XDS_ID=second", "ALLOW_ENDPOINTS=loopback",
		"XDS_GRPC_ADDR="+local(0), "XDS_HTTP_ADDR="+local(1), "MARCHPROXY_STATE_DIR="+t.TempDir(), "MARCHPROXY_WASM_DIR="+
			filepath.Join(cache, "wasm"))
	run(t, cmd)
	eventually(t, func() string {
		if status, body, err := s.Call(t.Context(), "GET", http+"/readyz", nil); err != nil || status != 200 {
			return fmt.Sprintf("the second xDS server is not ready: %s %v", body, err)
		}
		return ""
	})
	return grpc, http
}

// fleet are two Envoys of one gateway.
type fleet struct {
	t *testing.T
	s *harness.System
	// admin interfaces, the first one's first.
	admin [2]string
}

// served reads how many answers an Envoy has given, of those that are good and of those that are not.
func (f fleet) served(i int) (good, refused int) {
	f.t.Helper()
	_, raw, err := f.s.Call(f.t.Context(), "GET", f.admin[i]+`/stats?filter=^http\.http\.downstream_rq_[24]xx$`, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.Atoi(value)
		if err != nil {
			f.t.Fatalf("%q", line)
		}
		if strings.HasSuffix(name, "2xx") {
			good = n
		} else {
			refused = n
		}
	}
	return good, refused
}

// ask sends requests, each on a connection of its own, and counts the answers by status, 0 for none.
func (f fleet) ask() map[int]int {
	f.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	out := map[int]int{}
	for range 40 {
		req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, "http://"+f.s.Proxy, nil)
		if err != nil {
			f.t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			out[0]++
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body) // only the status counts
		_ = resp.Body.Close()
		out[resp.StatusCode]++
	}
	return out
}

// want says which of the two serve; the other one answers 429.
func (f fleet) want(when string, first, second bool) {
	f.t.Helper()
	var before, after [2][2]int
	for i := range f.admin {
		before[i][0], before[i][1] = f.served(i)
	}
	answers := f.ask()
	for i := range f.admin {
		after[i][0], after[i][1] = f.served(i)
	}
	if answers[200]+answers[429] != 40 {
		f.t.Fatalf("%s: answers %v", when, answers)
	}
	for i, serves := range []bool{first, second} {
		good, refused := after[i][0]-before[i][0], after[i][1]-before[i][1]
		if good+refused == 0 || (good > 0) != serves || (refused > 0) == serves {
			f.t.Errorf("%s: Envoy %d of 2 served %d requests and refused %d", when, i+1, good, refused)
		}
	}
}

// joined waits for the second Envoy's first answers: not one of them is good.
func (f fleet) joined() {
	f.t.Helper()
	eventually(f.t, func() string {
		if f.ask()[429] == 0 {
			return "the second Envoy does not serve yet"
		}
		return ""
	})
	if good, _ := f.served(1); good > 0 {
		f.t.Errorf("the Envoy more than licensed has served %d requests", good)
	}
}

func (f fleet) license() map[string]any {
	f.t.Helper()
	return call(f.t, f.s, "GET", f.s.API+"/v1/status", nil, 200)["licenses"].([]any)[0].(map[string]any)
}

// told waits until the status says how many Envoys there are and how many have no seat.
func (f fleet) told(proxies, overLimit int) {
	f.t.Helper()
	eventually(f.t, func() string {
		l := f.license()
		if n, _ := l["surplus"].(float64); l["proxies"] != float64(proxies) || int(n) != overLimit {
			return fmt.Sprintf("status says %v", l)
		}
		return ""
	})
}

func licensed(t *testing.T, s *harness.System) {
	t.Helper()
	call(t, s, "PUT", s.API+"/v1/licenses/main", `{"spec":{"key":"`+licenseKey()+`","max_proxies":1}}`, 201)
	call(t, s, "PATCH", s.API+"/v1/gateways/default?wait=live", `{"spec":{"license":"main"}}`, 200)
	call(t, s, "PUT", s.API+"/v1/routes/r?wait=live", `{"spec":{"direct_response":{"status":200,"body":"ok"}}}`, 201)
}

// restartXDS ends dev's xDS server and waits until its Envoys are back.
func restartXDS(t *testing.T, s *harness.System, sig syscall.Signal, proxies int) {
	t.Helper()
	old := s.Pid("xds")
	if err := syscall.Kill(old, sig); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		_, raw, err := s.Call(t.Context(), "GET", s.XDS+"/metrics", nil)
		if err != nil || s.Pid("xds") == old ||
			!strings.Contains(string(raw), fmt.Sprintf("marchproxy_xds_proxies %d\n", proxies)) {
			return "the Envoys are not back"
		}
		return ""
	})
}

// TestProxyLimit: of two Envoys of one gateway the one more than licensed answers 429, and the one that was
// there first keeps its seat, also over a restart of the xDS server; a higher limit gives the other one a
// seat.
func TestProxyLimit(t *testing.T) {
	s := start(t, "--no-demo")
	licensed(t, s)
	f := fleet{t, s, [2]string{s.Admin, secondEnvoy(t, s, s.GRPC)}}
	f.joined()
	f.want("with one seat", true, false)
	f.told(2, 1)
	limit := func(n int) {
		t.Helper()
		call(t, s, "PATCH", s.API+"/v1/licenses/main?wait=live", `{"spec":{"max_proxies":`+strconv.Itoa(n)+`}}`, 200)
	}
	limit(2)
	f.want("with two seats", true, true)
	limit(1)
	f.want("with one seat again", true, false)
	restartXDS(t, s, syscall.SIGKILL, 2)
	call(t, s, "PATCH", s.API+"/v1/licenses/main?wait=live", `{"labels":{"after":"restart"}}`, 200)
	f.want("after a restart of the xDS server", true, false)
}

// TestProxyLimitOfTwoServers: two xDS servers assign the same seats, while one of them is restarted, while
// NATS is away, and after both.
func TestProxyLimitOfTwoServers(t *testing.T) {
	cache := cacheWithoutFilters(t)
	s := start(t, "--no-demo", "--cache-dir", cache)
	licensed(t, s)
	grpc, _ := secondXDS(t, s, cache)
	f := fleet{t, s, [2]string{door(t, s), secondEnvoy(t, s, grpc)}}
	f.joined()
	f.want("with one seat", true, false)
	f.told(2, 1)

	// The second Envoy's connection is the older one then.
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		restartXDS(t, s, sig, 1)
		call(t, s, "PATCH", s.API+"/v1/licenses/main?wait=live", `{"labels":{"after":"`+sig.String()+`"}}`, 200)
		f.want("after a restart of the first server: "+sig.String(), true, false)
		f.told(2, 1)
	}

	err := s.Down(t.Context(), func() error {
		f.want("without NATS", true, false)
		return nil
	}, "nats")
	if err != nil {
		t.Fatal(err)
	}
	call(t, s, "PATCH", s.API+"/v1/licenses/main?wait=live&timeout=30s", `{"labels":{"after":"nats"}}`, 200)
	f.told(2, 1)
	f.want("with NATS back", true, false)

	call(t, s, "PATCH", s.API+"/v1/licenses/main?wait=live", `{"spec":{"max_proxies":2}}`, 200)
	f.want("with two seats", true, true)
	f.told(2, 0)

	// Whose Envoy goes for good gives its seat to the other server's.
	call(t, s, "PATCH", s.API+"/v1/licenses/main?wait=live", `{"spec":{"max_proxies":1}}`, 200)
	f.want("with one seat again", true, false)
	err = s.Down(t.Context(), func() error {
		eventually(t, func() string {
			if answers := f.ask(); answers[200] != 40 {
				return fmt.Sprintf("the seat is not given to the other server's Envoy: %v", answers)
			}
			return ""
		})
		return nil
	}, "envoy")
	if err != nil {
		t.Fatal(err)
	}
}
