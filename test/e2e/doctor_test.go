package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
)

// sees fails unless the doctor differs, in these words, within a while.
func sees(t *testing.T, s *harness.System, words string, args ...string) {
	t.Helper()
	eventually(t, func() string {
		if says, differs := doctor(t, s, args...); !differs || !strings.Contains(says, words) {
			return fmt.Sprintf("the doctor does not say %q, but:\n%s", words, says)
		}
		return ""
	})
}

// TestDoctorSees: each difference is found while there is one, and is said in words that tell the part.
func TestDoctorSees(t *testing.T) {
	s := start(t, "--no-demo")
	put(t, s, "r", "one")
	agree(t, s)

	t.Run("a forged message in the stream", func(t *testing.T) {
		js := s.JetStream(t)
		eventually(t, func() string { // the api repairs it within a second: the doctor may come too late
			if _, err := js.Publish(t.Context(), "marchproxy.config.v1.resource.route.r",
				[]byte(`{"kind":"Route","name":"r","revision":9,"spec":{}}`)); err != nil {
				t.Fatal(err)
			}
			says, differs := doctor(t, s)
			if !differs || !strings.Contains(says, "the stream has 1 objects of kind Route") {
				return says
			}
			return ""
		})
		agree(t, s)
	})

	t.Run("Envoy's dump", func(t *testing.T) {
		for words, alter := range map[string]func(string) string{
			"Envoy lacks scopedrouteconfiguration http/r.example.com": func(dump string) string {
				return strings.Replace(dump, `"scoped_route_configs"`, `"scoped_route_configs_that_are_not_there"`, 1)
			},
			"Envoy has another version of scopedrouteconfiguration http/r.example.com": func(dump string) string {
				return strings.Replace(dump, `"inline_string": "one"`, `"inline_string": "altered"`, 1)
			},
			"Envoy has scopedrouteconfiguration http/stranger.example.com, which is not served": func(dump string) string {
				return strings.Replace(dump, `"name": "http/r.example.com"`, `"name": "http/stranger.example.com"`, 1)
			},
		} {
			admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, raw, err := s.Call(r.Context(), "GET", s.Admin+r.URL.String(), nil)
				if err != nil {
					t.Error(err)
				}
				altered := alter(string(raw))
				if altered == string(raw) {
					t.Error("the dump has not what is to be altered")
				}
				_, _ = io.WriteString(w, altered)
			}))
			sees(t, s, words, "--admin", admin.URL)
			admin.Close()
		}
		agree(t, s)
	})

	t.Run("an xDS server that is behind", func(t *testing.T) {
		url, stop := secondServer(t, s)
		eventually(t, func() string {
			if says, differs := doctor(t, s, "--xds", url); differs {
				return says
			}
			return ""
		})
		stop()
		// Not waiting until it is live: by the api's word it is not, while a server is behind.
		call(t, s, "PUT", s.API+"/v1/routes/r", direct("r", "two", nil), 200)
		sees(t, s, "DIFFERS  xds serves revision", "--xds", url)
		sees(t, s, "DIFFERS  xds has 1 objects of kind Route", "--xds", url)
		agree(t, s) // the one that serves is not behind
	})

	t.Run("parts that do not answer", func(t *testing.T) {
		sees(t, s, "the xDS server cannot be looked at", "--xds", "http://127.0.0.1:1")
		sees(t, s, "Envoy cannot be looked at", "--admin", "http://127.0.0.1:1")
		admin := door(t, s)
		down(t, s, func() error {
			says, differs := doctor(t, s, "--admin", admin)
			if !differs || !strings.Contains(says, "the stream cannot be looked at") ||
				!strings.Contains(says, "clusters, listeners and scopes") {
				return fmt.Errorf("with NATS down the doctor says:\n%s", says)
			}
			return nil
		}, "nats")
		agree(t, s)
	})
}

// secondServer runs another xDS server on the system's stream; stop cuts it off from NATS.
func secondServer(t *testing.T, s *harness.System) (url string, stop func()) {
	t.Helper()
	natsURL, err := s.NATS()
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.SecretKey()
	if err != nil {
		t.Fatal(err)
	}
	addr := natsURL[strings.LastIndexByte(natsURL, '@')+1:]
	wire, stop := harness.Cable(t, addr)
	p, err := porttest.Take(2)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), harness.ProgramForTest(t, "marchproxy-xds"))
	cmd.Env = append(os.Environ(), "NATS_URL="+strings.Replace(natsURL, addr, wire, 1), "SECRET_KEY="+key,
		"MARCHPROXY_STATE_DIR="+t.TempDir(), "XDS_ID=second", "ALLOW_ENDPOINTS=loopback",
		fmt.Sprintf("XDS_GRPC_ADDR=127.0.0.1:%d", p[0]), fmt.Sprintf("XDS_HTTP_ADDR=127.0.0.1:%d", p[1]))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // it need not be tidy
	url = fmt.Sprintf("http://127.0.0.1:%d", p[1])
	eventually(t, func() string {
		if status, raw, err := s.Call(t.Context(), "GET", url+"/readyz", nil); err != nil || status != 200 {
			return fmt.Sprintf("%d %s %v", status, raw, err)
		}
		return ""
	})
	return url, stop
}
