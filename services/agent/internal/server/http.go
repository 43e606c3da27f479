package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// state is GET /v1/state: what the node does now.
type state struct {
	// Limits is what the status event says; absent without NATS_URL.
	Limits any `json:"limits,omitempty"`
	// Envoy is absent without XDS_SERVER.
	Envoy any `json:"envoy,omitempty"`
}

// door is the agent's HTTP server. It tells operators of this machine how it is, and lets nobody change
// anything.
func (a *agent) door() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.registry(), promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "healthy") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reason := a.notReady(); reason != "" {
			http.Error(w, reason, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.HandleFunc("GET /v1/state", func(w http.ResponseWriter, _ *http.Request) {
		var out state
		if a.enforcer != nil {
			a.enforcer.Sample()
			out.Limits = a.enforcer.Status(time.Now())
		}
		if a.envoy != nil {
			out.Envoy = a.envoy.State()
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // the client is gone: nobody is left to tell
	})
	mux.HandleFunc("GET /v1/check", func(w http.ResponseWriter, _ *http.Request) {
		if a.enforcer == nil {
			http.Error(w, "no packets are limited here: NATS_URL is not set", http.StatusNotFound)
			return
		}
		differences, err := a.enforcer.Check()
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(differences) // the client is gone: nobody is left to tell
	})
	return mux
}

// notReady is why the node should get no traffic; "" where it may.
func (a *agent) notReady() string {
	if a.envoy != nil {
		if s := a.envoy.State(); !s.Ready {
			return "Envoy is not ready: " + s.Reason
		}
	}
	if a.cfg.Required {
		if s := a.enforcer.Status(time.Now()); s.Mode == "" {
			return s.Interface + " is not guarded: " + s.Reason
		}
	}
	return ""
}

func (a *agent) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collector{a})
	return r
}
