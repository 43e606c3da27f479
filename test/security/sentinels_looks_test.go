package security

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/test/harness"
)

// looks has everything say what it has to say.
func looks(
	t *testing.T, s *harness.System, call func(method, path string, body any, headers ...string) (int, []byte),
	said func(string, []byte),
) {
	t.Helper()
	// Every read of the API, of every object and revision.
	_, document := call("GET", "/v1/openapi.json", nil)
	said("the OpenAPI document", document)
	var doc struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(document, &doc); err != nil || len(doc.Paths) < 20 {
		t.Fatal(len(doc.Paths), err)
	}
	for path, methods := range doc.Paths {
		if methods["get"] == nil || path == "/v1/events" || path == "/v1/access-log" { // which have no end
			continue
		}
		for _, name := range []string{"sentinel", "default"} {
			for _, revision := range []string{"2", "5", "9", "12"} {
				at := strings.NewReplacer("{name}", name, "{revision}", revision).Replace(path)
				if _, raw := call("GET", at, nil); len(raw) > 0 {
					said("GET "+at, raw)
				}
			}
		}
	}
	for _, url := range []string{
		s.XDS + "/v1/resources", s.XDS + "/v1/resources?gateway=sentinel", s.XDS + "/v1/version", s.XDS + "/metrics",
		s.XDS + "/readyz",
		s.Admin + "/config_dump", s.Admin + "/config_dump?include_eds", s.Admin + "/clusters", s.Admin + "/listeners",
		s.Admin + "/stats", s.Admin + "/stats/prometheus",
	} {
		status, raw, err := s.Call(t.Context(), "GET", url, nil)
		if err != nil || status >= 500 {
			t.Errorf("%s: %d %v", url, status, err)
		}
		said("GET "+url, raw)
	}
	said("server-sent events", followed(t, s))

	// The command line.
	all := filepath.Join(t.TempDir(), "all.yaml")
	for _, args := range [][]string{
		{"export"},
		{"export", "--api-keys"},
		{"export", "-o", "json"},
		{"diff", "-f", all},
		{"apply", "-f", all, "--dry-run"},
		{"validate", "-f", all},
		{"get", "gateways", "-o", "yaml"},
		{"get", "certificates", "-o", "json"},
		{"get", "auth-policies", "-o", "yaml"},
		{"get", "licenses", "-o", "yaml"},
		{"revisions"},
		{"revisions", "5"},
		{"revisions", "diff", "2", "9"},
		{"audit", "-o", "json"},
		{"audit", "export"},
		{"audit", "verify"},
		{"token", "list"},
		{"status", "-o", "json"},
		{"proxies"},
		{"doctor"},
	} {
		out, err := s.CLI(t.Context(), append(args, "-v")...).CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if len(args) == 1 && args[0] == "export" {
			if err := os.WriteFile(all, out, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		said(fmt.Sprint("marchproxy ", args), out)
	}
	said("dev's output", []byte(s.Output()))

	// The database, the streams, and what others of the machine see of the programs.
	f, err := s.Forcer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close(t.Context()) }() // read only
	tables, err := f.Dump(t.Context())
	if err != nil || len(tables["public.audit_chain"]) == 0 || len(tables["public.changes"]) == 0 {
		t.Fatal(len(tables), err)
	}
	for table, rows := range tables {
		said("the table "+table, rows)
	}
	js := s.JetStream(t)
	streams := 0
	for name := range js.StreamNames(t.Context()).Name() {
		streams++
		said("the stream "+name, messages(t, js, name))
	}
	if streams == 0 {
		t.Error("there are no streams")
	}
	for _, part := range []string{"postgres", "nats", "api", "xds", "envoy"} {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.Pid(part)))
		if err != nil {
			t.Fatal(err)
		}
		said("the command line of "+part, raw)
	}
}

// messages are those of a stream, with subjects and headers.
func messages(t *testing.T, js jetstream.JetStream, name string) []byte {
	t.Helper()
	st, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := st.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := st.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	read, until := uint64(0), time.Now().Add(10*time.Second)
	for {
		batch, err := c.FetchNoWait(1000)
		if err != nil {
			t.Fatal(err)
		}
		got := uint64(0)
		for m := range batch.Messages() {
			got++
			fmt.Fprintln(&all, m.Subject(), m.Headers(), string(m.Data()))
		}
		if batch.Error() != nil {
			t.Fatal(batch.Error())
		}
		switch read += got; {
		case got > 0:
		case read >= info.State.Msgs:
			return all.Bytes()
		case time.Now().After(until):
			t.Fatalf("of the stream %s, %d of %d messages are read", name, read, info.State.Msgs)
		}
	}
}

// followed are the events of the whole history, and what is said of the state.
func followed(t *testing.T, s *harness.System) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.API+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Last-Event-ID", "0")
	resp, err := s.HTTP().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	all, _ := io.ReadAll(resp.Body) // it has no end but that of the time
	if !bytes.Contains(all, []byte("id: 5\n")) {
		t.Errorf("the events: %s", all)
	}
	return all
}
