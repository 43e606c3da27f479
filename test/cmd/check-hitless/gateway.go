package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/test/authority"
	"github.com/marchproxy/marchproxy/test/harness"
)

type object = map[string]any

// gateway is the gateway under its changes.
type gateway struct {
	s             *harness.System
	http, https   int // ports
	second        int // of a listener that comes and goes; 0 while it is away
	apiKeys       any
	certificates  []string
	strict        []string // hosts that demand a client certificate
	limits        object
	accessLog     object
	tracing       object
	authority     *authority.Authority
	named, silent int // changes whose answer named what drains, and others
}

func (g *gateway) spec() object {
	auth := []any{}
	for _, h := range g.strict {
		auth = append(auth, object{"hosts": []string{h}, "ca_certificate": "ca"})
	}
	listeners := []any{
		object{"name": "http", "port": g.http},
		object{"name": "https", "port": g.https, "protocol": "https", "certificates": g.certificates, "client_auth": auth},
	}
	if g.second > 0 {
		listeners = append(listeners, object{"name": "second", "port": g.second})
	}
	spec := object{"listeners": listeners, "api_keys": g.apiKeys, "drain_time": "7200s"}
	for name, part := range map[string]object{"limits": g.limits, "access_log": g.accessLog, "tracing": g.tracing} {
		if part != nil {
			spec[name] = part
		}
	}
	return spec
}

// drains lists the fields of an answer's warnings about what drains.
func drains(raw []byte) []string {
	var answer struct {
		Warnings []struct{ Rule, Path string }
	}
	if json.Unmarshal(raw, &answer) != nil {
		return []string{"(not JSON)"}
	}
	var out []string
	for _, w := range answer.Warnings {
		if w.Rule == "gateway.drains" {
			out = append(out, w.Path)
		}
	}
	slices.Sort(out)
	return out
}

// put writes the gateway, with certificates that go with it, after a dry run: the answer must name what the dry run
// has named beforehand.
func (g *gateway) put(ctx context.Context, more ...any) ([]string, error) {
	doc := object{"resources": append(more, object{"kind": "Gateway", "name": "default", "spec": g.spec()})}
	var said [2][]string
	for i, query := range []string{"?dry_run=true", "?wait=live"} {
		status, raw, err := g.s.Call(ctx, http.MethodPost, g.s.API+"/v1/apply"+query, doc)
		if err != nil {
			return nil, err
		}
		if status != http.StatusOK {
			return nil, fmt.Errorf("apply%s: %d %s", query, status, raw)
		}
		said[i] = drains(raw)
	}
	if !slices.Equal(said[0], said[1]) {
		return nil, fmt.Errorf("the dry run named %v, the answer %v", said[0], said[1])
	}
	if len(said[1]) > 0 {
		g.named++
	} else {
		g.silent++
	}
	return said[1], nil
}

// step is one kind of change, of which many are made.
type step struct {
	name string
	// drains says whether its changes may drain connections that are open.
	drains bool
	change func(k int) (more []any, err error)
}

// steps are all kinds; of certificates each is added, rotated and removed.
func (g *gateway) steps() []step {
	name := func(k int) string { return fmt.Sprintf("more-%d", k) }
	// Every second one names the gateway, the others are listed by it.
	named := func(k int) bool { return k%2 == 0 }
	certificate := func(k int) ([]any, error) {
		c, err := certificate(g.authority, name(k), fmt.Sprintf("host%d.example.net", k))
		if err == nil && named(k) {
			c["spec"].(object)["gateways"] = []string{"default"}
		}
		return []any{c}, err
	}
	return []step{
		{name: "certificates added", change: func(k int) ([]any, error) {
			if !named(k) {
				g.certificates = append(g.certificates, name(k))
			}
			return certificate(k)
		}},
		{name: "certificates rotated", change: certificate},
		{name: "certificates removed", change: func(k int) ([]any, error) {
			if named(k) {
				c, err := certificate(k)
				if err == nil {
					delete(c[0].(object)["spec"].(object), "gateways")
				}
				return c, err
			}
			g.certificates = slices.DeleteFunc(g.certificates, func(c string) bool { return c == name(k) })
			return nil, nil
		}},
		{name: "access log", change: func(k int) ([]any, error) {
			g.accessLog = []object{{}, {"min_status": 400 + k}, nil}[k%3]
			return nil, nil
		}},
		{name: "sinks of the access log", change: func(k int) ([]any, error) {
			at := object{"service": fmt.Sprintf("logs-%d", k/4%2)}
			g.accessLog = []object{
				{"stdout": object{"percent": 0}, "file": object{}},
				{"stdout": object{"percent": 1}, "otlp": at},
				{"stdout": object{"percent": 0}, "otlp": at, "grpc": at, "file": object{"percent": 10}},
				{"min_status": 500, "grpc": at},
				nil,
			}[k%5]
			return nil, nil
		}},
		{name: "limits", change: func(k int) ([]any, error) {
			g.limits = []object{
				{"max_connections": 10000 + k},
				{"local_rate_limit": object{"requests": 100000 + k}},
				{"max_connections": 20000, "local_rate_limit": object{"requests": 200000, "per": "2s"}},
				nil,
			}[k%4]
			return nil, nil
		}},
		{name: "client_auth", change: func(k int) ([]any, error) {
			const exact, below = "strict.example.com", "*.strict.example.com"
			g.strict = [][]string{{exact}, {exact, below}, {below}, nil}[k%4]
			return nil, nil
		}},
		{name: "tracing", drains: true, change: func(k int) ([]any, error) {
			g.tracing = []object{{"service": "collector", "percent": k % 2}, {"service": "collector", "percent": 0.5}, nil}[k%3]
			return nil, nil
		}},
		{name: "limits of headers and times", drains: true, change: func(k int) ([]any, error) {
			g.limits = object{"idle_timeout": fmt.Sprintf("%ds", 1800+k), "max_request_headers_kb": 60 + k%2}
			return nil, nil
		}},
		{name: "fields of the access log", drains: true, change: func(k int) ([]any, error) {
			g.accessLog = object{"min_status": 599, "fields": object{"round": fmt.Sprint(k)}}
			return nil, nil
		}},
	}
}

// vary makes all changes, and checks after each kind what became of the connections that are open.
func (g *gateway) vary(ctx context.Context, l *lasting, certificates, changes int) error {
	for _, st := range g.steps() {
		n, t0 := changes, time.Now()
		if strings.HasPrefix(st.name, "certificates") {
			n = certificates
		}
		g.named, g.silent = 0, 0
		replaced := l.replaced.Load()
		before, err := g.draining(ctx)
		if err != nil {
			return err
		}
		because := map[string]int{}
		for k := range n {
			more, err := st.change(k)
			var fields []string
			if err == nil {
				fields, err = g.put(ctx, more...)
			}
			if err != nil {
				return fmt.Errorf("%s, change %d: %w", st.name, k, err)
			}
			for _, f := range fields {
				because[f]++
			}
		}
		after, err := g.draining(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %d changes in %v, %d of them named as draining (%v); ",
			st.name, n, time.Since(t0).Round(time.Millisecond), g.named, slices.Sorted(maps.Keys(because)))
		fmt.Printf("%d filter chains drain more than before, %d HTTP/2 connections were replaced\n", after-before,
			l.replaced.Load()-replaced)
		if !st.drains && g.named > 0 && !onlyEntries(because) {
			return fmt.Errorf("%s: %d changes drain connections: %v", st.name, g.named, because)
		}
		if g.named == 0 && after > before {
			return fmt.Errorf("%s: %d filter chains drain, which nobody named", st.name, after-before)
		}
	}
	return nil
}

// draining counts Envoy's filter chains that drain.
func (g *gateway) draining(ctx context.Context) (int, error) {
	_, raw, err := g.s.Call(ctx, http.MethodGet, g.s.Admin+"/stats?filter=^listener_manager.total_filter_chains_draining$",
		nil)
	if err != nil {
		return 0, err
	}
	_, value, _ := strings.Cut(strings.TrimSpace(string(raw)), ": ")
	return strconv.Atoi(value)
}

// onlyEntries says whether nothing drains but the connections of an entry of client_auth that is taken away.
func onlyEntries(because map[string]int) bool {
	for f := range because {
		if !strings.HasSuffix(f, ".client_auth") {
			return false
		}
	}
	return true
}
