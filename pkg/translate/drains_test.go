package translate_test

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"sigs.k8s.io/yaml"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// whole is a gateway with something in every field.
const whole = `
listeners:
- {name: plain, port: 10000}
- name: secure
  port: 10443
  protocol: https
  address: 127.0.0.1
  certificates: [main, other]
  client_auth:
  - {hosts: [strict.example.com], ca_certificate: ca, certificates: [strict]}
api_keys: [{name: a, sha256: ""}]
limits:
  max_connections: 5
  max_request_headers_kb: 50
  max_request_headers: 50
  idle_timeout: 50s
  request_headers_timeout: 50s
  request_timeout: 50s
  max_connections_per_address: 5
  local_rate_limit: {requests: 5, per: 5s, burst: 5}
access_log:
  fields: {a: b}
  min_status: 500
  stdout: {percent: 5}
  file: {percent: 5}
  otlp: {service: collector, percent: 5}
  grpc: {service: collector, percent: 5}
tracing: {service: collector, percent: 5}
auth_policy: staff
license: main
metrics: true
metrics_engine: native
drain_time: 600s
`

// others has another value for each field of the schema. Of a field of a message in a list the path says so by [].
var others = map[string]string{
	"listeners[].name":         `listeners: [{}, {name: renamed}]`,
	"listeners[].port":         `listeners: [{}, {port: 10444}]`,
	"listeners[].protocol":     `listeners: [{protocol: https, certificates: [main]}, {}]`,
	"listeners[].address":      `listeners: [{}, {address: 127.0.0.2}]`,
	"listeners[].certificates": `listeners: [{}, {certificates: [main, other, strict]}]`,
	"listeners[].client_auth": `listeners: [{}, {client_auth: [{hosts: [strict.example.com],` +
		` ca_certificate: ca, certificates: [strict]}, {hosts: [b.example.com], ca_certificate: ca}]}]`,
	"listeners[].client_auth[].hosts": `listeners: [{}, {client_auth: [{hosts: [strict.example.com,` +
		` b.example.com], ca_certificate: ca, certificates: [strict]}]}]`,
	"listeners[].client_auth[].ca_certificate": `listeners: [{}, {client_auth: [{hosts: [strict.example.com],` +
		` ca_certificate: other-ca, certificates: [strict]}]}]`,
	"listeners[].client_auth[].certificates": `listeners: [{}, {client_auth: [{hosts: [strict.example.com],` +
		` ca_certificate: ca, certificates: [other]}]}]`,
	"api_keys[].name":                    `api_keys: [{name: b, sha256: ""}]`,
	"api_keys[].key":                     `api_keys: [{name: a, key: "a new key of an Envoy"}]`,
	"api_keys[].sha256":                  `api_keys: [{name: a, sha256: "` + strings.Repeat("0", 64) + `"}]`,
	"limits.max_connections":             `limits: {max_connections: 6}`,
	"limits.max_request_headers_kb":      `limits: {max_request_headers_kb: 60}`,
	"limits.max_request_headers":         `limits: {max_request_headers: 60}`,
	"limits.idle_timeout":                `limits: {idle_timeout: 60s}`,
	"limits.request_headers_timeout":     `limits: {request_headers_timeout: 60s}`,
	"limits.request_timeout":             `limits: {request_timeout: 60s}`,
	"limits.max_connections_per_address": `limits: {max_connections_per_address: 6}`,
	"limits.local_rate_limit.requests":   `limits: {local_rate_limit: {requests: 6}}`,
	"limits.local_rate_limit.per":        `limits: {local_rate_limit: {per: 6s}}`,
	"limits.local_rate_limit.burst":      `limits: {local_rate_limit: {burst: 6}}`,
	"access_log.fields":                  `access_log: {fields: {a: c}}`,
	"access_log.min_status":              `access_log: {min_status: 400}`,
	"access_log.stdout.percent":          `access_log: {stdout: {percent: 0.5}}`,
	"access_log.file.percent":            `access_log: {file: {percent: 0.5}}`,
	"access_log.otlp.percent":            `access_log: {otlp: {percent: 0.5}}`,
	"access_log.otlp.service":            `access_log: {otlp: {service: other}}`,
	"access_log.grpc.percent":            `access_log: {grpc: {percent: 0.5}}`,
	"access_log.grpc.service":            `access_log: {grpc: {service: other}}`,
	"tracing.service":                    `tracing: {service: other}`,
	"tracing.percent":                    `tracing: {percent: 6}`,
	"auth_policy":                        `auth_policy: admins`,
	"license":                            `license: other`,
	"certificate_issuer":                 `certificate_issuer: other`,
	"metrics":                            `metrics: false`,
	"metrics_engine":                     `metrics_engine: wasm`,
	"drain_time":                         `drain_time: 60s`,
}

// leaves lists the fields of a message, and in the place of those that are messages of ours their fields. A list of
// messages is a field itself, too, where entries may come and go by a change that drains something else.
func leaves(d protoreflect.MessageDescriptor, prefix string) (out []string) {
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		path := prefix + string(f.Name())
		if f.Kind() != protoreflect.MessageKind || f.IsMap() || !strings.HasPrefix(string(f.Message().FullName()),
			"marchproxy.") {
			out = append(out, path)
			continue
		}
		if f.IsList() {
			if path == "listeners[].client_auth" {
				out = append(out, path)
			}
			path += "[]"
		}
		out = append(out, leaves(f.Message(), path+".")...)
	}
	return out
}

func parsed(t *testing.T, docs ...string) *resource.Object {
	t.Helper()
	var spec any
	for _, doc := range docs {
		var next any
		if err := yaml.Unmarshal([]byte(doc), &next); err != nil {
			t.Fatal(err)
		}
		spec = over(spec, next)
	}
	raw, err := yaml.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = yaml.YAMLToJSON(raw); err != nil {
		t.Fatal(err)
	}
	k, _ := resource.KindByName(resource.KindGateway)
	m, v := resource.DecodeSpec(k, raw)
	if len(v) > 0 {
		t.Fatal(v)
	}
	o, err := resource.New(resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway}, m)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// over puts one value over another: objects field by field, listeners one by one.
func over(a, b any) any {
	switch b := b.(type) {
	case map[string]any:
		out := map[string]any{}
		if a, ok := a.(map[string]any); ok {
			maps.Copy(out, a)
		}
		for k, v := range b {
			if k == "fields" || k == "client_auth" || k == "api_keys" {
				out[k] = v
			} else {
				out[k] = over(out[k], v)
			}
		}
		return out
	case []any:
		a, ok := a.([]any)
		if !ok || len(a) != len(b) {
			return b
		}
		if _, objects := b[0].(map[string]any); !objects {
			return b
		}
		out := make([]any, len(b))
		for i := range b {
			out[i] = over(a[i], b[i])
		}
		return out
	}
	return b
}

func drainsOf(t *testing.T, was, now *resource.Object) []translate.Drain {
	t.Helper()
	st := config.New()
	st.Apply([]*resource.Object{was})
	before := translate.Before(st, []*resource.Object{now})
	changes, _ := st.Apply([]*resource.Object{now})
	return before.Drains(st, changes)
}

// inWords says what drains as the documentation does.
func inWords(drains []translate.Drain) string {
	switch {
	case len(drains) == 0:
		return "nothing"
	case len(drains) == 2 && drains[0].Chains == nil && drains[1].Chains == nil:
		return "every listener"
	case len(drains) == 1 && drains[0].Chains == nil:
		return "the listener"
	}
	var parts []string
	for _, d := range drains {
		for _, c := range d.Chains {
			if strings.HasPrefix(c, "client-auth/") {
				c = "the entry"
			}
			parts = append(parts, c)
		}
	}
	return strings.Join(parts, ", ")
}

// TestDrainsAsDocumented: for every field of a Gateway, found in the schema, what a change of it drains is what the
// table in docs/drains.md says, and the field is named as the cause.
func TestDrainsAsDocumented(t *testing.T) {
	file, err := os.Open(filepath.Join("..", "..", "docs", "drains.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // read only
	documented := map[string]string{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		cells := strings.Split(lines.Text(), "|")
		if len(cells) < 4 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			continue
		}
		for name := range strings.SplitSeq(cells[1], ",") {
			documented[strings.Trim(name, " `")] = strings.TrimSpace(cells[2])
		}
	}
	fields := leaves((&configv1.Gateway{}).ProtoReflect().Descriptor(), "")
	was := parsed(t, whole)
	for _, f := range fields {
		other, ok := others[f]
		if !ok {
			t.Errorf("%s: what does a change of it drain? Give it another value here, and a row in docs/drains.md", f)
			continue
		}
		drains := drainsOf(t, was, parsed(t, whole, other))
		if got := inWords(drains); got != documented[f] {
			t.Errorf("%s: a change drains %s; docs/drains.md says %q", f, got, documented[f])
		}
		for _, d := range drains {
			if f == "listeners[].name" {
				continue // of the listener that is gone nothing is left to point at
			}
			cause := strings.ReplaceAll(strings.ReplaceAll(f, "listeners[]", fmt.Sprintf("listeners[%d]", index(d.Listener))),
				"[].", ".")
			if len(d.Fields) == 0 || !strings.HasPrefix("$."+cause, d.Fields[0]) {
				t.Errorf("%s: a change of it drains because of %v", f, d.Fields)
			}
		}
		delete(documented, f)
	}
	for f := range others {
		if !slices.Contains(fields, f) {
			t.Errorf("%s is in the test and not in the schema", f)
		}
	}
	for _, f := range slices.Sorted(maps.Keys(documented)) {
		if !strings.HasSuffix(f, "(on or off)") {
			t.Errorf("%s is in docs/drains.md and not in the schema", f)
		}
	}
	// What comes and goes as a whole, where no other field of it drains by itself.
	for name, without := range map[string]func(*configv1.Gateway){
		"access_log":              func(g *configv1.Gateway) { g.AccessLog = nil },
		"access_log.stdout":       func(g *configv1.Gateway) { g.AccessLog.Stdout = nil },
		"access_log.file":         func(g *configv1.Gateway) { g.AccessLog.File = nil },
		"access_log.otlp":         func(g *configv1.Gateway) { g.AccessLog.Otlp = nil },
		"access_log.grpc":         func(g *configv1.Gateway) { g.AccessLog.Grpc = nil },
		"tracing":                 func(g *configv1.Gateway) { g.Tracing = nil },
		"limits.local_rate_limit": func(g *configv1.Gateway) { g.Limits.LocalRateLimit = nil },
	} {
		was := parsed(t, whole, `access_log: {fields: {}}`)
		g := proto.CloneOf(was.Message().(*configv1.Gateway))
		without(g)
		now, err := resource.New(was.Ref(), g)
		if err != nil {
			t.Fatal(err)
		}
		name += " (on or off)"
		if got := inWords(drainsOf(t, was, now)); got != documented[name] {
			t.Errorf("%s: a change drains %s; docs/drains.md says %q", name, got, documented[name])
		}
	}
	if got := inWords(drainsOf(t, was, resource.Tombstone(was.Ref(), 1))); got != "every listener" {
		t.Errorf("a gateway that is deleted drains %s", got)
	}
}

func index(listener string) int {
	if listener == "plain" {
		return 0
	}
	return 1
}

// TestPlainListener: an Envoy that does not follow the gateway's runtime has the values in its listeners, and nothing
// there where nothing is on.
func TestPlainListener(t *testing.T) {
	key := translate.Key{Type: translate.TypeListener, Name: "plain"}
	for _, c := range []struct{ spec, holds, lacks string }{
		{`{listeners: [{name: plain, port: 10000}]}`, "", "access_loggers.stdout"},
		{`{listeners: [{name: plain, port: 10000}], access_log: {}}`, "access_loggers.stdout", "runtime_filter"},
		{`{listeners: [{name: plain, port: 10000}], access_log: {min_status: 404}}`, `default_value: 404`, "runtime_filter"},
		{
			`{listeners: [{name: plain, port: 10000}], access_log: {stdout: {percent: 0}}}`, "filter_chains",
			"access_loggers.stdout",
		},
		{
			`{listeners: [{name: plain, port: 10000}], access_log: {stdout: {percent: 2.5}}}`, "numerator: 25000",
			"access_loggers.http_grpc",
		},
		{
			`{listeners: [{name: plain, port: 10000}], access_log: {otlp: {service: a}, file: {}}}`,
			"cluster_name: access-log/otlp", "access_loggers.file",
		},
		{
			`{listeners: [{name: plain, port: 10000}], access_log: {grpc: {service: a, percent: 5}, min_status: 404}}`,
			"numerator: 50000", "access_loggers.open_telemetry",
		},
		{
			`{listeners: [{name: plain, port: 10000}], tracing: {service: collector, percent: 7}}`, "value: 7",
			"access_loggers.stdout",
		},
	} {
		st := config.New()
		st.Apply([]*resource.Object{parsed(t, c.spec)})
		b := translate.NewBuilder(resource.DefaultGateway, translate.Options{Resolve: resolve})
		b.Rebuild(st)
		r := b.Get(key)
		if r.Anywhere() != r.Plain || !r.Is(r.Plain.Version) {
			t.Fatalf("%s: the plain form is not for Envoys of which nothing is known", c.spec)
		}
		raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(r.Plain.Body)
		if err != nil {
			t.Fatal(err)
		}
		text, err := yaml.JSONToYAML(raw)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), c.holds) || strings.Contains(string(text), c.lacks) {
			t.Errorf("%s: want %q and not %q in\n%s", c.spec, c.holds, c.lacks, text)
		}
	}
}
