package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	schema "github.com/pb33f/jsonschema/v6"
	"sigs.k8s.io/yaml"

	"github.com/marchproxy/marchproxy/proto/jsonschema"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/test/harness"
)

// asyncapi is docs/asyncapi.yaml, as far as it is looked at here.
type asyncapi struct {
	Channels map[string]struct {
		Address    string
		Parameters map[string]struct{ Enum []string }
		Messages   map[string]struct {
			Ref string `json:"$ref"`
		}
	}
	Components struct {
		Messages map[string]struct {
			Name    string
			Headers *struct {
				Ref string `json:"$ref"`
			}
			Payload struct {
				Ref string `json:"$ref"`
			}
		}
	}
}

func parse(t *testing.T, raw string) any {
	t.Helper()
	v, err := schema.UnmarshalJSON(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// document is docs/asyncapi.yaml in JSON, and a compiler that knows it and the payloads' schemas.
func document(t *testing.T) (raw string, doc asyncapi, c *schema.Compiler) {
	t.Helper()
	j, err := yaml.YAMLToJSON([]byte(read(t, "docs/asyncapi.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(j, &doc); err != nil {
		t.Fatal(err)
	}
	c = schema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("file:///docs/asyncapi.yaml", parse(t, string(j))); err != nil {
		t.Fatal(err)
	}
	files, err := jsonschema.Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := jsonschema.Files.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource("file:///proto/jsonschema/"+f.Name(), parse(t, string(b))); err != nil {
			t.Fatal(err)
		}
	}
	return string(j), doc, c
}

// TestAsyncAPI: the document is one by AsyncAPI's own schema (testdata/asyncapi-3.0.0.json, from the npm package
// @asyncapi/specs 6.11.1, Apache-2.0), and knows every kind.
func TestAsyncAPI(t *testing.T) {
	raw, doc, c := document(t)
	if err := c.AddResource("file:///asyncapi.json",
		parse(t, read(t, "test/events/testdata/asyncapi-3.0.0.json"))); err != nil {
		t.Fatal(err)
	}
	spec, err := c.Compile("file:///asyncapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := spec.Validate(parse(t, raw)); err != nil {
		t.Errorf("%v", err)
	}
	if err := spec.Validate(parse(t, strings.Replace(raw, `"action":"send"`, `"action":"shout"`, 1))); err == nil {
		t.Error("AsyncAPI's schema takes anything")
	}
	var tokens []string
	for _, k := range resource.Kinds {
		tokens = append(tokens, k.Token)
	}
	slices.Sort(tokens)
	if got := doc.Channels["resource"].Parameters["kind"].Enum; !slices.Equal(got, tokens) {
		t.Errorf("docs/asyncapi.yaml has the kinds %v, not %v", got, tokens)
	}
}

var parameter = regexp.MustCompile(`\\\{[a-z]+\\\}`)

// message finds the document's message for one that was received, by its subject and its ce-type.
func (a asyncapi) message(subject, ceType string) (name string, ok bool) {
	for _, ch := range a.Channels {
		if !regexp.MustCompile("^" + parameter.ReplaceAllString(regexp.QuoteMeta(ch.Address), `[^.]+`) + "$").
			MatchString(subject) {
			continue
		}
		for _, m := range ch.Messages {
			name := path.Base(m.Ref)
			if ceType == "" || a.Components.Messages[name].Name == ceType {
				return name, true
			}
		}
	}
	return "", false
}

// TestMessages: every message of a running system is one of the document, with its headers and its payload, and
// every message of the document is met.
func TestMessages(t *testing.T) {
	_, doc, c := document(t)
	s := harness.ForTest(t, nil)
	put(t, s, "made", "made")
	if st, raw, err := s.Call(t.Context(), "DELETE", s.API+"/v1/routes/made?wait=live", nil); err != nil || st != 200 {
		t.Fatalf("delete: %d %s %v", st, raw, err)
	}
	js := s.JetStream(t)
	// There is no agent here; this is what one would send.
	agent, err := json.Marshal(status.AgentStatus{
		ID: "node", Epoch: "11111111-1111-4111-8111-111111111111", Revision: 1, At: resource.Time(time.Now()),
		Labels: map[string]string{"zone": "a"}, Mode: "native",
		Policies: []status.PolicyStatus{{Name: "p", Revision: 1, Limited: 3}}, Sources: []status.LimitedSource{
			{Address: "192.0.2.1", Policy: "p", Limited: 3},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), status.SubjectPrefix+"agent.node", agent); err != nil {
		t.Fatal(err)
	}
	// A report that came before the stream was there is said again at the next heartbeat.
	reports, err := js.Stream(t.Context(), status.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(4 * status.Heartbeat); ; time.Sleep(100 * time.Millisecond) {
		_, err := reports.GetLastMsgForSubject(t.Context(), status.SubjectPrefix+"names.*")
		if err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("no report of names: %v", err)
		}
	}
	met := map[string]int{}
	for _, name := range []string{stream.Name, status.StreamName} {
		st, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		cons, err := st.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
		if err != nil {
			t.Fatal(err)
		}
		batch, err := cons.Fetch(int(st.CachedInfo().State.Msgs), jetstream.FetchMaxWait(20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			of, ok := doc.message(m.Subject(), m.Headers().Get("ce-type"))
			if !ok {
				t.Errorf("%s (%s) is not in docs/asyncapi.yaml", m.Subject(), m.Headers().Get("ce-type"))
				continue
			}
			met[of]++
			if err := check(c, "file:///docs/"+doc.Components.Messages[of].Payload.Ref, m.Data()); err != nil {
				t.Errorf("%s: %v\n%s", m.Subject(), err, m.Data())
			}
			if h := doc.Components.Messages[of].Headers; h != nil {
				if err := check(c, "file:///docs/asyncapi.yaml"+h.Ref, headers(m.Headers())); err != nil {
					t.Errorf("%s: %v\n%v", m.Subject(), err, m.Headers())
				}
			}
		}
		if err := batch.Error(); err != nil {
			t.Fatal(err)
		}
	}
	for name := range doc.Components.Messages {
		if met[name] == 0 {
			t.Errorf("no message %s was met: %v", name, met)
		}
	}
}

func check(c *schema.Compiler, url string, data []byte) error {
	s, err := c.Compile(strings.Replace(url, "/docs/../", "/", 1))
	if err != nil {
		return err
	}
	v, err := schema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

func headers(h nats.Header) []byte {
	var b bytes.Buffer
	sep := "{"
	for k := range h {
		fmt.Fprintf(&b, "%s%q:%q", sep, k, h.Get(k))
		sep = ","
	}
	b.WriteString("}")
	return b.Bytes()
}
