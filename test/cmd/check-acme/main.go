// Command check-acme proves that certificates come and are renewed by themselves without anybody noticing: hosts whose
// routes say tls: auto, several Envoys, two apis, and a real authority (Pebble), which refuses some requests for their
// nonce as it does. Under load all are issued and then renewed, while an api is killed in the middle of its orders. No
// request may fail, no connection may be ended, no listener may drain, and no certificate may be ordered twice.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/pebble"
)

type options struct{ names, envoys, rate, kept int }

func main() {
	o := options{}
	flag.IntVar(&o.names, "names", 200, "hosts that ask for a certificate")
	flag.IntVar(&o.envoys, "envoys", 3, "Envoys on the same ports")
	flag.IntVar(&o.rate, "rate", 200, "requests a second, half of them over TLS as soon as there are certificates")
	flag.IntVar(&o.kept, "kept", 30, "connections of each kind that stay open")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "check-acme:", err)
		os.Exit(1)
	}
}

type object = map[string]any

// check is a run.
type check struct {
	options
	s      *harness.System
	ca     *pebble.Pebble
	roots  *x509.CertPool
	admins []string
	https  string

	mu    sync.Mutex
	ready []string // hosts whose certificate every Envoy has
	bad   []string // examples of what went wrong

	sent, sentTLS, failed, lost atomic.Int64
}

func host(i int) string { return fmt.Sprintf("site%d.example.com", i) }

func (c *check) wrong(count *atomic.Int64, format string, args ...any) {
	count.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.bad) < 20 {
		c.bad = append(c.bad, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

func run(ctx context.Context, o options) (err error) {
	s, err := harness.Start(ctx, "--no-demo", "--concurrency", "1")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ca, err := pebble.Start(ctx, pebble.Options{HTTPPort: s.ProxyPort, NonceReject: 5})
	if err != nil {
		return err
	}
	defer ca.Close()
	ports, err := porttest.Take(1)
	if err != nil {
		return err
	}
	c := &check{
		options: o, s: s, ca: ca, admins: []string{s.Admin},
		https: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])),
	}
	for i := range o.envoys - 1 {
		e, err := s.StartEnvoy(ctx, fmt.Sprintf("envoy-%d", i+2), s.GRPC)
		if err != nil {
			return err
		}
		defer e.Close()
		c.admins = append(c.admins, e.Admin)
	}
	second, err := s.StartAPI(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, second.Stop()) }()
	if c.roots, err = ca.Roots(ctx); err != nil {
		return err
	}
	if err := c.configure(ctx, ports[0]); err != nil {
		return err
	}
	return c.prove(ctx)
}

// configure writes everything but the routes that ask for certificates; a listener for TLS is open already, with a
// certificate that is none of theirs, so that none that comes changes it.
func (c *check) configure(ctx context.Context, port int) error {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok")
	}))
	_, backendPort, err := net.SplitHostPort(strings.TrimPrefix(backend.URL, "http://"))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(backendPort)
	if err != nil {
		return err
	}
	if err := harness.Await(ctx, func() bool {
		var status api.Status
		return c.get(ctx, "/v1/status", &status) == nil && int(status.Proxies) == c.envoys
	}); err != nil {
		return fmt.Errorf("the Envoys are not there: %w", err)
	}
	if err := c.call(ctx, http.MethodPut, "/v1/certificate-issuers/own", object{"spec": object{
		"directory": c.ca.Directory, "terms_agreed": true, "trusted_ca": c.ca.CA,
		"order_limit": object{"orders": 10 * c.names},
	}}); err != nil {
		return err
	}
	if err := c.call(ctx, http.MethodPatch, "/v1/gateways/default?wait=live", object{"spec": object{
		"certificate_issuer": "own",
		"listeners": []any{
			object{"name": "http", "port": c.s.ProxyPort}, object{"name": "https", "port": port, "protocol": "https"},
		},
	}}); err != nil {
		return err
	}
	resources := []any{
		object{"kind": "Service", "name": "web", "spec": object{"endpoints": []any{object{"host": "127.0.0.1", "port": n}}}},
		object{"kind": "Certificate", "name": "first", "spec": object{
			"issuer": "own", "names": []string{"first.example.com"}, "gateways": []string{"default"},
		}},
	}
	for i := range c.names {
		resources = append(resources, object{"kind": "Route", "name": fmt.Sprintf("site%d", i), "spec": object{
			"hosts": []string{host(i)}, "backends": []any{object{"service": "web"}},
		}})
	}
	if err := c.call(ctx, http.MethodPost, "/v1/apply?wait=live&timeout=60s", object{"resources": resources}); err != nil {
		return err
	}
	return harness.Await(ctx, func() bool {
		all, err := c.certificates(ctx)
		return err == nil && all["first"].issued != ""
	})
}

// prove has certificates issued and renewed under load.
func (c *check) prove(ctx context.Context) error {
	before, err := c.drains(ctx)
	if err != nil {
		return err
	}
	head, err := c.head(ctx)
	if err != nil {
		return err
	}
	load, stop := context.WithCancel(ctx)
	defer stop()
	var busy sync.WaitGroup
	c.load(load, &busy)
	c.keep(load, &busy, "http://"+c.s.Proxy, 0)

	orders := c.ca.Requests("Added order ")
	asked := time.Now()
	var resources []any
	for i := range c.names {
		resources = append(resources, object{"kind": "Route", "name": fmt.Sprintf("site%d", i), "spec": object{
			"hosts": []string{host(i)}, "tls": "auto", "backends": []any{object{"service": "web"}},
		}})
	}
	if err := c.call(ctx, http.MethodPost, "/v1/apply", object{"resources": resources}); err != nil {
		return err
	}
	if err := c.await(ctx, nil, nil); err != nil {
		return err
	}
	issued := time.Since(asked)
	fmt.Printf("issued %d names on %d Envoys in %.1f s\n", c.names, c.envoys, issued.Seconds())
	first, err := c.certificates(ctx)
	if err != nil {
		return err
	}
	c.keep(load, &busy, "https://"+c.https, rand.IntN(c.names))

	asked = time.Now()
	var resumed []string
	killed := false
	for name := range first {
		if name != "first" {
			if err := c.call(ctx, http.MethodPost, "/v1/certificates/"+name+"/renew", nil); err != nil {
				return err
			}
		}
	}
	if err := c.await(ctx, first, func(done int, now map[string]certificate) {
		if killed || done < c.names/4 {
			return
		}
		killed = true
		for name, x := range now {
			if x.step != "issued" && x.step != "waiting" {
				resumed = append(resumed, name)
			}
		}
		c.s.Kill("api")
	}); err != nil {
		return err
	}
	renewed := time.Since(asked)
	fmt.Printf("renewed %d names in %.1f s; an api was killed when %d orders were under way\n", c.names, renewed.Seconds(),
		len(resumed))
	// What a late change would do is seen, and a fast machine has sent as many requests as a slow one.
	late := time.Now().Add(2 * time.Second)
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	_ = harness.Await(limit, func() bool { return time.Now().After(late) && c.enough() }) // judge says what is missing
	cancel()
	stop()
	busy.Wait()
	return c.judge(ctx, before, head, c.ca.Requests("Added order ")-orders, killed, len(resumed))
}

// enough says whether so many requests were sent that what fails would have been seen.
func (c *check) enough() bool { return c.sent.Load() >= 1000 && c.sentTLS.Load() >= 100 }

// judge says what came of it.
func (c *check) judge(ctx context.Context, before map[string]int, head int64, orders int, killed bool, underWay int) error {
	after, err := c.drains(ctx)
	if err != nil {
		return err
	}
	now, err := c.head(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%d requests, %d of them over TLS with a new connection: %d failed; %d connections were lost; %d orders for %d "+
		"certificates; %d revisions\n", c.sent.Load(), c.sentTLS.Load(), c.failed.Load(), c.lost.Load(), orders, 2*c.names,
		now-head)
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.failed.Load() > 0 || c.lost.Load() > 0 {
		fail("requests failed or connections were lost:\n%s", strings.Join(c.bad, "\n"))
	}
	if !c.enough() {
		fail("only %d requests were sent, %d over TLS", c.sent.Load(), c.sentTLS.Load())
	}
	if !maps.Equal(before, after) {
		fail("listeners were changed or drained: %v, before %v", after, before)
	}
	if !killed || underWay == 0 {
		fail("no api was killed in the middle of an order")
	}
	// The authority may have taken an order of which the api that was killed had not heard yet.
	if orders < 2*c.names || orders > 2*c.names+1 {
		fail("%d orders were made for %d certificates", orders, 2*c.names)
	}
	return errors.Join(errs...)
}

// certificate is how far one is.
type certificate struct {
	step, issued, serial string
	host                 string
	live                 bool
}

func (c *check) certificates(ctx context.Context) (map[string]certificate, error) {
	out := map[string]certificate{}
	for cursor := ""; ; {
		var list api.ObjectList
		if err := c.get(ctx, "/v1/certificates?limit=1000&cursor="+cursor, &list); err != nil {
			return nil, err
		}
		for _, o := range list.Items {
			var spec struct {
				Names []string `json:"names"`
				Facts struct {
					Fingerprint string `json:"fingerprint"`
				} `json:"facts"`
			}
			if err := json.Unmarshal(o.Spec, &spec); err != nil {
				return nil, err
			}
			x := certificate{host: spec.Names[0], serial: spec.Facts.Fingerprint, live: o.Status.State == "live"}
			if i := o.Status.Issuance; i != nil {
				x.step, x.issued = i.Step, i.IssuedAt
				if i.Problem != "" {
					return nil, fmt.Errorf("%s: %s: %s", o.Name, i.Problem, i.Reason)
				}
			}
			out[o.Name] = x
		}
		if cursor = list.NextCursor; cursor == "" {
			return out, nil
		}
	}
}

// await waits until all certificates are issued that are not those of before, and live. Those that are get requests.
func (c *check) await(ctx context.Context, before map[string]certificate, look func(int, map[string]certificate)) error {
	limit, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	said := time.Now()
	for {
		now, err := c.certificates(limit)
		if err != nil && limit.Err() != nil {
			return err
		}
		var ready []string
		for name, x := range now {
			if x.issued != "" && x.live && x.serial != before[name].serial && name != "first" {
				ready = append(ready, x.host)
			}
		}
		if err == nil && len(before) == 0 {
			c.mu.Lock()
			c.ready = ready
			c.mu.Unlock()
		}
		if err == nil && look != nil {
			look(len(ready), now)
		}
		if len(ready) == c.names {
			return nil
		}
		if time.Since(said) > 5*time.Second {
			said = time.Now()
			fmt.Printf("%d of %d", len(ready), c.names)
			if err != nil { // one is enough for nothing to be known of the others
				fmt.Printf(": %v", err)
			}
			fmt.Println()
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-limit.Done():
			return fmt.Errorf("only %d of %d are issued after 10 minutes: %w", len(ready), c.names, err)
		}
	}
}

func (c *check) tls(name string) *tls.Config {
	return &tls.Config{RootCAs: c.roots, ServerName: name, MinVersion: tls.VersionTLS12}
}

// load sends requests: over plain connections that are used again, and over TLS on new ones, each of which gets the
// certificate of its host.
func (c *check) load(ctx context.Context, busy *sync.WaitGroup) {
	const workers = 8
	every := time.Duration(workers) * time.Second / time.Duration(c.rate)
	for range workers {
		plain := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
		busy.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if i%2 == 0 {
					c.ask(ctx, plain, "http://"+c.s.Proxy, host(rand.IntN(c.names)))
					c.sent.Add(1)
					continue
				}
				c.mu.Lock()
				ready := c.ready
				c.mu.Unlock()
				if len(ready) == 0 {
					continue
				}
				name := ready[rand.IntN(len(ready))]
				fresh := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
					DisableKeepAlives: true, TLSClientConfig: c.tls(name),
				}}
				c.ask(ctx, fresh, "https://"+c.https, name)
				c.sent.Add(1)
				c.sentTLS.Add(1)
			}
		})
	}
}

func (c *check) ask(ctx context.Context, client *http.Client, url, name string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/", nil)
	if err != nil {
		c.wrong(&c.failed, "%v", err)
		return
	}
	req.Host = name
	resp, err := client.Do(req)
	if ctx.Err() != nil {
		if err == nil {
			_ = resp.Body.Close()
		}
		return
	}
	if err != nil {
		c.wrong(&c.failed, "%s of %s: %v", url, name, err)
		return
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if ctx.Err() == nil && (err != nil || resp.StatusCode != http.StatusOK || string(body) != "ok") {
		c.wrong(&c.failed, "%s of %s: %s %q (%v)", url, name, resp.Status, body, err)
	}
}

// keep opens connections that must last, and uses each once a second.
func (c *check) keep(ctx context.Context, busy *sync.WaitGroup, url string, at int) {
	for range c.kept {
		name := host(at)
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			TLSClientConfig: c.tls(name), ForceAttemptHTTP2: true,
		}}
		busy.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				again := false
				traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(g httptrace.GotConnInfo) {
					again = g.Reused
				}})
				c.ask(traced, client, url, name)
				if i > 0 && !again && ctx.Err() == nil {
					c.wrong(&c.lost, "a connection to %s was ended after %d requests", url, i)
				}
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
			}
			client.CloseIdleConnections()
		})
	}
}

// drains is what the Envoys say of changed and drained listeners and of connections that they have asked to end.
func (c *check) drains(ctx context.Context) (map[string]int, error) {
	out := map[string]int{}
	for i, admin := range c.admins {
		status, raw, err := c.s.Call(ctx, http.MethodGet, admin+
			"/stats?filter=(listener_modified|listener_removed|filter_chains_draining|listeners_draining|cx_drain_close)$", nil)
		if err != nil || status != http.StatusOK {
			return nil, fmt.Errorf("statistics of Envoy %d: %d (%w)", i+1, status, err)
		}
		for line := range strings.Lines(string(raw)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			if n, err := strconv.Atoi(value); err == nil && !strings.HasPrefix(name, "http.admin.") {
				out[fmt.Sprintf("%d %s", i+1, name)] = n
			}
		}
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(out)), func(n string) bool { return strings.Contains(n, "listener_modified") }) {
		return nil, fmt.Errorf("the Envoys do not say what they drain: %v", out)
	}
	return out, nil
}

func (c *check) head(ctx context.Context) (int64, error) {
	var s api.Status
	err := c.get(ctx, "/v1/status", &s)
	return s.Revision, err
}

func (c *check) get(ctx context.Context, path string, into any) error {
	status, raw, err := c.s.Call(ctx, http.MethodGet, c.s.API+path, nil)
	if err == nil && status >= 300 {
		err = fmt.Errorf("GET %s: %d %s", path, status, raw)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

func (c *check) call(ctx context.Context, method, path string, body any) error {
	status, raw, err := c.s.Call(ctx, method, c.s.API+path, body)
	if err == nil && status >= 300 {
		err = fmt.Errorf("%s %s: %d %s", method, path, status, raw)
	}
	return err
}
