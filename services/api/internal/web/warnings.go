package web

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// Limits of what is said about certificates, the first to end first: warnings in the status, and time series, of
// which each certificate makes one.
const (
	maxWarnings = 100
	maxSeries   = 1000
)

// warnings are about what a write accepts all the same: the changes, and what the writer has found beside them.
func (a *API) warnings(changes []config.Change, beside []config.Problem) []api.Warning {
	all := slices.Clone(beside)
	for _, x := range changes {
		if k := config.KindOf(x.Ref().Kind); k.Warn != nil {
			all = append(all, k.Warn(x, a.CertificateWarning)...)
		}
	}
	var out []api.Warning
	for _, p := range all {
		out = append(out, api.Warning{
			Kind: p.Object.Kind, Name: p.Object.Name, Path: p.Path, Message: p.Message, Rule: p.Rule,
		})
	}
	slices.SortFunc(out, func(x, y api.Warning) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Rule, y.Rule))
	})
	return out
}

// expiries are the dates of all certificates. They are read again where the database's have changed, those that
// have: a chain is some kilobytes, and the status is asked for often.
type expiries struct {
	mu    sync.Mutex
	epoch string
	state resource.KindState
	known map[string]expiry
}

type expiry struct {
	revision int64
	certificate.Dates
}

// of are the dates at the head, by name; callers must not change them.
func (e *expiries) of(ctx context.Context, st *store.Store, head store.Head) (map[string]expiry, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := head.State[resource.KindCertificate]; e.known != nil && e.epoch == head.Epoch && e.state == now {
		return e.known, nil
	}
	revisions, err := st.RevisionsOf(ctx, resource.KindCertificate)
	if err != nil {
		return nil, err
	}
	known := map[string]expiry{}
	var news []string
	for name, revision := range revisions {
		if k, ok := e.known[name]; ok && k.revision == revision && e.epoch == head.Epoch {
			known[name] = k
		} else {
			news = append(news, name)
		}
	}
	for some := range slices.Chunk(news, 500) {
		objects, err := st.Named(ctx, resource.KindCertificate, some)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			m := o.Message().(*configv1.Certificate)
			if chain, err := certificate.Chain(m.GetChain()); err == nil { // otherwise of a time when less was checked
				known[o.Name] = expiry{o.Revision, certificate.DatesOf(chain, m.GetPrivateKey() != "")}
			}
		}
	}
	e.known, e.epoch, e.state = known, head.Epoch, head.State[resource.KindCertificate]
	return known, nil
}

// firstToEnd are names of certificates, at most n.
func firstToEnd(of map[string]expiry, n int) []string {
	names := slices.SortedFunc(maps.Keys(of), func(x, y string) int {
		return cmp.Or(of[x].NotAfter.Compare(of[y].NotAfter), cmp.Compare(x, y))
	})
	return names[:min(len(names), n)]
}

// ending warns of the certificates that have ended or end soon.
func (a *API) ending(ctx context.Context, head store.Head) ([]api.Warning, error) {
	known, err := a.certificates.of(ctx, a.Store, head)
	if err != nil {
		return nil, err
	}
	var out []api.Warning
	now := time.Now()
	for _, name := range firstToEnd(known, len(known)) {
		if message := known[name].Warning(now, a.CertificateWarning); message != "" && len(out) < maxWarnings {
			out = append(out, api.Warning{
				Kind: resource.KindCertificate, Name: name, Path: "$.chain", Message: message,
				Rule: "certificate.dates",
			})
		}
	}
	return out, nil
}

// expiryMetric is a prometheus.Collector: until when each certificate serves. While the database does not answer
// there are none, so that an alert on their absence fires.
type expiryMetric struct{ *API }

var expiryDesc = prometheus.NewDesc("marchproxy_api_certificate_expiry_timestamp_seconds",
	"When a certificate ends, or the first of its chain, in seconds since 1970; the thousand that end first.",
	[]string{"certificate"}, nil)

// Describe names the metric.
func (expiryMetric) Describe(ch chan<- *prometheus.Desc) { ch <- expiryDesc }

// Collect reads the dates.
func (a expiryMetric) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	head, err := a.Store.Head(ctx)
	var known map[string]expiry
	if err == nil {
		known, err = a.certificates.of(ctx, a.Store, head)
	}
	if err != nil {
		a.Log.Warn("the certificates' dates cannot be read for /metrics", zap.Error(err))
		return
	}
	for _, name := range firstToEnd(known, maxSeries) {
		ch <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, float64(known[name].NotAfter.Unix()), name)
	}
}
