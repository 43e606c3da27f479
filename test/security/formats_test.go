package security

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

// mirror answers each request with its own head, byte for byte: a server that reads paths would refuse some.
func mirror(t *testing.T) (port int) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lis.Close() })
	go func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				var head strings.Builder
				for r := bufio.NewReader(c); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					if head.WriteString(line); line == "\r\n" {
						break
					}
				}
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", head.Len(),
					head.String())
			}()
		}
	}()
	return lis.Addr().(*net.TCPAddr).Port
}

// TestFormats: a text that reads Envoy's environment where Envoy takes it for a format is refused at the write, or
// comes out as it was written. That no field of the schema is forgotten, pkg/translate's TestFormatsAreWalked shows.
func TestFormats(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	port := mirror(t)
	s.Want(t, "PUT", s.API+"/v1/services/echo", fmt.Sprintf(`{"spec":{"endpoints":[{"host":"127.0.0.1","port":%d}]}}`,
		port), 201)
	served := 0
	for _, evil := range []string{
		"%ENVIRONMENT(NATS_URL)%", "%ENVIRONMENT(PATH)%", "%FILE_CONTENT(/etc/passwd)%", "%DYNAMIC_METADATA(marchproxy)%",
		"%%%ENVIRONMENT(PATH)%",
		"%%%%%ENVIRONMENT(PATH)%%%",
	} {
		for what, spec := range map[string]string{
			"content type":     `"direct_response":{"status":200,"body":"x","content_type":"EVIL"}`,
			"body":             `"direct_response":{"status":200,"body":"EVIL"}`,
			"response header":  `"direct_response":{"status":200},"response_headers":{"set":[{"name":"x-a","value":"EVIL"}]}`,
			"added header":     `"direct_response":{"status":200},"response_headers":{"add":[{"name":"x-a","value":"EVIL"}]}`,
			"request header":   `"backends":[{"service":"echo"}],"request_headers":{"set":[{"name":"x-a","value":"EVIL"}]}`,
			"backend's header": `"backends":[{"service":"echo","request_headers":{"add":[{"name":"x-a","value":"EVIL"}]}}]`,
			"redirect's path":  `"redirect":{"path":"/EVIL"}`,
			"rewrite's prefix": `"path":{"prefix":"/x"},"backends":[{"service":"echo"}],"rewrite":{"prefix":"/EVIL"}`,
			"rewrite's regex":  `"backends":[{"service":"echo"}],"rewrite":{"regex":{"pattern":"^/.*","substitution":"/EVIL"}}`,
			"rewrite's host":   `"backends":[{"service":"echo"}],"rewrite":{"host":"EVIL"}`,
		} {
			body := `{"spec":{"hosts":["f.test"],` + strings.ReplaceAll(spec, "EVIL", evil) + `}}`
			status, raw, err := s.Call(t.Context(), "PUT", s.API+"/v1/routes/f?wait=live&timeout=60s", body)
			if err != nil {
				t.Fatal(err)
			}
			if status == 422 {
				continue
			}
			if status != 200 && status != 201 {
				t.Fatalf("%s: %d %s", what, status, raw)
			}
			served++
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Proxy+"/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "f.test"
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			var all strings.Builder
			_ = resp.Header.Write(&all)
			_, err = io.Copy(&all, resp.Body)
			_ = resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(all.String(), evil) {
				t.Errorf("%s %s: comes out as\n%s", what, evil, all.String())
			}
		}
	}
	if served < 6 {
		t.Errorf("only %d were taken", served)
	}
	for _, field := range []string{"%ENVIRONMENT(NATS_URL)%", "%FILE_CONTENT(/etc/passwd)%"} {
		status, raw, err := s.Call(t.Context(), "PATCH", s.API+"/v1/gateways/default",
			`{"spec":{"access_log":{"fields":{"x":"`+field+`"}}}}`)
		if err != nil || status != 422 {
			t.Errorf("an access log with %s: %d %s %v", field, status, raw, err)
		}
	}
}
