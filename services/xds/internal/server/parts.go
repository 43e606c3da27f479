package server

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/marchproxy/marchproxy/pkg/guard"
	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/rpc"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/pkg/tracing"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"
	"github.com/marchproxy/marchproxy/services/xds/internal/fleet"
)

// client is the façade's way to the api.
type client struct {
	nc       *nats.Conn
	box      *seal.Box
	attempts *guard.Attempts
	proven   func(remote string)
}

// Apply hands a document over.
func (c client) Apply(
	ctx context.Context, body []byte, authorization, remote string, wait time.Duration,
) (int, []byte, error) {
	r, err := rpc.Apply(ctx, c.nc, c.box, rpc.Request{
		Body: body, Authorization: authorization, Remote: remote, Wait: wait,
		Traceparent: tracing.Traceparent(tracing.Of(ctx)),
	})
	return r.Status, r.Body, err
}

// view is what the façade asks of the fleet.
type view struct{ f *fleet.Fleet }

// Head is the revision served, and the one that every Envoy serves.
func (v view) Head() (revision, live int64, ok bool) {
	c, ok := v.f.Head()
	return c.Revision, min(c.Revision, v.f.Live()), ok
}

// Proxies counts the connected Envoys.
func (v view) Proxies() int { return v.f.Proxies() }

// registry are the server's metrics.
func registry(
	f *fleet.Fleet, k *keeper, tried *guard.Attempts, id *identity.Identity, nc *nats.Conn,
) *prometheus.Registry {
	r := prometheus.NewRegistry()
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "marchproxy", Subsystem: "xds", Name: name,
			Help: help,
		}, value))
	}
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	count := func(name, help string, value func() int64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "marchproxy", Subsystem: "xds",
			Name: name, Help: help,
		},
			func() float64 { return float64(value()) }))
	}
	count("refused_credentials_total", "Keys and tokens that were wrong or missing.", tried.Wrong)
	count("slowed_credentials_total", "Keys and tokens that were not looked at, because too many wrong ones had come "+
		"from their address.", tried.Slowed)
	count("place_orders_total", "Changes of the order of a service's places by what Envoys have measured.", f.Orders)
	gauge("revision", "The revision served.", func() float64 { c, _ := f.Head(); return float64(c.Revision) })
	gauge("proxies", "Connected Envoys.", func() float64 { return float64(f.Proxies()) })
	gauge("rejected_resources", "Resources that an Envoy refused.", func() float64 { return float64(len(f.Rejected())) })
	gauge("unresolved_names", "Names of services' endpoints whose last lookup brought no addresses.", func() float64 {
		return float64(len(f.Names(time.Time{}).Names))
	})
	gauge("live_revision", "The revision that every connected Envoy serves.", func() float64 { return float64(f.Live()) })
	flag := func(name, help string, value func() bool) {
		gauge(name, help, func() float64 {
			if value() {
				return 1
			}
			return 0
		})
	}
	flag("unsaved", "1 while the last good state cannot be written to disk; the status report says why.",
		func() bool { return k.Unsaved() != "" })
	flag("hash_mismatch", "1 while what was read of the event stream has not its commit's hash, and is not served.",
		k.mismatch.Load)
	flag("nats_connected", "1 while the server is connected to NATS.", nc.IsConnected)
	gauge("identity_expiry_timestamp_seconds", "When the server's own certificate ends, in seconds since 1970; +Inf "+
		"without one.", id.Expiry)
	gauge("lagging_proxies", "Connected Envoys that have lacked something for more than five seconds.", func() float64 {
		_, n := f.Lagging()
		return float64(n)
	})
	r.MustRegister(lags{f})
	gauge("unread", "What the server has still to read of the configuration's stream, or to take over, where it has "+
		"been behind for five seconds.", func() float64 {
		if b := k.Behind(); b != nil {
			return float64(max(1, b.Total-b.Done))
		}
		return 0
	})
	return r
}

// lags are the ages of what Envoys lack that lag for long: of the worst ones only, so that there are no more series
// than anybody looks at, however many Envoys there are.
type lags struct{ f *fleet.Fleet }

var descLag = prometheus.NewDesc("marchproxy_xds_proxy_lag_seconds",
	"For how long an Envoy has lacked something, where that is more than five seconds; at most twenty of them.",
	[]string{"proxy", "gateway", "address"}, nil)

// Describe implements prometheus.Collector.
func (l lags) Describe(ch chan<- *prometheus.Desc) { ch <- descLag }

// Collect implements prometheus.Collector.
func (l lags) Collect(ch chan<- prometheus.Metric) {
	worst, _ := l.f.Lagging()
	for _, x := range worst {
		since, err := time.Parse(time.RFC3339, x.Since)
		if age := time.Since(since); err == nil && age > status.Long {
			ch <- prometheus.MustNewConstMetric(descLag, prometheus.GaugeValue, age.Seconds(), x.ID, x.Gateway, x.Address)
		}
	}
}

// dumped is one resource in GET /v1/resources: what doctor compares with Envoy's own dump.
type dumped struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version"`
	// Plain is the version of its form for Envoys without the gateway's runtime; empty where there is no other.
	Plain string `json:"plain,omitempty"`
}

// dump lists what a gateway is served: names and versions, no content, no secrets.
func dump(w http.ResponseWriter, r *http.Request, f *fleet.Fleet) {
	name := r.URL.Query().Get("gateway")
	if name == "" {
		name = "default"
	}
	g, _ := f.Gateway(name)
	if g == nil {
		http.Error(w, "no such gateway", http.StatusNotFound)
		return
	}
	c, _ := f.Head()
	out := struct {
		Gateway   string                    `json:"gateway"`
		Epoch     string                    `json:"epoch"`
		Revision  int64                     `json:"revision"`
		State     map[string]map[string]any `json:"state"`
		Resources []dumped                  `json:"resources"`
	}{Gateway: name, Epoch: c.Epoch, Revision: c.Revision, State: map[string]map[string]any{}}
	for kind, s := range f.Summary() {
		out.State[kind] = map[string]any{"count": s.Count, "hash": s.Hash}
	}
	for _, x := range g.Resources() {
		d := dumped{Type: strings.ToLower(ads.ShortType(x.Type)), Name: x.Name, Version: x.Version}
		if x.Plain != nil {
			d.Plain = x.Plain.Version
		}
		out.Resources = append(out.Resources, d)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // the client is gone: nobody is left to tell
}
