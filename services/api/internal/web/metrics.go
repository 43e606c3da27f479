package web

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
	"github.com/marchproxy/marchproxy/services/api/internal/openapi"
)

// metrics are what GET /metrics shows: the process, the requests by operation, and how far the newest
// revision has come.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	signIns  *prometheus.CounterVec
}

func newMetrics(a *API) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marchproxy_api_requests_total", Help: "Requests by operation (operationId of the OpenAPI " +
				"document) and status.",
		}, []string{"operation", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "marchproxy_api_request_duration_seconds", Help: "Time to answer by operation; with wait=live that " +
				"includes the wait.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"operation"}),
		signIns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marchproxy_api_sign_ins_total", Help: "Attempts to sign in, by how (password, token, provider) and result: " +
				"ok, wrong, or slowed, which were not looked at after too many wrong ones.",
		}, []string{"how", "result"}),
	}
	for _, how := range []string{"password", "token", "provider"} {
		for _, result := range []string{"ok", "wrong", "slowed"} {
			m.signIns.WithLabelValues(how, result)
		}
	}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.requests, m.seconds, m.signIns)
	gauge := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	count := func(name, help string, value func() int64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(value()) }))
	}
	count("marchproxy_api_refused_credentials_total", "Requests refused because their token was wrong or missing.",
		a.Attempts.Wrong)
	count("marchproxy_api_slowed_credentials_total", "Tokens that were not looked at, because too many wrong ones had "+
		"come from their address.", a.Attempts.Slowed)
	gauge("marchproxy_api_revision", "The newest revision that this api has seen.",
		func() float64 { return float64(a.Writer.Revision()) })
	gauge("marchproxy_api_oldest_revision", "The oldest revision that is kept; 0 without any, -1 where the database "+
		"does not answer.", func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		n, err := a.Store.Oldest(ctx)
		if err != nil {
			return -1
		}
		return float64(n)
	})
	gauge("marchproxy_api_waiting_writes", "Writes that wait until those that are being stored are done.", func() float64 {
		return float64(a.Writer.Waiting())
	})
	gauge("marchproxy_api_published_revision", "The newest revision in the event stream.",
		func() float64 { return float64(a.Published()) })
	gauge("marchproxy_api_live_revision", "The revision that every connected Envoy serves; 0 "+
		"without any.", func() float64 {
		return float64(a.Board.Summary().Live)
	})
	gauge("marchproxy_api_proxies", "Connected Envoys.", func() float64 {
		return float64(a.Board.Summary().Proxies)
	})
	gauge("marchproxy_api_silent_proxies", "Connected Envoys of which no agent tells what they do.", func() float64 {
		_, silent := a.Board.Failing()
		return float64(silent)
	})
	gauge("marchproxy_api_unhealthy_endpoints", "Endpoints that an Envoy sends no requests to because they fail.",
		func() float64 {
			endpoints, _ := a.Board.Failing()
			return float64(endpoints)
		})
	gauge("marchproxy_api_absent_proxies", "Envoys that were connected and are not any more, for as long as they are "+
		"remembered.", func() float64 {
		return float64(a.Board.Absent())
	})
	m.registry.MustRegister(offsets{a.Board})
	gauge("marchproxy_api_rejected_objects", "Objects that an Envoy refused.", func() float64 {
		return float64(a.Board.Summary().RejectedObjects)
	})
	gauge("marchproxy_api_lagging_proxies", "Connected Envoys that have lacked something for more than five seconds; "+
		"GET /v1/status names them.", func() float64 {
		return float64(a.Board.Summary().LaggingProxies)
	})
	m.registry.MustRegister(expiryMetric{a}, issuanceMetric{a})
	flag := func(bad bool) float64 {
		if bad {
			return 1
		}
		return 0
	}
	gauge("marchproxy_api_stream_trouble", "1 while what is stored is not published; GET /v1/status "+
		"says why.", func() float64 {
		reason, _ := a.Unpublished()
		return flag(reason != "")
	})
	gauge("marchproxy_api_unpublished", "What the relay has still to do of what it has been busy with for five seconds; "+
		"GET /v1/status says what.", func() float64 {
		left := int64(0)
		for _, p := range a.progress() {
			if p.Who == partStream {
				left += max(1, p.Total-p.Done)
			}
		}
		return float64(left)
	})
	if a.Retained != nil {
		gauge("marchproxy_api_retention_last_success_timestamp_seconds", "When the history was last looked through for "+
			"what need not be "+
			"kept, in seconds since 1970; at first when the api began.", func() float64 { return float64(a.Retained()) })
	}
	if a.Expiry != nil {
		gauge("marchproxy_api_identity_expiry_timestamp_seconds", "When the api's own certificate ends, in seconds since "+
			"1970; +Inf without one.", a.Expiry)
	}
	gauge("marchproxy_api_database_trouble", "1 while nothing can be stored; GET /v1/status says why.", func() float64 {
		_, bad := a.Store.Trouble()
		return flag(bad)
	})
	gauge("marchproxy_api_unresolved_names", "DNS names of services' endpoints that do not resolve.", func() float64 {
		_, n := a.unresolved(0)
		return float64(n)
	})
	return m
}

// offsets are the clocks' as they are asked for.
type offsets struct{ board *live.Board }

var descOffset = prometheus.NewDesc("marchproxy_api_clock_offset_seconds",
	"How far the clock of an xDS server or a node is ahead of this api's, by its last report.", []string{"part"}, nil)

// Describe implements prometheus.Collector.
func (o offsets) Describe(ch chan<- *prometheus.Desc) { ch <- descOffset }

// Collect implements prometheus.Collector.
func (o offsets) Collect(ch chan<- prometheus.Metric) {
	for part, d := range o.board.Offsets() {
		ch <- prometheus.MustNewConstMetric(descOffset, prometheus.GaugeValue, d.Seconds(), part)
	}
}

func (m *metrics) handler() echo.HandlerFunc {
	return echo.WrapHandler(promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
}

// measure counts an operation's requests.
func (a *API) measure(id string, next echo.HandlerFunc) echo.HandlerFunc {
	ids := map[string]string{"": id} // by the kind's path
	if strings.Contains(id, "{") {
		ids[""] = openapi.IDOf(id, resource.Kind{})
		for _, k := range resource.Kinds {
			ids[k.Path] = openapi.IDOf(id, k)
		}
	}
	return func(c echo.Context) error {
		operation, known := ids[c.Param("kind")]
		if !known {
			operation = ids[""]
		}
		start := time.Now()
		if err := next(c); err != nil {
			c.Error(err) // answers, so that the status is known
		}
		a.metrics.requests.WithLabelValues(operation, strconv.Itoa(c.Response().Status)).Inc()
		if id != "events" { // lasts as long as its client stays
			a.metrics.seconds.WithLabelValues(operation).Observe(time.Since(start).Seconds())
		}
		return nil
	}
}
