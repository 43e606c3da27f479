package security

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/marchproxy/marchproxy/test/harness"
)

// TestWrongTokens: at 8000 and 19000 wrong tokens are answered before the body is read, counted, slowed down by
// address,
// and logged without the token; who has a right one goes on from the same address.
func TestWrongTokens(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	var made struct{ Token string }
	if err := json.Unmarshal(ok(t, s, "POST", s.API+"/v1/tokens", `{"name":"editor","role":"editor"}`),
		&made); err != nil {
		t.Fatal(err)
	}
	for _, door := range []struct{ url, log, metric string }{
		{s.API + "/v1/apply", "api", "marchproxy_api_"},
		{s.XDS + "/v1/config", "xds", "marchproxy_xds_"},
	} {
		if got := post(t, door.url, made.Token, strings.NewReader("{}")); got == 401 || got == 429 {
			t.Fatalf("%s: the right token is answered %d", door.url, got)
		}
		const guess = "mp_a-guess-that-nobody-should-find-in-a-log"
		// 60 MB are announced, and the server answers without them.
		if got := unsent(t, door.url, guess); got != 401 && got != 429 { // the api has seen this address at the first door
			t.Errorf("%s: a wrong token before its body: %d", door.url, got)
		}
		seen := map[int]int{}
		for i := range 60 {
			seen[post(t, door.url, fmt.Sprint(guess, i), strings.NewReader("{}"))]++
		}
		if seen[401] > 40 || seen[429] < 20 || seen[401]+seen[429] != 60 {
			t.Errorf("%s: 60 guesses are answered %v", door.url, seen)
		}
		if got := post(t, door.url, made.Token, strings.NewReader("{}")); got == 401 || got == 429 {
			t.Errorf("%s: after that the right token is answered %d", door.url, got)
		}
		base := door.url[:strings.Index(door.url, "/v1/")]
		metrics := string(ok(t, s, "GET", base+"/metrics", nil))
		for _, name := range []string{"refused_credentials_total", "slowed_credentials_total"} {
			if !strings.Contains(metrics, "\n"+door.metric+name+" ") || strings.Contains(metrics, "\n"+door.metric+name+" 0\n") {
				t.Errorf("%s%s does not count", door.metric, name)
			}
		}
		raw, err := os.ReadFile(filepath.Join(s.Dir, "log", door.log+".log"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(raw, []byte("a wrong or missing credential was refused")) || bytes.Contains(raw,
			[]byte("a-guess")) {
			t.Errorf("the log of %s: %s", door.log, raw)
		}
	}
}

// TestViolations: a document with 10,000 mistakes is answered with the first hundred, at both doors.
func TestViolations(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	many := func(one string) string { return strings.TrimSuffix(strings.Repeat(one+",", 10_000), ",") }
	for url, body := range map[string]string{
		s.XDS + "/v1/config": `{"services":[` + many(`{"name":"A `+
			`B","port":0}`) + `],"routes":[` + many(`{"name":"-","cluster_name":"x"}`) + `]}`,
		s.API + "/v1/apply": `{"resources":[` + many(`{"kind":"Service","name":"a `+
			`b","spec":{"endpoints":[{"host":"$","port":0}]}}`) + `]}`,
	} {
		code, raw, err := s.Call(t.Context(), "POST", url, body)
		var p struct{ Errors []any }
		if err != nil || code < 400 || json.Unmarshal(raw, &p) != nil || len(p.Errors) == 0 || len(p.Errors) > 100 {
			t.Errorf("%s: %d, %d violations, %v", url, code, len(p.Errors), err)
		}
	}
}

// TestStreamOfEvents: it ends when its token is deleted, and a token has so many at most.
func TestStreamOfEvents(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	token := func(name string) string {
		var made struct{ Token string }
		if err := json.Unmarshal(ok(t, s, "POST", s.API+"/v1/tokens", fmt.Sprintf(`{"name":%q,"role":"viewer"}`, name)),
			&made); err != nil {
			t.Fatal(err)
		}
		return made.Token
	}
	open := func(token string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.API+"/v1/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() }) // it may have ended
		return resp
	}
	mine, other := token("mine"), token("other")
	first, stays := open(mine), open(other)
	for range 99 {
		open(mine)
	}
	if r := open(mine); r.StatusCode != http.StatusTooManyRequests {
		t.Errorf("the 101st stream is answered %d", r.StatusCode)
	}
	if r := open(other); r.StatusCode != http.StatusOK {
		t.Errorf("another token's stream is answered %d", r.StatusCode)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, first.Body)
		ended <- err
	}()
	t0 := time.Now()
	ok(t, s, "DELETE", s.API+"/v1/tokens/mine", nil)
	select {
	case err := <-ended:
		t.Logf("it ended %v after the deletion: %v", time.Since(t0), err)
	case <-time.After(time.Second):
		t.Error("the stream goes on without its token")
	}
	ok(t, s, "PUT", s.API+"/v1/services/x", `{"spec":{"endpoints":[{"host":"192.0.2.1","port":80}]}}`)
	for lines := bufio.NewScanner(stays.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "event: revision") {
			return
		}
	}
	t.Error("the other token's stream has ended")
}

// TestKeyBeforeMessage: at 18000 a stream without a right key is refused before a message is read, wrong keys are
// slowed down and the right one is not; a connection on which nothing is said is closed.
func TestKeyBeforeMessage(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	key, err := s.ClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test is over
	// refusal opens a stream and says nothing on it.
	refusal := func(key string) error {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-api-key", key), 2*time.Second)
		defer cancel()
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		if err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	}
	if err := refusal(key); status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("the right key, without a word: %v", err)
	}
	slowed := 0
	for i := range 60 {
		err := refusal(fmt.Sprint("a-wrong-key-", i))
		if status.Code(err) != codes.PermissionDenied {
			t.Fatalf("a wrong key, without a word: %v", err)
		}
		if strings.Contains(err.Error(), "too many wrong keys") {
			slowed++
		}
	}
	if slowed < 20 {
		t.Errorf("of 60 wrong keys %d were not looked at", slowed)
	}
	if err := refusal(key); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("after that the right key is answered %v", err)
	}
	silent, err := net.Dial("tcp", s.GRPC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }() // it should be
	if err := silent.SetReadDeadline(time.Now().Add(25 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, silent)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("a connection on which nothing is said is kept")
	}
}

// post sends a document with a token, if there is one.
func post(t *testing.T, url, token string, body io.Reader) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // the status is what counts
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// unsent announces a large body, sends none of it, and returns the answer's status; 0 where none comes.
func unsent(t *testing.T, url, token string) int {
	t.Helper()
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	c, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // the answer is what counts
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "POST /%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: "+
		"application/json\r\nContent-Length: 60000000\r\n\r\n", path, host, token)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }() // the status is what counts
	return resp.StatusCode
}
