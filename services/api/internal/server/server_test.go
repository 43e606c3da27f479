package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/license"
	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// patience is how long an api may take to start, and to publish.
const patience = time.Minute

const (
	secret = "a secret of the test's own"
	token  = "the first token of a test, which is long enough"
	key    = "0123456789abcdef0123456789abcdef0123456789abcdef"
)

// settings are those that an api starts with.
func settings(t *testing.T, database string, nats *natstest.Server) map[string]string {
	t.Helper()
	ports, err := porttest.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	nc, _ := nats.Connect()
	return map[string]string{
		"DATABASE_URL": database, "NATS_URL": nc.ConnectedUrl(), "SECRET_KEY": secret, "API_FIRST_TOKEN": token,
		"API_ADDR": net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])), "LOGLEVEL": "error",
	}
}

func lookup(settings map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := settings[name]; return v, ok }
}

// run has an api serve until stop is called, which waits until it has ended.
func run(t *testing.T, settings map[string]string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, lookup(settings)) }()
	stopped := false
	stop = func() {
		if cancel(); stopped {
			return
		}
		stopped = true
		if err := <-done; err != nil {
			t.Errorf("the api ended with %v", err)
		}
	}
	t.Cleanup(stop)
	await(t, "an api that is ready", done, func() bool {
		status, _ := ask(t, settings, "GET", "/readyz", "")
		return status == http.StatusOK
	})
	return stop
}

func await(t *testing.T, what string, ended chan error, there func() bool) {
	t.Helper()
	limit, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !there() {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("waiting for %s: the api has ended: %v", what, err)
		case <-limit:
			t.Fatalf("no %s in %v", what, patience)
		case <-tick.C:
		}
	}
}

// ask returns status 0 where nobody listens.
func ask(t *testing.T, settings map[string]string, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+settings["API_ADDR"]+path,
		strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+settings["API_FIRST_TOKEN"])
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }() // read only
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// TestRun: an api on an empty database makes what must always be there, and publishes what is written through it; the
// next one finds it, changes nothing, and takes what its settings say now.
func TestRun(t *testing.T) {
	database, nats := pgtest.Database(t), natstest.Start(t)
	first := settings(t, database, nats)
	first["CLUSTER_API_KEY"], first["MARCHPROXY_DEFAULT_PORT"] = key, "8080"
	stop := run(t, first)
	status, gateway := ask(t, first, "GET", "/v1/gateways/default", "")
	var made struct {
		Revision int64
		Spec     struct {
			Listeners []struct {
				Port int
			}
			Keys []struct{ Name string } `json:"api_keys"`
		}
	}
	if err := json.Unmarshal([]byte(gateway), &made); err != nil || status != http.StatusOK {
		t.Fatalf("%v %d %s", err, status, gateway)
	}
	if s := made.Spec; len(s.Listeners) != 1 || s.Listeners[0].Port != 8080 || len(s.Keys) != 1 ||
		s.Keys[0].Name != "bootstrap" {
		t.Errorf("the gateway default is %s", gateway)
	}
	if status, body := ask(t, first, "PUT", "/v1/routes/r",
		`{"spec":{"direct_response":{"status":204}}}`); status != http.StatusCreated {
		t.Fatalf("%d %s", status, body)
	}
	_, js := nats.Connect()
	await(t, "the route in the stream", make(chan error, 1), func() bool {
		objects, err := stream.Table(t.Context(), js)
		return err == nil && objects[resource.Ref{Kind: resource.KindRoute, Name: "r"}] != nil
	})
	stop()
	if _, err := net.DialTimeout("tcp", first["API_ADDR"], time.Second); err == nil {
		t.Error("it listens after its end")
	}

	second := settings(t, database, nats)
	second["API_FIRST_TOKEN"], second["MARCHPROXY_DEFAULT_PORT"] = token+", and another", "9090"
	run(t, second)
	if status, again := ask(t, second, "GET", "/v1/gateways/default", ""); status != http.StatusOK || again != gateway {
		t.Errorf("the next api has %d %s, want %s", status, again, gateway)
	}
	second["API_FIRST_TOKEN"] = token
	if status, _ := ask(t, second, "GET", "/v1/gateways/default", ""); status != http.StatusUnauthorized {
		t.Errorf("the token that the setting had before is answered with %d", status)
	}
}

// TestTwoAtOnce: apis that start on one empty database at the same time make one gateway.
func TestTwoAtOnce(t *testing.T) {
	database, nats := pgtest.Database(t), natstest.Start(t)
	both := []map[string]string{settings(t, database, nats), settings(t, database, nats)}
	ended := make(chan error, 2)
	ctx, cancel := context.WithCancel(t.Context())
	for _, s := range both {
		go func() { ended <- Run(ctx, lookup(s)) }()
	}
	for _, s := range both {
		await(t, "an api that is ready", ended, func() bool {
			status, _ := ask(t, s, "GET", "/readyz", "")
			return status == http.StatusOK
		})
	}
	if n := pgtest.Value[int64](t, database, "SELECT count(*) FROM changes"); n != 1 {
		t.Errorf("%d changes, want the one that makes the gateway", n)
	}
	cancel()
	for range both {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// parts are a store and a writer on a database.
func parts(t *testing.T, database string) (*store.Store, *writer.Writer) {
	t.Helper()
	box, err := seal.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), database, box)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	w, err := writer.New(t.Context(), st, box, "", zap.NewNop(), func(store.Committed) {})
	if err != nil {
		t.Fatal(err)
	}
	return st, w
}

// TestFirstToken: where no token is set, one is made and shown once; only its hash is kept.
func TestFirstToken(t *testing.T) {
	database := pgtest.Database(t)
	st, w := parts(t, database)
	shown := stderr(t, func() {
		if err := firstBoot(t.Context(), Config{DefaultPort: 80}, st, w); err != nil {
			t.Error(err)
		}
	})
	m := regexp.MustCompile(`(?m)^    (\S{32,})$`).FindStringSubmatch(shown)
	if m == nil {
		t.Fatalf("no token is shown: %q", shown)
	}
	if n := pgtest.Value[int64](t, database, "SELECT count(*) FROM tokens WHERE sha256 = $1", auth.Sum(m[1])); n != 1 {
		t.Error("what is shown is no token")
	}
	if again := stderr(t, func() {
		if err := firstBoot(t.Context(), Config{DefaultPort: 80}, st, w); err != nil {
			t.Error(err)
		}
	}); again != "" {
		t.Errorf("the second boot shows %q", again)
	}
}

// stderr is what is written there meanwhile.
func stderr(t *testing.T, f func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	was := os.Stderr
	os.Stderr = w
	f()
	os.Stderr = was
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := io.Copy(&out, r); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestLicenseKey: the setting's key becomes the license default, which the gateway uses from the beginning; a new key
// takes the old one's place, and what an operator has decided since stays.
func TestLicenseKey(t *testing.T) {
	database := pgtest.Database(t)
	st, w := parts(t, database)
	if err := firstBoot(t.Context(), Config{DefaultPort: 80, FirstToken: token}, st, w); err != nil {
		t.Fatal(err)
	}
	keys := make([]string, 2)
	for i := range keys {
		rest := fmt.Sprintf("PENG-TEST-TEST-TEST-000%d", i)
		keys[i] = rest + "-" + license.Checksum(rest)
	}
	set := func(key string) int64 {
		t.Helper()
		if err := licenseKey(t.Context(), key, w); err != nil {
			t.Fatal(err)
		}
		return w.Revision()
	}
	none := w.Revision()
	if set("") != none {
		t.Error("no key writes something")
	}
	once := set(keys[0])
	if once == none || set(keys[0]) != once {
		t.Errorf("revision %d, %d with a key and then %d with the same", none, once, w.Revision())
	}
	uses := func() string {
		return pgtest.Value[string](t, database, "SELECT coalesce(payload -> 'spec' ->> 'license', '') FROM resources "+
			"WHERE kind = 'Gateway'")
	}
	if uses() != environmentLicense {
		t.Errorf("the gateway uses the license %q", uses())
	}
	if set(keys[1]) == once {
		t.Error("another key is not taken")
	}
}

// TestSettings: what cannot be right is refused at the start, all of it at once, by the settings' names and without
// their values.
func TestSettings(t *testing.T) {
	good := map[string]string{
		"DATABASE_URL": "postgresql://u:hidden@127.0.0.1/m", "NATS_URL": "nats://127.0.0.1:4222",
		"SECRET_KEY": "0123456789abcdef-hidden",
	}
	for name, c := range map[string]struct {
		change map[string]string
		says   []string
	}{
		"nothing is said": {
			map[string]string{"DATABASE_URL": "", "NATS_URL": "", "SECRET_KEY": ""},
			[]string{"DATABASE_URL", "NATS_URL", "SECRET_KEY", "openssl rand"},
		},
		"the least": {nil, nil},
		"a port that is none": {
			map[string]string{"MARCHPROXY_DEFAULT_PORT": "65536"},
			[]string{"MARCHPROXY_DEFAULT_PORT"},
		},
		"a first token that can be guessed": {
			map[string]string{"API_FIRST_TOKEN": "hidden"},
			[]string{"API_FIRST_TOKEN", "at least 32"},
		},
		"a license key with a mistake": {
			map[string]string{"LICENSE_KEY": "PENG-hidden"},
			[]string{"LICENSE_KEY", "must look like"},
		},
		"a cluster key that can be guessed": {
			map[string]string{"CLUSTER_API_KEY": "hidden"},
			[]string{"CLUSTER_API_KEY"},
		},
		"a database elsewhere, in plain text": {
			map[string]string{"DATABASE_URL": "postgresql://u:hidden@db.example.com/m?sslmode=disable"},
			[]string{"DATABASE_URL", "unencrypted", "db.example.com"},
		},
		"a database elsewhere that may be anyone": {
			map[string]string{"DATABASE_URL": "postgresql://u:hidden@db.example.com/m?sslmode=require"},
			[]string{"DATABASE_URL", "verify-full"},
		},
		"a listener for everybody, in plain text": {map[string]string{"API_ADDR": "0.0.0.0:8000"}, []string{"API_ADDR"}},
		"the same, asked for": {map[string]string{
			"API_ADDR": "0.0.0.0:8000", "ALLOW_PLAINTEXT": "true",
			"DATABASE_URL": "postgresql://u:hidden@db.example.com/m",
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			set := map[string]string{"API_ADDR": "127.0.0.1:8000"}
			for _, from := range []map[string]string{good, c.change} {
				for k, v := range from {
					set[k] = v
				}
			}
			_, err := readConfig(lookup(set))
			if (err == nil) != (c.says == nil) {
				t.Fatalf("%v, want %q", err, c.says)
			}
			for _, word := range c.says {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%v does not say %s", err, word)
				}
			}
			if err != nil && strings.Contains(err.Error(), "hidden") {
				t.Errorf("it shows a secret: %v", err)
			}
		})
	}
}

// TestNewEpoch: a new life of the database has a name of its own, and a database that is not named is asked for.
func TestNewEpoch(t *testing.T) {
	if err := NewEpoch(t.Context(), lookup(nil)); err == nil || !strings.Contains(err.Error(), "DATABASE_URL") {
		t.Errorf("without a database %v", err)
	}
	database := pgtest.Database(t)
	st, w := parts(t, database)
	if err := firstBoot(t.Context(), Config{DefaultPort: 80, FirstToken: token}, st, w); err != nil {
		t.Fatal(err)
	}
	epoch := func() string { return pgtest.Value[string](t, database, "SELECT epoch::text FROM config_head") }
	was, revision := epoch(), w.Revision()
	if err := NewEpoch(t.Context(), lookup(map[string]string{"DATABASE_URL": database})); err != nil {
		t.Fatal(err)
	}
	if epoch() == was {
		t.Error("the epoch is what it was")
	}
	if n := pgtest.Value[int64](t, database, "SELECT revision FROM config_head"); n != revision {
		t.Errorf("revision %d, want %d", n, revision)
	}
}
