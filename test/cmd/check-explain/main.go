// Command check-explain holds what POST /v1/explain says against a real Envoy: it draws configurations, applies each to a
// real system, sends requests through its Envoy, and compares each answer with the explanation. One that the API refuses
// is drawn again. A difference is printed with the request; -seed and -configuration draw its configuration again.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/test/authority"
	"github.com/marchproxy/marchproxy/test/harness"
)

func main() {
	n := flag.Int("configurations", 200, "configurations")
	requests := flag.Int("requests", 100_000, "requests, over all of them")
	seed := flag.Uint64("seed", 1, "where they come from")
	only := flag.Int("configuration", -1, "only this one")
	flag.Parse()
	if err := run(context.Background(), *n, *requests, *seed, *only); err != nil {
		fmt.Fprintln(os.Stderr, "check-explain:", err)
		os.Exit(1)
	}
}

// workers ask at the same time.
const workers = 4

// tries is how often a configuration is drawn that is refused.
const tries = 50

// shown is how many differences are printed.
const shown = 20

type checker struct {
	*harness.System
	seed    uint64
	fixed   []*resource.Object
	gateway *configv1.Gateway
	apply   []map[string]any // of fixed
	ports   map[string]string
	roots   *x509.CertPool
	client  tls.Certificate

	mu       sync.Mutex
	refused  int
	reasons  map[string]int
	provided int
	wrong    int
	took     time.Duration // of the explanations
}

func run(ctx context.Context, n, requests int, seed uint64, only int) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := harness.Start(ctx, "--no-demo", "--concurrency", "1")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c := &checker{System: s, seed: seed, reasons: map[string]int{}}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	began := time.Now()
	said := began
	for i := range n {
		if only >= 0 && i != only {
			continue
		}
		if err := c.configuration(ctx, i, requests/n); err != nil {
			return fmt.Errorf("configuration %d: %w", i, err)
		}
		if time.Since(said) > 5*time.Second {
			said = time.Now()
			fmt.Printf("%d of %d configurations after %.0f s, %d differ\n", i+1, n, said.Sub(began).Seconds(), c.wrong)
		}
	}
	total := 0
	var why []string
	for reason, count := range c.reasons {
		total += count
		why = append(why, fmt.Sprintf("%6d %s", count, reason))
	}
	slices.SortFunc(why, func(a, b string) int { return strings.Compare(b, a) })
	fmt.Println(strings.Join(why, "\n"))
	fmt.Printf("%d configurations (%d drawn again), %d requests, seed %d: %d agree, of which %d depend on a token or "+
		"certificate that only Envoy judges; %d differ; %.1f ms an explanation, %.0f s\n", n, c.refused, total, seed,
		total-c.wrong, c.provided, c.wrong, c.took.Seconds()*1000/float64(max(total, 1)), time.Since(began).Seconds())
	if c.wrong > 0 {
		return errors.New("what was said is not what Envoy does")
	}
	return nil
}

// prepare makes what every configuration has: services, certificates, and the gateway's listeners.
func (c *checker) prepare(ctx context.Context) error {
	ports, err := porttest.Take(2)
	if err != nil {
		return err
	}
	a, err := authority.New("check-explain", 24*time.Hour)
	if err != nil {
		return err
	}
	c.roots = x509.NewCertPool()
	c.roots.AddCert(a.Cert)
	chain, key, err := a.Issue(authority.Server(24*time.Hour, "a.example.com", "*.example.com"))
	if err != nil {
		return err
	}
	own, ownKey, err := a.Issue(authority.Server(24*time.Hour, "client"))
	if err != nil {
		return err
	}
	if c.client, err = tls.X509KeyPair([]byte(own), []byte(ownKey)); err != nil {
		return err
	}
	c.ports = map[string]string{
		"http": strconv.Itoa(c.ProxyPort), "https": strconv.Itoa(ports[0]), "l3": strconv.Itoa(ports[1]),
	}
	c.gateway = &configv1.Gateway{Listeners: []*configv1.Listener{
		{Name: "http", Port: uint32(c.ProxyPort)},
		{Name: "l3", Port: uint32(ports[1])},
		{
			Name: "https", Port: uint32(ports[0]), Protocol: configv1.Listener_https, Certificates: []string{"site"},
			ClientAuth: []*configv1.ClientAuth{{
				Hosts: []string{"strict.example.com", "*.strict.example.com"}, CaCertificate: "authority",
			}},
		},
	}}
	add := func(kind, name string, spec any) error {
		raw, err := json.Marshal(spec)
		if err != nil {
			return err
		}
		k, _ := resource.KindByName(kind)
		m, v := resource.DecodeSpec(k, raw)
		if len(v) > 0 {
			return v
		}
		o, err := resource.New(resource.Ref{Kind: kind, Name: name}, m)
		if err != nil {
			return err
		}
		c.fixed = append(c.fixed, o)
		c.apply = append(c.apply, map[string]any{"kind": kind, "name": name, "spec": spec})
		return nil
	}
	errs := []error{
		add(resource.KindCertificate, "site", map[string]any{"chain": chain, "private_key": key}),
		add(resource.KindCertificate, "authority", map[string]any{"chain": a.PEM}),
	}
	for _, name := range []string{"web", "api", "s-3"} {
		port, err := backend(ctx, name)
		errs = append(errs, err, add(resource.KindService, name, map[string]any{
			"endpoints": []any{map[string]any{"host": "127.0.0.1", "port": port}},
		}))
	}
	return errors.Join(errs...)
}

// configuration draws and applies one, and asks.
func (c *checker) configuration(ctx context.Context, i, requests int) error {
	var conf *configuration
	for try := 0; conf == nil; try++ {
		if try == tries {
			return errors.New("every one that was drawn was refused")
		}
		drawn := draw(draws{rand.New(rand.NewPCG(c.seed, uint64(i)<<16|uint64(try)))}, c.fixed, c.gateway)
		body := slices.Clone(c.apply)
		for _, o := range drawn.objects {
			d, err := document(o)
			if err != nil {
				return err
			}
			body = append(body, d)
		}
		status, raw, err := c.Call(ctx, http.MethodPost, c.API+"/v1/apply?wait=live&timeout=60s&take_over=true", map[string]any{
			"owner": "check-explain", "prune": true, "resources": body,
		})
		var result struct{ Live api.Live }
		unread := json.Unmarshal(raw, &result)
		switch {
		case err != nil:
			return err
		case status == http.StatusUnprocessableEntity:
			c.refused++
			if c.refused <= 3 {
				fmt.Printf("configuration %d, drawn again: %.300s\n", i, raw)
			}
			continue
		case unread != nil || status >= 300 || !result.Live.Live:
			return fmt.Errorf("apply: %d %+v %.2000s", status, result.Live, raw)
		}
		conf = drawn
	}
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			d := draws{rand.New(rand.NewPCG(c.seed+uint64(w)<<32, uint64(i)))}
			x := newClient(c.ports, c.roots, c.client)
			defer x.close()
			for range requests / workers {
				if errs[w] = c.request(ctx, i, conf, x, conf.request(d)); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// request asks both.
func (c *checker) request(ctx context.Context, i int, conf *configuration, x *client, r api.ExplainRequest) error {
	from := time.Now()
	status, raw, err := c.Call(ctx, http.MethodPost, c.API+"/v1/explain", r)
	took := time.Since(from)
	if err != nil {
		return err
	}
	var e api.Explanation
	if err := json.Unmarshal(raw, &e); err != nil || status != http.StatusOK {
		return fmt.Errorf("explain: %d %s\n%q", status, raw, text(r))
	}
	got, err := x.ask(ctx, r)
	if err != nil {
		return fmt.Errorf("ask Envoy: %w\n%q\n%s", err, text(r), raw)
	}
	differs := compare(r, e, got)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.took += took
	c.reasons[e.Reason]++
	if byToken(e) {
		c.provided++
	}
	if differs == "" {
		return nil
	}
	if c.wrong++; c.wrong > shown {
		return nil
	}
	file := filepath.Join(os.TempDir(), fmt.Sprintf("check-explain-%d-%d.json", c.seed, i))
	var all []map[string]any
	for _, o := range conf.objects {
		d, err := document(o)
		if err != nil {
			return err
		}
		all = append(all, d)
	}
	if b, err := json.MarshalIndent(all, "", " "); err == nil {
		err = os.WriteFile(file, b, 0o600)
		if err != nil {
			return err
		}
	}
	fmt.Printf("configuration %d (%s), on %s: %s\n%q\nEnvoy: %d %v %.200q\nexplained: %s\n\n", i, file, r.Listener, differs,
		text(r), got.status, got.header, got.body, raw)
	return nil
}

// byToken says whether the outcome depends on a token that only Envoy judges.
func byToken(e api.Explanation) bool { return strings.Contains(e.Provided, "the token is good") }

// compare says how an answer differs from the explanation, "" where it does not.
func compare(r api.ExplainRequest, e api.Explanation, got answer) string {
	if byToken(e) && (strings.HasPrefix(got.body, `{"error":`) || r.Method == http.MethodHead) &&
		got.header.Get("Www-Authenticate") != "" && slices.Contains([]int{401, 403, 503}, got.status) {
		return ""
	}
	if byToken(e) && got.header.Get("Grpc-Status") != "" {
		return ""
	}
	limited := got.header.Get("X-Ratelimit-Limit") != ""
	if limited != (len(e.Limits) > 0) {
		return "whether it was counted"
	}
	if e.Route != "" && e.Outcome != "refused" && e.Reason != "preflight" && got.header.Get("X-Route") != e.Route {
		return "route"
	}
	if e.Outcome == "forwarded" {
		served := slices.IndexFunc(e.Services, func(s api.ExplainedService) bool { return s.Name == got.header.Get("X-Backend") })
		switch {
		case served < 0:
			return "service"
		case got.header.Get("X-Path") != e.Services[served].Path:
			return "path"
		case got.header.Get("X-Host") != e.Services[served].Host:
			return "host"
		}
		return ""
	}
	if int(e.Status) != got.status {
		return "status"
	}
	if e.GrpcStatus != 0 {
		if got.header.Get("Grpc-Status") != strconv.Itoa(int(e.GrpcStatus)) {
			return "gRPC status"
		}
		return ""
	}
	switch {
	case e.Location != got.header.Get("Location"):
		return "location"
	case r.Method == http.MethodHead:
		return ""
	case e.Body != "" && e.Body != got.body:
		return "body"
	}
	return ""
}
