package security

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/marchproxy/marchproxy/pkg/clusterkey"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/test/authority"
)

type jsonObject = map[string]any

// TestIdentity: what pki issues is all that the parts need to serve over TLS with certificates on both sides, and each
// of them is let do what it is for and nothing else. What is taken back ends at once; an authority is replaced under
// load.
func TestIdentity(t *testing.T) {
	a := startApart(t)
	a.until("the agent's Envoy is ready", func() bool {
		status, err := a.agent.Get(t.Context(), "/readyz", nil)
		return err == nil && status == http.StatusOK
	})
	a.put("/v1/routes/hello", jsonObject{"spec": jsonObject{
		"hosts":           []string{"*"},
		"direct_response": jsonObject{"status": 200, "body": "one"},
	}})
	a.serves("one")
	t.Run("NATS", a.refusesAtNATS)
	t.Run("ports", a.refusesAtPorts)
	t.Run("token", a.hidesTheToken)
	t.Run("key", a.endsAKeysStream)
	t.Run("certificate", a.endsACertificatesStream)
	t.Run("end of a certificate", a.endsWithTheCertificate)
	t.Run("rotation", a.rotates)
	for part, log := range map[string]string{
		"api": a.logs["api"].String(), "xds": a.logs["xds"].String(),
		"agent": a.agent.Log(),
	} {
		if strings.Contains(log, "ermissions Violation") {
			t.Errorf("%s lacks a permission that it needs:\n%s", part, log)
		}
	}
}

func (a *apart) put(path string, body any) {
	a.t.Helper()
	var answer struct {
		Live struct{ State, Reason string }
	}
	code, text := a.call(http.MethodPut, path+"?wait=live&timeout=30s", body, &answer)
	if code >= 300 || answer.Live.State != "live" {
		a.t.Fatalf("PUT %s: %d %s", path, code, text)
	}
}

func (a *apart) serves(want string) {
	a.t.Helper()
	code, text := a.callWith(nil, http.MethodGet, "http://"+a.proxy+"/", nil, nil)
	if code != http.StatusOK || text != want {
		a.t.Errorf("the proxy answers %d %q", code, text)
	}
}

// refusesAtNATS: nobody publishes what is another's, reads what is another's, or is there without key and certificate.
func (a *apart) refusesAtNATS(t *testing.T) {
	const config, jsAPI = "marchproxy.config.v1.", "$JS.API."
	create := jsAPI + "CONSUMER.CREATE." + stream.Name + ".mine"
	for part, forbidden := range map[string][]string{
		"reader-audit": {
			"pub " + config + "revision", "pub " + config + "resource.route.hello", "pub marchproxy.status.v1.xds.xds-1",
			"pub marchproxy.rpc.v1.apply", "pub marchproxy.access_log.v1.watch", "sub marchproxy.access_log.v1.entries.*",
			"pub " + jsAPI + "STREAM.PURGE." + stream.Name, "pub " + jsAPI + "STREAM.DELETE." + stream.Name, "pub " + jsAPI +
				"STREAM.UPDATE." + stream.Name,
			"pub " + jsAPI + "STREAM.MSG.DELETE." + stream.Name, "pub " + jsAPI + "INFO", "pub $JS.ACK." + stream.Name +
				".another.1.1.1.1.1", "sub _INBOX.>", "sub >",
			"sub marchproxy.rpc.v1.apply", "sub $JS.>",
			"pub " + create, "pub " + jsAPI + "CONSUMER.MSG.NEXT." + stream.Name + ".mine", "pub " + jsAPI + "CONSUMER.DELETE." +
				stream.Name + ".mine",
		},
		"agent-edge-1": {
			// Another's consumer would deliver what that may read.
			"pub " + jsAPI + "CONSUMER.MSG.NEXT." + stream.Name + ".audit", "pub " + jsAPI + "CONSUMER.DELETE." +
				stream.Name + ".audit",
			"pub " + create + "." + config + "revision", "pub " + jsAPI + "CONSUMER.CREATE." + stream.Name +
				".edge-1-revision." + config + "resource.gateway.*",
			"pub " + config + "revision", "pub marchproxy.status.v1.agent.edge-2", "pub marchproxy.status.v1.xds.xds-1",
			"pub marchproxy.rpc.v1.apply",
			"pub " + create, "pub " + create + "." + config + ">", "pub " + create + "." + config + "resource.gateway.*",
			"pub " + jsAPI + "DIRECT.GET." + stream.Name + "." + config + "resource.gateway.default", "pub " + jsAPI +
				"STREAM.MSG.GET." + stream.Name,
			"pub " + jsAPI + "STREAM.DELETE." + stream.Name, "pub " + jsAPI + "CONSUMER.LIST." + stream.Name, "pub " + jsAPI +
				"CONSUMER.NAMES." + stream.Name,
			"sub " + config + ">", "sub marchproxy.status.v1.>", "sub _INBOX.>", "sub marchproxy.rpc.v1.apply", "sub _R_.>",
			// What others' clients ask for, and having Envoys tell of it.
			"pub marchproxy.access_log.v1.entries.edge-2", "pub marchproxy.access_log.v1.watch",
			"sub marchproxy.access_log.v1.>", "sub marchproxy.access_log.v1.entries.edge-2",
		},
		"xds-xds-1": {
			"pub " + config + "revision", "pub " + config + "resource.route.hello", "pub " + jsAPI + "STREAM.DELETE." +
				stream.Name,
			"pub " + jsAPI + "STREAM.UPDATE." + stream.Name, "pub marchproxy.status.v1.agent.edge-1",
			"pub marchproxy.status.v1.xds.another", "sub marchproxy.status.v1.>",
			"sub marchproxy.rpc.v1.apply", "sub _INBOX.>", "pub marchproxy.access_log.v1.watch",
			"sub marchproxy.access_log.v1.entries.*",
		},
		"api-api-1": {
			"pub " + jsAPI + "STREAM.DELETE.ANOTHER", "pub " + jsAPI + "STREAM.CREATE.ANOTHER",
			"pub marchproxy.status.v1.xds.xds-1", "sub _INBOX.>", "sub >", "pub marchproxy.access_log.v1.entries.edge-1",
		},
	} {
		nc, refusals := a.atNATS(part)
		for _, what := range forbidden {
			verb, subject, _ := strings.Cut(what, " ")
			var err error
			if verb == "sub" {
				_, err = nc.SubscribeSync(subject)
			} else {
				err = nc.Publish(subject, []byte(`{}`))
			}
			if err != nil {
				t.Fatal(part, what, err)
			}
			if err := nc.Flush(); err != nil {
				t.Fatal(part, what, err)
			}
			select {
			case err := <-refusals:
				if !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), subject) {
					t.Errorf("%s %s: %v", part, what, err)
				}
			case <-time.After(2 * time.Second):
				t.Errorf("%s may %s", part, what)
			}
		}
	}

	// What a reader and an operator are for.
	nc, refusals := a.atNATS("operator-ops")
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if c, _, found, err := stream.LastCommit(t.Context(), js); err != nil || !found || c.Revision == 0 {
		t.Errorf("an operator reads %v %v %v", c, found, err)
	}
	if all, err := stream.Table(t.Context(), js); err != nil || len(all) < 2 {
		t.Errorf("an operator reads %d objects, %v", len(all), err)
	}
	if len(refusals) > 0 {
		t.Errorf("an operator is refused: %v", <-refusals)
	}
	nc, refusals = a.atNATS("reader-audit")
	if js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	cons, err := js.CreateConsumer(t.Context(), stream.Name, jetstream.ConsumerConfig{
		Durable:   "audit",
		AckPolicy: jetstream.AckExplicitPolicy,
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := cons.Next()
	if err == nil {
		err = got.DoubleAck(t.Context())
	}
	if err != nil || len(refusals) > 0 {
		t.Errorf("a reader reads: %v, and is refused %d times", err, len(refusals))
	}

	at := "tls://127.0.0.1:" + strconv.Itoa(a.natsPort)
	s, id := a.as("reader-audit")
	for what, option := range map[string]nats.Option{
		"a certificate without a key": nats.Secure(id.Client("")), "no certificate": nats.Secure(a.trusting()),
	} {
		if nc, err := nats.Connect(at, option); err == nil {
			nc.Close()
			t.Errorf("NATS lets in %s", what)
		}
	}
	if nc, err := nats.Connect("nats://127.0.0.1:"+strconv.Itoa(a.natsPort), nats.RootCAs(s.CA)); err == nil {
		nc.Close()
		t.Error("NATS lets in who has neither")
	}
}

// refusesAtPorts: api, xds and PostgreSQL take nobody without a certificate, and xds none of another role or gateway.
func (a *apart) refusesAtPorts(t *testing.T) {
	for _, port := range []int{a.apiPort, a.xPort} {
		if code, text := a.callWith(a.trusting(), http.MethodGet, "https://127.0.0.1:"+strconv.Itoa(port)+"/healthz", nil,
			nil); code != 0 {
			t.Errorf("port %d answers who has no certificate with %d %s", port, code, text)
		}
	}
	for _, c := range []struct {
		part, key string
		code      codes.Code
		says      string
	}{
		{"agent-edge-1", "a-key-that-is-not-known", codes.PermissionDenied, "is open to this key"},
		{"agent-edge-2", identityKey, codes.PermissionDenied, "is for the gateway other"},
		{"reader-audit", identityKey, codes.PermissionDenied, "is of a reader, not of an agent"},
		{"", identityKey, codes.Unavailable, ""},
	} {
		_, ended := a.open(c.part, c.key)
		select {
		case err := <-ended:
			if status.Code(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q with %q: %v", c.part, c.key, err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%q with %q is let in", c.part, c.key)
		}
	}
	for _, u := range []string{
		"postgresql://marchproxy@127.0.0.1:" + strconv.Itoa(a.pgPort) + "/marchproxy?sslmode=disable",
		"postgresql://marchproxy@127.0.0.1:" + strconv.Itoa(a.pgPort) + "/marchproxy?sslmode=require",
		a.databaseURL("postgres"),
	} {
		// it needs the database alone
		cmd := exec.CommandContext(t.Context(), filepath.Join(a.bin, "marchproxy-api"), "new-epoch")
		cmd.Env = []string{"DATABASE_URL=" + u}
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "pg_hba.conf") &&
			!strings.Contains(string(out), "certificate authentication failed") &&
			!strings.Contains(string(out), "requires a valid client certificate") {
			t.Errorf("PostgreSQL asked by %s: %s %v", u, out, err)
		}
	}
}

// hidesTheToken: what is posted to xds with a token is told to the api without anybody else at NATS being able to read
// it.
func (a *apart) hidesTheToken(t *testing.T) {
	_, id := a.as("reader-audit")
	code, text := a.callWith(id.Client(""), http.MethodPost, "https://127.0.0.1:"+strconv.Itoa(a.xPort)+
		"/v1/config?timeout=10s",
		jsonObject{"version": "1", "services": []any{}, "routes": []any{}, "allow_empty": true}, nil)
	if code >= 300 {
		t.Fatalf("POST /v1/config: %d %s", code, text)
	}
	token := a.token
	a.token = "mp_not-a-token"
	code, _ = a.callWith(id.Client(""), http.MethodPost, "https://127.0.0.1:"+strconv.Itoa(a.xPort)+"/v1/config",
		jsonObject{"version": "1", "services": []any{}, "routes": []any{}, "allow_empty": true}, nil)
	a.token = token
	if code != http.StatusUnauthorized {
		t.Errorf("a token that is none is answered %d", code)
	}
}

// open begins a delta stream as a part, for the gateway default; ended has how it ended.
func (a *apart) open(part, key string) (answered chan struct{}, ended chan error) {
	a.t.Helper()
	way := a.trusting()
	if part != "" {
		_, id := a.as(part)
		way = id.Client("127.0.0.1")
	}
	way.ServerName = "127.0.0.1"
	conn, err := grpc.NewClient("passthrough:///127.0.0.1:"+strconv.Itoa(a.grpcPort),
		grpc.WithTransportCredentials(credentials.NewTLS(way)))
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "x-api-key", key))
	a.t.Cleanup(func() { cancel(); _ = conn.Close() })
	answered, ended = make(chan struct{}), make(chan error, 1)
	go func() {
		s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
		if err == nil {
			err = s.Send(&discoveryv3.DiscoveryRequest{
				Node:    &corev3.Node{Id: "test-" + part, Cluster: "default"},
				TypeUrl: "type.googleapis.com/envoy.config.listener.v3.Listener",
			})
			if errors.Is(err, io.EOF) {
				err = nil // refused before it was read; Recv says why
			}
		}
		for n := 0; err == nil; n++ {
			if _, err = s.Recv(); err == nil && n == 0 {
				close(answered)
			}
		}
		ended <- err
	}()
	return answered, ended
}

// holds opens a stream and waits until it is served.
func (a *apart) holds(part, key string) chan error {
	a.t.Helper()
	answered, ended := a.open(part, key)
	select {
	case <-answered:
	case err := <-ended:
		a.t.Fatalf("%s is not served: %v", part, err)
	case <-time.After(20 * time.Second):
		a.t.Fatalf("%s is not answered", part)
	}
	return ended
}

// endsSoon says how long a stream goes on.
func endsSoon(t *testing.T, what string, ended chan error, began time.Time) {
	t.Helper()
	select {
	case err := <-ended:
		took := time.Since(began)
		t.Logf("%s: ended after %v: %v", what, took.Round(time.Millisecond), err)
		if took > time.Second {
			t.Errorf("%s: the stream ended after %v", what, took)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("%s: the stream goes on", what)
	}
}

func streamGoesOn(t *testing.T, what string, ended chan error) {
	t.Helper()
	select {
	case err := <-ended:
		t.Errorf("%s: the stream ended: %v", what, err)
	default:
	}
}

// endsAKeysStream: a key that is taken from its gateway takes its streams with it, and its hash is shown nowhere.
func (a *apart) endsAKeysStream(t *testing.T) {
	const path, second = "/v1/gateways/default", "the-second-key-of-the-default"
	keys := func(list ...any) {
		t.Helper()
		if code, text := a.call(http.MethodPatch, path+"?wait=live", jsonObject{"spec": jsonObject{"api_keys": list}},
			nil); code != http.StatusOK {
			t.Fatalf("%d %s", code, text)
		}
	}
	keys(jsonObject{"name": "bootstrap"}, jsonObject{"name": "second", "key": second})
	ended := a.holds("agent-edge-3", second)
	mine := a.holds("agent-edge-3", identityKey)
	for _, what := range []string{
		path, "/v1/gateways", "/v1/revisions/1", "/v1/revisions/1/diff", "/v1/audit",
		"/v1/status",
	} {
		_, text := a.call(http.MethodGet, what, nil, nil)
		for _, key := range []string{identityKey, second} {
			if strings.Contains(text, clusterkey.Sum(key)) || strings.Contains(text, key) {
				t.Errorf("%s shows a key or its hash", what)
			}
		}
	}
	began := time.Now()
	keys(jsonObject{"name": "bootstrap"})
	endsSoon(t, "a key that was taken away", ended, began)
	streamGoesOn(t, "another key", mine)
	if code, text := a.call(http.MethodPatch, path,
		jsonObject{"spec": jsonObject{"api_keys": []any{jsonObject{"name": "short", "key": "fifteen-letters"}}}},
		nil); code != 422 && code != 400 {
		t.Errorf("a short key is answered %d %s", code, text)
	}
}

// endsACertificatesStream: what is revoked ends, what is not goes on.
func (a *apart) endsACertificatesStream(t *testing.T) {
	ended, other := a.holds("agent-edge-3", identityKey), a.holds("agent-edge-1", identityKey)
	nc, _ := a.atNATS("agent-edge-3")
	_, id := a.as("agent-edge-3")
	way := id.Client("127.0.0.1")
	a.command("revoke", "agent", "edge-3")
	endsSoon(t, "a certificate that was revoked", ended, time.Now())
	streamGoesOn(t, "another certificate", other)
	if code, _ := a.callWith(way, http.MethodGet, "https://127.0.0.1:"+strconv.Itoa(a.xPort)+"/healthz", nil,
		nil); code != 0 {
		t.Errorf("a revoked certificate is answered %d", code)
	}
	a.reloadNATS()
	a.until("NATS ends the connection of a user that is gone", func() bool { return !nc.IsConnected() })
}

// endsWithTheCertificate: a stream, and a connection of HTTP, last no longer than the certificate that began them.
func (a *apart) endsWithTheCertificate(t *testing.T) {
	other := a.holds("agent-edge-1", identityKey)
	end := time.Now().Add(10 * time.Second).Truncate(time.Second) // a certificate knows no less
	a.issueUntil("agent-short", end)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Join(a.pki, "issued", "agent-short")) }) // pki does not know of it
	ended := a.holds("agent-short", identityKey)
	_, id := a.as("agent-short")
	conn, err := tls.Dial("tcp", "127.0.0.1:"+strconv.Itoa(a.xPort), id.Client("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	closed := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		closed <- err
	}()
	for what, ends := range map[string]chan error{"a stream": ended, "a connection of HTTP": closed} {
		select {
		case err := <-ends:
			if late := time.Since(end); late < 0 || late > time.Second {
				t.Errorf("%s ended %v after its certificate: %v", what, late, err)
			}
		case <-time.After(time.Until(end) + 10*time.Second):
			t.Errorf("%s goes on after its certificate has ended", what)
		}
	}
	streamGoesOn(t, "another certificate", other)
	if _, ended := a.open("agent-short", identityKey); status.Code(<-ended) != codes.Unavailable {
		t.Error("a certificate that has ended begins another stream")
	}
}

// issueUntil is pki issue for an agent, with an end of its own.
func (a *apart) issueUntil(part string, end time.Time) {
	a.t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(a.pki, "ca-1.pem"), filepath.Join(a.pki, "ca-1.key"))
	if err != nil {
		a.t.Fatal(err)
	}
	own := authority.Authority{Cert: pair.Leaf, Key: pair.PrivateKey.(crypto.Signer)}
	cert, key, err := own.Issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: part}, NotBefore: end.Add(-time.Hour), NotAfter: end, ExtKeyUsage: []x509.ExtKeyUsage{
			x509.ExtKeyUsageClientAuth,
		},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(a.pki, "issued", part), 0o700); err != nil {
		a.t.Fatal(err)
	}
	for name, content := range map[string]string{
		"cert.pem": cert, "key.pem": key, "ca.pem": a.readFile("ca.pem"), "crl.pem": a.readFile("crl.pem"),
	} {
		if err := os.WriteFile(a.issued(part, name), []byte(content), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

// rotates replaces the authority while requests come: none fails, and the Envoy's stream is back soon.
func (a *apart) rotates(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	asked, failed := 0, 0
	wg.Go(func() {
		client := &http.Client{Timeout: 5 * time.Second}
		for ctx.Err() == nil {
			resp, err := client.Get("http://" + a.proxy + "/")
			if asked++; err != nil || resp.StatusCode != http.StatusOK {
				failed++
			}
			if err == nil {
				_ = resp.Body.Close() // it is short
			}
		}
	})
	reload := func() {
		a.postgresCertificates()
		a.reloadPostgres()
		a.reloadNATS()
		time.Sleep(500 * time.Millisecond) // each part looks at its files every 100 ms, and that shows nowhere
	}
	was := a.readFile("ca.pem")
	a.command("rotate")
	reload()
	a.command("renew")
	reload()
	began := time.Now()
	a.command("rotate", "--finish")
	reload()
	if now := a.readFile("ca.pem"); strings.Contains(now, was) || strings.Count(now, "BEGIN") != 1 {
		t.Error("the old authority is still trusted")
	}
	var proxies struct{ Items []struct{ ID string } }
	a.until("the Envoy is back", func() bool {
		code, _ := a.call(http.MethodGet, "/v1/proxies", nil, &proxies)
		return code == http.StatusOK && len(proxies.Items) > 0
	})
	a.put("/v1/routes/hello", jsonObject{"spec": jsonObject{
		"hosts":           []string{"*"},
		"direct_response": jsonObject{"status": 200, "body": "two"},
	}})
	took := time.Since(began)
	stop()
	wg.Wait()
	t.Logf("%d requests, %d failed; a change is live %v after the old authority went", asked, failed,
		took.Round(time.Millisecond))
	if failed > 0 || asked < 100 {
		t.Errorf("%d of %d requests failed", failed, asked)
	}
	if took > 10*time.Second {
		t.Errorf("a change is live only %v after the old authority went", took)
	}
	a.serves("two")
}

func (a *apart) readFile(name string) string {
	a.t.Helper()
	raw, err := os.ReadFile(a.pki + "/" + name)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(raw)
}
