// Package server puts the parts of marchproxy-discover together: sources, the reconciler, the api's client, and a door
// for those who look after it.
package server

import (
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/tracing"

	"github.com/marchproxy/marchproxy/services/discover/internal/reconcile"
	"github.com/marchproxy/marchproxy/services/discover/internal/srv"
)

// Config is everything that the environment says.
type Config struct {
	reconcile.Naming
	// API is the api's URL (MARCHPROXY_API), and Token the one to it (MARCHPROXY_TOKEN, a secret).
	API, Token string
	// Sources are those that are followed (DISCOVER_SOURCES; docker).
	Sources []string
	// DockerHost is the engine (DOCKER_HOST), and Address how Envoys reach the ports that it publishes (DISCOVER_ADDRESS).
	DockerHost, Address string
	// Nomad and Consul are their addresses (NOMAD_ADDR, CONSUL_HTTP_ADDR), with tokens (NOMAD_TOKEN, CONSUL_HTTP_TOKEN,
	// secrets).
	Nomad, NomadToken, NomadNamespace string
	Consul, ConsulToken               string
	// SRV are the names that are looked up (DISCOVER_SRV: web=_http._tcp.web.example.com), at DNS, "" for the system's
	// servers (DISCOVER_DNS).
	SRV []srv.Name
	DNS string
	// Remove is how long a workload is gone before its Service and Routes go (DISCOVER_REMOVE_AFTER).
	Remove time.Duration
	// HTTPAddr serves /metrics, /healthz, /readyz and /v1/state (DISCOVER_HTTP_ADDR; loopback).
	HTTPAddr string
	Identity identity.Settings
	Tracing  tracing.Settings
	LogLevel string
}

// sources are those that there are.
var sources = []string{"docker", "nomad", "consul", "dns"}

var ownerName = regexp.MustCompile(`^[A-Za-z0-9._:-]+(/[A-Za-z0-9._:-]+)*$`)

func readConfig(lookup func(string) (string, bool)) (Config, error) {
	e := process.NewEnv(lookup)
	host, err := os.Hostname()
	if err != nil {
		host = "site"
	}
	host, _, _ = strings.Cut(strings.ToLower(host), ".")
	c := Config{
		API: e.String("MARCHPROXY_API", "http://127.0.0.1:8000"),
		Token: e.Required("MARCHPROXY_TOKEN", "an admin makes one with: marchproxy token create discover --role "+
			"editor --owner discover/SITE"),
		DockerHost:     e.String("DOCKER_HOST", "unix:///var/run/docker.sock"),
		Address:        e.String("DISCOVER_ADDRESS", ""),
		Nomad:          e.String("NOMAD_ADDR", "http://127.0.0.1:4646"),
		NomadToken:     e.Secret("NOMAD_TOKEN"),
		NomadNamespace: e.String("NOMAD_NAMESPACE", "default"),
		Consul:         e.String("CONSUL_HTTP_ADDR", "http://127.0.0.1:8500"),
		ConsulToken:    e.Secret("CONSUL_HTTP_TOKEN"),
		DNS:            e.Addr("DISCOVER_DNS", ""),
		Remove:         e.Duration("DISCOVER_REMOVE_AFTER", 10*time.Second),
		HTTPAddr:       e.Addr("DISCOVER_HTTP_ADDR", "127.0.0.1:9903"),
		LogLevel:       e.String("LOGLEVEL", "info"),
		Identity:       identity.Read(e),
	}
	c.Tracing = tracing.Read(e, c.Identity)
	c.Site = e.String("DISCOVER_SITE", host)
	if msg := resource.CheckName(c.Site); msg != "" || len(c.Site) > 24 {
		e.Fail("DISCOVER_SITE", "is %q; it must be at most 24 of a-z, 0-9 and -, and is the host's name where it is not set",
			c.Site)
	}
	c.Owner = e.String("DISCOVER_OWNER", "discover/"+c.Site)
	if !ownerName.MatchString(c.Owner) || len(c.Owner) > 36 {
		e.Fail("DISCOVER_OWNER", "is %q; it must be at most 36 letters, digits and any of . _ : - /", c.Owner)
	}
	c.Zone, c.Cloud = e.String("DISCOVER_ZONE", ""), e.String("DISCOVER_CLOUD", "")
	c.Region = e.String("DISCOVER_REGION", "")
	for s := range strings.SplitSeq(e.String("DISCOVER_SOURCES", "docker"), ",") {
		if s = strings.TrimSpace(s); !slices.Contains(sources, s) {
			e.Fail("DISCOVER_SOURCES", "has %q; there are %s", s, strings.Join(sources, ", "))
			continue
		}
		c.Sources = append(c.Sources, s)
	}
	u, err := url.Parse(c.API)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		e.Fail("MARCHPROXY_API", "is no URL such as https://api:8000")
	} else if u.Scheme == "http" && !identity.Loopback(u.Hostname()) && !c.Identity.Plain {
		e.Fail("MARCHPROXY_API", "is http to another machine, on the way to which the token could be read; use https and "+
			"MARCHPROXY_TLS_CA, or ALLOW_PLAINTEXT=true")
	}
	if c.SRV, err = srv.Parse(e.String("DISCOVER_SRV", "")); err != nil {
		e.Fail("DISCOVER_SRV", "%v", err)
	}
	if slices.Contains(c.Sources, "dns") && len(c.SRV) == 0 {
		e.Fail("DISCOVER_SRV", "is not set; the source dns looks up what it names, such as web=_http._tcp.web.example.com")
	}
	c.Identity.Listener(e, "DISCOVER_HTTP_ADDR", c.HTTPAddr)
	return c, e.Err()
}
