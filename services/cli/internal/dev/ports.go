package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/marchproxy/marchproxy/pkg/process"
)

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// ports says of all ports at once what is wrong with them, each with the flag that chooses another.
func (s *system) ports(ctx context.Context) error {
	all := []struct {
		flag, who string
		port      int
		unused    bool
	}{
		{"--proxy-port", "Envoy's listener", s.ProxyPort, false},
		{"--api-port", "the api", s.APIPort, false},
		{"--ui-port", "the web UI", s.UIPort, false},
		{"--xds-grpc-port", "xDS", s.GRPCPort, false},
		{"--xds-http-port", "POST /v1/config", s.HTTPPort, false},
		{"--admin-port", "Envoy's admin interface", s.AdminPort, false},
		{"--nats-port", "NATS", s.NatsPort, false},
		{"--postgres-port", "PostgreSQL", s.PGPort, !s.ownDatabase},
		{"--backend-port", "the demo backend", s.BackendPort, s.NoDemo},
	}
	var errs []error
	taken := map[int]string{}
	for _, p := range all {
		if p.unused {
			continue
		}
		if other, twice := taken[p.port]; twice {
			errs = append(errs, fmt.Errorf("port %d is given to %s and %s", p.port, other, p.flag))
			continue
		}
		taken[p.port] = p.flag
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", local(p.port))
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			by := ""
			if who := process.Holder(p.port); who != "" {
				by = " by " + who
			}
			errs = append(errs, fmt.Errorf("port %d (%s) is taken%s; %s chooses another", p.port, p.who, by, p.flag))
		case err != nil:
			errs = append(errs, fmt.Errorf("port %d (%s) cannot be used (%w); %s chooses another", p.port, p.who, err, p.flag))
		default:
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// keepProxyPort takes the proxy's port of the last run where none is asked for: the listener is part of
// the configuration, and the configuration is kept.
func (s *system) keepProxyPort() {
	var last shown
	raw, err := os.ReadFile(filepath.Join(s.StateDir, runFile))
	if s.ProxyPortGiven || err != nil || json.Unmarshal(raw, &last) != nil {
		return
	}
	if _, port, err := net.SplitHostPort(last.URLs["proxy"]); err == nil {
		if n, err := strconv.Atoi(port); err == nil {
			s.ProxyPort = n
		}
	}
}

// settleProxyPort makes the gateway default listen on the port that was asked for, or takes note of the
// one that it has.
func (s *system) settleProxyPort(ctx context.Context) error {
	var g struct {
		Spec struct {
			Listeners []map[string]any `json:"listeners"`
		} `json:"spec"`
	}
	path := s.urls["api"] + "/v1/gateways/default"
	if err := s.call(ctx, http.MethodGet, path, "", &g); err != nil {
		return fmt.Errorf("read the gateway default: %w", err)
	}
	for _, l := range g.Spec.Listeners {
		if p, other := l["protocol"]; other && p != "http" {
			continue
		}
		port, _ := l["port"].(float64)
		if int(port) == s.ProxyPort {
			return nil
		}
		if !s.ProxyPortGiven {
			s.proxyAt(int(port))
			return nil
		}
		l["port"] = s.ProxyPort
		patch, err := json.Marshal(map[string]any{"spec": map[string]any{"listeners": g.Spec.Listeners}})
		if err != nil {
			return err
		}
		var answer any
		if err := s.call(ctx, http.MethodPatch, path+"?message="+url.QueryEscape("marchproxy dev --proxy-port"),
			string(patch), &answer); err != nil {
			return fmt.Errorf("--proxy-port: %w", err)
		}
		return nil
	}
	return nil
}

func (s *system) proxyAt(port int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ProxyPort = port
	s.urls["proxy"] = local(port)
}
