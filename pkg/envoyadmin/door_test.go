package envoyadmin_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/envoyadmin"
)

// TestRedact: what is secret is gone, whatever it is and however deep, and everything else is there byte by byte.
func TestRedact(t *testing.T) {
	const sentinel = "sentinel"
	dump := `{ "configs": [
 {"@type": "Bootstrap", "initial_metadata": [{"key": "x-api-key", "value": "sentinel"},
 	{"value":"sent\"inel sentinel"}],
  "value": "stays", "n": [1, -2.5e3, true, null, {}, [ ]]},
 {"configuration": {"@type": "Struct", "value": {"tokens": [{"a": "sentinel"}]}},
 	"tls": {"private_key": {"inline_string": "sentinel"},
  "password":{"x":"sentinel"}, "certificate_chain": {"inline_string": "stays"}}},
 {"local_jwks": {"inline_string": "sentinel", "filename": "stays"}, "inline_string": "one: é \\ \"stays"},
 {"generic_secret": {"secret": {"inline_bytes": "sentinel"}}, "session_ticket_keys": {"keys": ["sentinel"]}}
] }
`
	var out bytes.Buffer
	if err := envoyadmin.Redact(&out, strings.NewReader(dump)); err != nil {
		t.Fatal(err)
	}
	if !json.Valid(out.Bytes()) || strings.Contains(out.String(), sentinel) || strings.Count(out.String(), "stays") != 4 {
		t.Errorf("%s", out.String())
	}
	const plain = "{\"a\" : [ 1,2 ],\t\"b\":{\"c\":\"d\\u0022\"}}"
	out.Reset()
	if err := envoyadmin.Redact(&out, strings.NewReader(plain)); err != nil || out.String() != plain {
		t.Errorf("%v %q, want %q", err, out.String(), plain)
	}
}

// FuzzRedact: whatever is read, nothing that is written is taken for JSON but JSON, and reading ends.
func FuzzRedact(f *testing.F) {
	for _, s := range []string{`{"password":"x"}`, `[1,`, `{"a":{"private_key":`, `"`, `{]`, "[[[[", "{}}", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		var out bytes.Buffer
		err := envoyadmin.Redact(&out, strings.NewReader(in))
		if json.Valid([]byte(in)) && (err != nil || !json.Valid(out.Bytes())) {
			t.Errorf("%q: %v %q", in, err, out.String())
		}
	})
}

// TestDoor: it passes what tells, with its query, and nothing that changes something or tells more.
func TestDoor(t *testing.T) {
	var asked []string
	envoy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.RequestURI())
		_, _ = io.WriteString(w, `{"password": "sentinel"}`)
	}))
	t.Cleanup(envoy.Close)
	door := httptest.NewServer(envoyadmin.Door(envoyadmin.New(strings.TrimPrefix(envoy.URL, "http://"))))
	t.Cleanup(door.Close)
	do := func(method, path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, door.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }() // read only
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(raw)
	}
	for _, path := range []string{
		"/stats", "/stats?filter=a%26b&usedonly", "/stats/prometheus", "/ready",
		"/clusters?format=json",
	} {
		if status, body := do("GET", path); status != 200 || !strings.Contains(body, "sentinel") {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
	}
	if status, body := do("GET", "/config_dump?resource=bootstrap"); status != 200 ||
		body != `{"password": "[redacted]"}` {
		t.Errorf("/config_dump: %d %s", status, body)
	}
	if len(asked) != 6 || asked[1] != "GET /stats?filter=a%26b&usedonly" {
		t.Errorf("asked %q", asked)
	}
	for _, r := range [][2]string{
		{"POST", "/quitquitquit"},
		{"GET", "/quitquitquit"},
		{"POST", "/stats"},
		{"PUT", "/ready"},
		{"GET", "/"},
		{
			"GET",
			"/runtime",
		},
		{"GET", "/runtime_modify?a=b"},
		{"GET", "/logging?level=debug"},
		{"GET", "/stats/../quitquitquit"},
		{
			"GET",
			"//config_dump",
		},
		{"GET", "/config_dump/"},
		{"GET", "/server_info"},
		{"GET", "/certs"},
		{"GET", "/stats/recentlookups"},
		{
			"GET",
			"/%63onfig_dumps",
		},
	} {
		if status, body := do(r[0], r[1]); status != 403 {
			t.Errorf("%s %s: %d %s", r[0], r[1], status, body)
		}
	}
	if len(asked) != 6 {
		t.Errorf("Envoy was asked %q", asked)
	}
}

// TestDoorOfALongAnswer: one that goes on may take as long as it likes, one that stops is given up, and the reader
// learns that it is not whole. Who does not take it holds nothing for long.
func TestDoorOfALongAnswer(t *testing.T) {
	const limit = 500 * time.Millisecond
	envoyadmin.SetStall(t, limit)
	gone := make(chan struct{}, 1)
	envoy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := 0
		for ; n < 8 || r.URL.RawQuery == "endless"; n++ {
			if r.URL.RawQuery == "stops" && n == 2 {
				<-r.Context().Done()
				return
			}
			size := 10
			if r.URL.RawQuery == "endless" {
				size = 1 << 20
			}
			if _, err := w.Write(bytes.Repeat([]byte("x"), size)); err != nil {
				gone <- struct{}{}
				return
			}
			_ = http.NewResponseController(w).Flush() // the next write says it
			if size == 10 {
				time.Sleep(limit / 5) // an answer that takes its time is the subject
			}
		}
	}))
	t.Cleanup(envoy.Close)
	door := httptest.NewServer(envoyadmin.Door(envoyadmin.New(strings.TrimPrefix(envoy.URL, "http://"))))
	t.Cleanup(door.Close)
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}} // compressed, it would never be too much
	get := func(query string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, door.URL+"/stats?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err == nil {
			t.Cleanup(func() { _ = resp.Body.Close() }) // read only
		}
		return resp, err
	}
	for range 2 { // on one connection
		resp, err := get("long")
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := io.ReadAll(resp.Body); err != nil || len(raw) != 80 {
			t.Errorf("an answer that goes on for longer than the limit: %d bytes, %v", len(raw), err)
		}
		time.Sleep(2 * limit) // the former answer's limit is over before the next one is asked for
	}
	resp, err := get("stops")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
	}
	if err == nil {
		t.Error("an answer that stops is taken for the whole")
	}
	if _, err := get("endless"); err != nil { // and nothing of it is read
		t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(10 * limit):
		t.Error("an answer that nobody takes goes on")
	}
}
