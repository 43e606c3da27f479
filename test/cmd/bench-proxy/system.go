package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"time"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/license"
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/authority"
	"github.com/marchproxy/marchproxy/test/harness"
)

// marchproxy starts the system, and beside it an Envoy with one worker for each of its gateways.
func marchproxy(
	ctx context.Context, dir string, back, hosts int, chain, key string,
) (all []*subject, stop func(), err error) {
	var stops []func()
	stop = func() {
		for i := len(stops) - 1; i >= 0; i-- {
			stops[i]()
		}
	}
	s, err := harness.Start(ctx, "--no-demo")
	if err != nil {
		return nil, stop, err
	}
	stops = append(stops, func() { _ = s.Close() }) // the figures have been taken
	const token = "a-token-of-the-benchmark"
	sum := sha256.Sum256([]byte(token))
	rest := "PENG-TEST-TEST-TEST-0001"
	if err := apply(ctx, s, list{
		object{
			"kind": "Service", "name": "web",
			"spec": object{"endpoints": list{object{"host": "127.0.0.1", "port": back}}},
		},
		object{"kind": "Certificate", "name": "bench", "spec": object{"chain": chain, "private_key": key}},
		object{"kind": "License", "name": "bench", "spec": object{
			"key":   rest + "-" + license.Checksum(rest),
			"gates": list{object{"feature": "multi-cloud", "paths": list{"/api/v1/multi-cloud"}}},
		}},
		object{"kind": "AuthPolicy", "name": "bench", "spec": object{"tokens": list{
			object{"name": "bench", "sha256": hex.EncodeToString(sum[:])},
		}}},
	}); err != nil {
		return nil, stop, err
	}
	for _, g := range []struct {
		name, label string
		spec        object
		headers     []string
		hosts       int
	}{
		{"bare", bareRoute, object{"metrics": false}, nil, 1},
		{
			"full", fullRoute,
			object{"license": "bench", "auth_policy": "bench"},
			[]string{"authorization: Bearer " + token},
			1,
		},
		{"many", manyHosts, object{"metrics": false}, nil, hosts},
	} {
		ports, err := porttest.Take(4)
		if err != nil {
			return nil, stop, err
		}
		clusterKey := "a-key-of-the-gateway-" + g.name
		g.spec["api_keys"] = list{object{"name": "bench", "key": clusterKey}}
		g.spec["listeners"] = list{
			object{"name": "http1", "port": ports[0]},
			object{"name": "http2", "port": ports[1]},
			object{"name": "tls", "port": ports[2], "protocol": "https", "certificates": list{"bench"}},
		}
		resources := list{object{"kind": "Gateway", "name": g.name, "spec": g.spec}}
		for i := range g.hosts {
			name := host
			if i > 0 {
				name = fmt.Sprintf("host-%d.example.com", i)
			}
			resources = append(resources, object{"kind": "Route", "name": fmt.Sprintf("%s-%d", g.name, i), "spec": object{
				"gateways": list{g.name}, "hosts": list{name}, "backends": list{object{"service": "web"}},
			}})
		}
		for len(resources) > 0 {
			n := min(len(resources), 1000)
			if err := apply(ctx, s, resources[:n]); err != nil {
				return nil, stop, err
			}
			resources = resources[n:]
		}
		raw, err := bootstrap.Render(bootstrap.Config{
			NodeID: g.name, Gateway: g.name, XDSServer: s.GRPC, APIKey: clusterKey, LogFile: true,
			AdminAddr: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[3])),
		})
		if err != nil {
			return nil, stop, err
		}
		envoy, err := harness.EnvoyPath()
		if err != nil {
			return nil, stop, err
		}
		it := site{dir: dir, http1: ports[0], http2: ports[1], tls: ports[2]}
		end, pid, err := it.start(ctx, g.label, g.name+".json", string(raw), []string{
			envoy, "-c", "FILE", "--concurrency", "1", "--disable-hot-restart", "--log-level", "error",
		}, nil)
		if err != nil {
			return nil, stop, err
		}
		stops = append(stops, end)
		if err := it.ready(ctx); err != nil {
			return nil, stop, fmt.Errorf("%s: %w", g.label, err)
		}
		all = append(all, &subject{
			name: g.label, pids: []int{pid}, host: host, headers: g.headers,
			ports: map[string]int{"http1": ports[0], "http2": ports[1], "tls": ports[2]},
		})
	}
	return all, stop, nil
}

func apply(ctx context.Context, s *harness.System, resources list) error {
	status, raw, err := s.Call(ctx, "POST", s.API+"/v1/apply", object{"resources": resources})
	if err == nil && status != 200 {
		err = fmt.Errorf("apply: %d %s", status, raw)
	}
	return err
}

// certificate is one that signs itself, and its key.
func certificate() (chain, private string, err error) {
	key, private, err := authority.Key()
	if err != nil {
		return "", "", err
	}
	chain, err = authority.Sign(authority.Server(90*24*time.Hour, host), key, nil)
	return chain, private, err
}

func placeholder(name string) *regexp.Regexp { return regexp.MustCompile(`\b` + name + `\b`) }
