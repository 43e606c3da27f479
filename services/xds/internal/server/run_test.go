package server

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/clusterkey"
	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/pkg/racetest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
)

// patience is how long a server may take to start, and to read what is published.
var patience = racetest.Deadline(time.Minute)

// key opens the gateway default of these tests.
const key = "0123456789abcdef0123456789abcdef0123456789abcdef"

// begin has a server run until stop is called, which waits until it has ended.
func begin(t *testing.T, settings map[string]string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- Run(ctx, func(name string) (string, bool) { v, ok := settings[name]; return v, ok }) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// readyz waits for an answer with a status, and returns its text.
func readyz(t *testing.T, settings map[string]string, status int) string {
	t.Helper()
	limit, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	last := "nobody listens"
	for {
		if resp, err := http.Get("http://" + settings["XDS_HTTP_ADDR"] + "/readyz"); err == nil {
			raw, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close() // read
			if last = resp.Status + " " + string(raw); err == nil && resp.StatusCode == status {
				return string(raw)
			}
		}
		select {
		case <-limit:
			t.Fatalf("/readyz is not answered with %d in %v: %s", status, patience, last)
		case <-tick.C:
		}
	}
}

// TestRun: a server that has read nothing says that it is not ready; then it serves the Envoys that have a key of their
// gateway, and no others; and without NATS, after a restart, what it served last.
func TestRun(t *testing.T) {
	nats := natstest.Start(t)
	nc, _ := nats.Connect()
	ports, err := porttest.Take(2)
	if err != nil {
		t.Fatal(err)
	}
	local := func(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i])) }
	settings := map[string]string{
		"NATS_URL": nc.ConnectedUrl(), "SECRET_KEY": "a secret of the test's own", "MARCHPROXY_STATE_DIR": t.TempDir(),
		"XDS_GRPC_ADDR": local(0), "XDS_HTTP_ADDR": local(1), "XDS_ID": "test", "LOGLEVEL": "error",
	}
	stop := begin(t, settings)
	if why := readyz(t, settings, http.StatusServiceUnavailable); !strings.Contains(why, "has not been read") {
		t.Errorf("it is not ready for %q", why)
	}
	publish(t, nats)
	readyz(t, settings, http.StatusOK)

	ask := func(key string) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return bootstrap.AskDrainTime(ctx, bootstrap.Config{
			XDSServer: local(0), APIKey: key, NodeID: "e",
			Gateway: resource.DefaultGateway,
		})
	}
	if d, err := ask(key); err != nil || d != 90*time.Second {
		t.Errorf("an Envoy with the gateway's key is told %v %v, want 1m30s", d, err)
	}
	for _, other := range []string{"", strings.ToUpper(key)} {
		if d, err := ask(other); err == nil {
			t.Errorf("an Envoy with the key %q is told %v", other, d)
		}
	}
	stop()
	nats.Stop()
	begin(t, settings)
	readyz(t, settings, http.StatusOK)
	if d, err := ask(key); err != nil || d != 90*time.Second {
		t.Errorf("without NATS it tells %v %v, want what it served last", d, err)
	}
	nats.Start() // for its end
}

// publish makes the stream, with the gateway default.
func publish(t *testing.T, nats *natstest.Server) {
	t.Helper()
	_, js := nats.Connect()
	if _, err := stream.Ensure(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	o, err := resource.New(resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway}, &configv1.Gateway{
		Listeners: []*configv1.Listener{{Name: "http", Port: 10000}},
		ApiKeys:   []*configv1.ClusterApiKey{{Name: "test", Sha256: clusterkey.Sum(key)}},
		DrainTime: durationpb.New(90 * time.Second),
	})
	if err != nil {
		t.Fatal(err)
	}
	o.Revision = 1
	tally := resource.Tally{}
	tally.Add(o.Kind, resource.Sum(o))
	commit := resource.Commit{
		Epoch: "11111111-1111-4111-8111-111111111111", Revision: 1, State: tally.State(), Actor: "test",
		At: resource.Time(time.Now()),
	}
	if _, err := stream.NewPublisher(js).Publish(t.Context(), []*resource.Object{o}, commit, 0); err != nil {
		t.Fatal(err)
	}
}
