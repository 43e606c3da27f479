package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/measure"
)

type (
	object = map[string]any
	list   = []any
)

// host is the one that is asked for everywhere, and the certificate's name.
const host = "bench.example.com"

// site is what the others are configured with.
type site struct {
	dir, cert, key          string
	http1, http2, tls, back int
}

// peers are the other proxies: their configuration, and how they are started. Each has one thread, keeps its
// connections to the backend, writes no log, and does nothing else.
var peers = []struct {
	name, file, text string
	command          []string
	env              []string
}{
	{name: "nginx", file: "nginx.conf", command: []string{
		"nginx", "-e", "DIR/error", "-c",
		"FILE",
	}, text: `daemon off; worker_processes 1;
error_log DIR/error; pid DIR/pid;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi; uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
  upstream backend { server 127.0.0.1:BACK; keepalive 64; keepalive_requests 1000000000; }
  server {
    server_name HOST; listen 127.0.0.1:HTTP1; listen 127.0.0.1:HTTP2 http2; listen 127.0.0.1:TLS ssl;
    ssl_certificate CERT; ssl_certificate_key KEY;
    location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }
  }
}
`},
	{name: "HAProxy", file: "haproxy.cfg", command: []string{"haproxy", "-db", "-f", "FILE"}, text: `global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend in
  bind 127.0.0.1:HTTP1
  bind 127.0.0.1:HTTP2 proto h2
  bind 127.0.0.1:TLS ssl crt CERT
  default_backend out
backend out
  server s 127.0.0.1:BACK
`},
	{
		name: "Caddy", file: "Caddyfile", env: []string{"GOMAXPROCS=1", "XDG_DATA_HOME=DIR", "XDG_CONFIG_HOME=DIR"},
		command: []string{"caddy", "run", "--adapter", "caddyfile", "--config", "FILE"}, text: `{
  admin off
  auto_https off
  log {
    level ERROR
  }
  servers {
    protocols h1 h2 h2c
  }
}
http://HOST:HTTP1, http://HOST:HTTP2 {
  bind 127.0.0.1
  reverse_proxy 127.0.0.1:BACK
}
https://HOST:TLS {
  bind 127.0.0.1
  tls CERT KEY
  reverse_proxy 127.0.0.1:BACK
}
`,
	},
}

// subjects starts all proxies and their backend. stop ends what was started, also where something failed.
func subjects(ctx context.Context, dir string, hosts int) (all []*subject, stop func(), err error) {
	var stops []func()
	stop = func() {
		for i := len(stops) - 1; i >= 0; i-- {
			stops[i]()
		}
	}
	ports, err := porttest.Take(4 + 3*len(peers))
	if err != nil {
		return nil, stop, err
	}
	s := site{dir: dir, back: ports[0], cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	chain, key, err := certificate()
	if err != nil {
		return nil, stop, err
	}
	// HAProxy reads both from one file, the others do not mind.
	if err := errors.Join(os.WriteFile(s.cert, []byte(chain+key), 0o600),
		os.WriteFile(s.key, []byte(key), 0o600)); err != nil {
		return nil, stop, err
	}
	end, _, err := s.start(ctx, "backend", "backend.conf", backendText, []string{"nginx", "-e", "DIR/error", "-c", "FILE"},
		nil)
	if err != nil {
		return nil, stop, err
	}
	stops = append(stops, end)
	s.http1, s.http2, s.tls = ports[1], ports[2], ports[3]
	bare, err := json.Marshal(s.bareEnvoy())
	if err != nil {
		return nil, stop, err
	}
	envoy, err := harness.EnvoyPath()
	if err != nil {
		return nil, stop, err
	}
	add := func(name, file, text string, command, env []string) error {
		end, pid, err := s.start(ctx, name, file, text, command, env)
		if err != nil {
			return err
		}
		stops = append(stops, end)
		if err := s.ready(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		pids, err := measure.Family(pid)
		all = append(all, &subject{name: name, pids: pids, host: host, ports: map[string]int{
			"http1": s.http1,
			"http2": s.http2, "tls": s.tls,
		}})
		return err
	}
	if err := add(bareEnvoy, "envoy.json", string(bare), []string{
		envoy, "-c", "FILE", "--concurrency", "1",
		"--disable-hot-restart", "--log-level", "error",
	}, nil); err != nil {
		return nil, stop, err
	}
	ours, end, err := marchproxy(ctx, dir, s.back, hosts, chain, key)
	stops = append(stops, end)
	if err != nil {
		return nil, stop, err
	}
	all = append(all, ours...)
	for i, p := range peers {
		s.http1, s.http2, s.tls = ports[4+3*i], ports[5+3*i], ports[6+3*i]
		if err := add(p.name, p.file, p.text, p.command, p.env); err != nil {
			return nil, stop, err
		}
	}
	return all, stop, nil
}

const backendText = `daemon off; worker_processes 1;
error_log DIR/error; pid DIR/backend-pid;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 1000000000; default_type text/plain;
  client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi; uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
  server { listen 127.0.0.1:BACK; location / { return 200 "ok\n"; } }
}
`

// start writes a configuration and starts a program with it.
func (s site) start(
	ctx context.Context, name, file, text string, command, env []string,
) (stop func(), pid int, err error) {
	path := filepath.Join(s.dir, file)
	fill := func(text string) string {
		for what, with := range map[string]string{
			"DIR": s.dir, "FILE": path, "CERT": s.cert, "KEY": s.key, "HOST": host, "BACK": strconv.Itoa(s.back),
			"HTTP1": strconv.Itoa(s.http1), "HTTP2": strconv.Itoa(s.http2), "TLS": strconv.Itoa(s.tls),
		} {
			text = placeholder(what).ReplaceAllString(text, with)
		}
		return text
	}
	if err := os.WriteFile(path, []byte(fill(text)), 0o600); err != nil {
		return nil, 0, err
	}
	for i, a := range command {
		command[i] = fill(a)
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &out, s.dir // the access log's file is there
	cmd.Env = os.Environ()
	for _, e := range env {
		cmd.Env = append(cmd.Env, fill(e))
	}
	if err := cmd.Start(); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", name, err)
	}
	ended := make(chan struct{})
	var why error
	go func() {
		defer close(ended)
		why = cmd.Wait()
	}()
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill() // it may have ended
			<-ended
		}
	}
	select {
	case <-ended:
		return nil, 0, fmt.Errorf("%s has ended: %w\n%s", name, why, out.String())
	case <-time.After(300 * time.Millisecond):
		return stop, cmd.Process.Pid, nil
	}
}

// ready waits until all ports are open.
func (s site) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, port := range []int{s.http1, s.http2, s.tls} {
		if err := open(ctx, port); err != nil {
			return err
		}
	}
	return nil
}

func open(ctx context.Context, port int) error {
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("port %d is not open: %w", port, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// bareEnvoy is an Envoy with the router alone.
func (s site) bareEnvoy() object {
	at := func(port int) object {
		return object{"socket_address": object{"address": "127.0.0.1", "port_value": port}}
	}
	const hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	chain := object{"filters": list{object{"name": "http", "typed_config": object{
		"@type": hcm, "stat_prefix": "http",
		"http_filters": list{object{
			"name":         "router",
			"typed_config": object{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
		}},
		"route_config": object{"virtual_hosts": list{object{"name": "all", "domains": list{"*"}, "routes": list{
			object{"match": object{"prefix": "/"}, "route": object{"cluster": "backend"}},
		}}}},
	}}}}
	secure := object{"filters": chain["filters"], "transport_socket": object{"name": "tls", "typed_config": object{
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
		"common_tls_context": object{"alpn_protocols": list{"h2", "http/1.1"}, "tls_certificates": list{object{
			"certificate_chain": object{"filename": s.cert}, "private_key": object{"filename": s.key},
		}}},
	}}}
	return object{"static_resources": object{
		"listeners": list{
			object{"name": "http1", "address": at(s.http1), "filter_chains": list{chain}},
			object{"name": "http2", "address": at(s.http2), "filter_chains": list{chain}},
			object{"name": "tls", "address": at(s.tls), "filter_chains": list{secure}},
		},
		"clusters": list{object{"name": "backend", "type": "STATIC", "connect_timeout": "1s", "load_assignment": object{
			"cluster_name": "backend", "endpoints": list{
				object{"lb_endpoints": list{object{"endpoint": object{"address": at(s.back)}}}},
			},
		}}},
	}}
}
