package events

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/test/harness"
)

// patience is how long a consumer may take to say something.
const patience = 60 * time.Second

// programs builds the Go consumer and finds a Python that has what the other needs.
func programs(t *testing.T) map[string][]string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "consumer")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".")
	build.Dir = filepath.Join(root(t), filepath.Dir(goConsumer))
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false") // as a reader has it
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	list := filepath.Join(root(t), filepath.Dir(pythonConsumer), "requirements.txt")
	venv, err := exec.CommandContext(t.Context(), filepath.Join(root(t), "scripts/venv"), "consumer", list).Output()
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]string{
		"go":     {bin},
		"python": {filepath.Join(strings.TrimSpace(string(venv)), "bin/python"), filepath.Join(root(t), pythonConsumer)},
	}
}

// output collects what a program writes, and tells when it has written something.
type output struct {
	mu   sync.Mutex
	all  bytes.Buffer
	more chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all.Write(p)
	select {
	case o.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// await waits until the words have been written on one line.
func (o *output) await(t *testing.T, words ...string) {
	t.Helper()
	limit := time.After(patience)
	for {
		for line := range strings.Lines(o.String()) {
			all := true
			for _, w := range words {
				all = all && strings.Contains(line, w)
			}
			if all {
				return
			}
		}
		select {
		case <-o.more:
		case <-limit:
			t.Fatalf("no line with %q in:\n%s", words, o)
		}
	}
}

// consumer runs a program until stop, or the test's end.
func consumer(t *testing.T, program []string, url, state string) (out *output, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	args := append(append([]string{}, program[1:]...), "--nats", url, "--state", state, "--name", "example",
		"route", "service")
	cmd := exec.CommandContext(ctx, program[0], args...)
	out = &output{more: make(chan struct{}, 1)}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); _ = cmd.Wait() }) } // killed: it has no chance to tidy up
	t.Cleanup(stop)
	return out, stop
}

func put(t *testing.T, s *harness.System, name, body string) {
	t.Helper()
	spec := fmt.Sprintf(`{"spec":{"hosts":["%s.example.com"],"direct_response":{"status":200,"body":%q}}}`, name, body)
	if status, raw, err := s.Call(t.Context(), "PUT", s.API+"/v1/routes/"+name, spec); err != nil || status > 201 {
		t.Fatalf("put %s: %d %s %v", name, status, raw, err)
	}
}

// TestConsumers: both programs print what changes, also what changed while they were away, and nothing that the
// database never had, whatever is done to the stream.
func TestConsumers(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	url, err := s.NATS()
	if err != nil {
		t.Fatal(err)
	}
	js := s.JetStream(t)
	for name, program := range programs(t) {
		t.Run(name, func(t *testing.T) {
			state := filepath.Join(t.TempDir(), "state")
			r := name + "-route"
			put(t, s, r, "one")
			out, stop := consumer(t, program, url, state)
			out.await(t, "Route", r, `"one"`)
			put(t, s, r, "two")
			out.await(t, "Route", r, `"two"`)
			stop()

			put(t, s, r, "three")
			put(t, s, name+"-away", "away")
			if status, raw, err := s.Call(t.Context(), "DELETE", s.API+"/v1/routes/"+name+"-away", nil); err != nil ||
				status != 200 {
				t.Fatalf("delete: %d %s %v", status, raw, err)
			}
			put(t, s, name+"-new", "new")
			out, _ = consumer(t, program, url, state)
			out.await(t, "Route", r, `"three"`)
			out.await(t, "Route", name+"-new", `"new"`)

			// A forger's message is in the stream, but the state's hash speaks against it until the api has put
			// it right.
			forged := fmt.Appendf(nil, `{"kind":"Route","name":%q,"revision":999,"spec":{"hosts":["forged.example.com"]}}`, r)
			if _, err := js.Publish(t.Context(), "marchproxy.config.v1.resource.route."+r, forged); err != nil {
				t.Fatal(err)
			}
			put(t, s, r, "four")
			out.await(t, "Route", r, `"four"`)

			st, err := js.Stream(t.Context(), stream.Name)
			if err != nil {
				t.Fatal(err)
			}
			if err := st.Purge(t.Context()); err != nil {
				t.Fatal(err)
			}
			put(t, s, r, "five")
			out.await(t, "Route", r, `"five"`)
			if err := js.DeleteStream(t.Context(), stream.Name); err != nil {
				t.Fatal(err)
			}
			put(t, s, r, "six")
			out.await(t, "Route", r, `"six"`)
			for _, never := range []string{"forged.example.com", `"one"`, `"two"`, name + "-away"} {
				if strings.Contains(out.String(), never) {
					t.Errorf("it printed %s:\n%s", never, out)
				}
			}
			if n := strings.Count(out.String(), name+"-new"); n != 3 { // key, payload's name, host
				t.Errorf("an unchanged route was printed again:\n%s", out)
			}
		})
	}
}

// TestPermissions: the documented permissions are enough for both programs, and too few for anything else.
func TestPermissions(t *testing.T) {
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
		Users: []*server.User{{Username: "api", Password: "api"}, {
			Username: "reader", Password: "reader",
			Permissions: permissions("example"),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("nats-server does not start")
	}
	port := srv.Addr().(*net.TCPAddr).Port
	connect := func(user string) jetstream.JetStream {
		nc, err := nats.Connect(fmt.Sprintf("nats://%s:%s@127.0.0.1:%d", user, user, port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		return js
	}
	js := connect("api")
	if _, err := stream.Ensure(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	pub, seq := stream.NewPublisher(js), uint64(0)
	publish := func(rev int64, body string) {
		o, err := resource.ParsePayload(fmt.Appendf(nil, `{"kind":"Route","name":"hello","revision":%d,`+
			`"spec":{"direct_response":{"status":200,"body":%q}}}`, rev, body))
		if err != nil {
			t.Fatal(err)
		}
		c := resource.Commit{
			Epoch: "11111111-1111-4111-8111-111111111111", Revision: rev,
			State: map[string]resource.KindState{"Route": {Count: 1, Hash: resource.Sum(o).String()}},
		}
		if seq, err = pub.Publish(t.Context(), []*resource.Object{o}, c, seq); err != nil {
			t.Fatal(err)
		}
	}
	rev := int64(0)
	for name, program := range programs(t) {
		t.Run(name, func(t *testing.T) {
			rev++
			publish(rev, name+" before")
			out, stop := consumer(t, program, fmt.Sprintf("nats://reader:reader@127.0.0.1:%d", port),
				filepath.Join(t.TempDir(), "state"))
			out.await(t, "hello", name+" before")
			rev++
			publish(rev, name+" after")
			out.await(t, "hello", name+" after")
			stop()
		})
	}
	reader := connect("reader")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := reader.Publish(ctx, "marchproxy.config.v1.revision", []byte(`{}`)); err == nil {
		t.Error("a reader may publish")
	}
	if st, err := reader.Stream(t.Context(), stream.Name); err != nil {
		t.Error(err)
	} else if err := st.Purge(ctx); err == nil {
		t.Error("a reader may purge the stream")
	}
	if _, last, _, err := stream.LastCommit(t.Context(), js); err != nil || last != seq {
		t.Errorf("the stream ends at %d, not %d: %v", last, seq, err)
	}
}
