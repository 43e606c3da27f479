package importer

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// scope is a server on some listeners: where directives of its locations are looked up, the nearest block first.
type scope struct {
	n                *nginx
	levels           [][]directive
	hosts, listeners []string
	first            string
}

// protecting directives say who may come in; a location that has one is closed.
var protecting = map[string]string{
	"auth_basic":          "asks for a user and a password, which no AuthPolicy does",
	"auth_request":        "asks another server who may pass, which no AuthPolicy does",
	"auth_jwt":            "checks tokens in nginx's own way",
	"allow":               "lets some addresses pass, which no route does",
	"deny":                "keeps addresses out, which no route does",
	"limit_except":        "keeps methods out",
	"secure_link":         "checks signed links, which no route does",
	"valid_referers":      "is for a condition, which no route has",
	"internal":            "keeps all requests from outside away",
	"if":                  "is a condition, which no route has",
	"satisfy":             "joins ways to get in, which no AuthPolicy does",
	"access_by_lua_block": "is a program",
	"access_by_lua_file":  "is a program",
	"js_access":           "is a program",
}

var protectingRemedy = map[string]string{
	"auth_basic": "write the route with an AuthPolicy of tokens, which clients send as Authorization: Bearer",
	"allow":      "write the route by hand; a RateLimitPolicy's deny keeps addresses out of whole nodes",
	"deny":       "write the route by hand; a RateLimitPolicy's deny keeps addresses out of whole nodes",
}

// serving directives answer in another way than by a proxy.
var serving = []string{
	"root", "alias", "try_files", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "memcached_pass", "autoindex",
	"content_by_lua_block", "js_content", "stub_status", "empty_gif", "flv", "mp4", "dav_methods", "mirror", "sub_filter",
}

// listed are directives that change nothing essential of an answer, with why they have no equal and what does instead.
var listed = map[string][2]string{
	"client_max_body_size": {
		"requests have no limit of size here", "have the service limit it; Gateway.limits.request_timeout bounds the time",
	},
	"limit_req":      {"counts each client for a location, which no limit here does", limitRemedy},
	"limit_req_zone": {"counts each client for a location, which no limit here does", limitRemedy},
	"limit_conn": {
		"counts connections for a location",
		"Gateway.limits.max_connections_per_address is for all of a gateway",
	},
	"limit_conn_zone": {
		"counts connections for a location", "Gateway.limits.max_connections_per_address is for all of a gateway",
	},
	"limit_rate":          {"answers are not slowed down here", ""},
	"gzip":                {"answers are not compressed here", "have the service compress them"},
	"access_log":          {"is another log here", "Gateway.access_log"},
	"log_format":          {"is another log here", "Gateway.access_log"},
	"error_page":          {"pages for errors are the service's here", ""},
	"expires":             {"no header is counted from the time of day here", "have the service set Cache-Control"},
	"ssl_ciphers":         {"an Envoy's own are used: TLS 1.2 and 1.3 with forward secrecy", ""},
	"proxy_cache":         {"nothing is cached here", ""},
	"proxy_cache_path":    {"nothing is cached here", ""},
	"proxy_cache_valid":   {"nothing is cached here", ""},
	"proxy_redirect":      {"Location headers stay as the service sends them", "have the service know its address"},
	"proxy_cookie_path":   {"cookies stay as the service sends them", ""},
	"proxy_cookie_domain": {"cookies stay as the service sends them", ""},
	"set_real_ip_from":    {"the address is that of the connection here", "put the Envoys where clients reach them"},
	"real_ip_header":      {"the address is that of the connection here", "put the Envoys where clients reach them"},
	"set":                 {"variables of one's own have no equal here", ""},
	"proxy_bind":          {"an Envoy connects from its node's address", ""},
	"send_timeout":        {"is a part of the route's idle_timeout here", ""},
	"client_body_timeout": {
		"the time of a request as a whole is bounded here", "Gateway.limits.request_timeout",
	},
	"client_header_timeout": {"is set for the gateway here", "Gateway.limits.request_headers_timeout"},
	"keepalive_timeout":     {"is set for the gateway here", "Gateway.limits.idle_timeout"},
}

const limitRemedy = "a RateLimitPolicy's requests_per_second counts each client for a gateway, a Route's local_rate_limit " +
	"all clients of the route"

// taken are those that are read elsewhere, or that make no difference to a request.
var taken = strings.Fields(`listen server_name location return rewrite ssl_certificate ssl_certificate_key http2 ssl
	ssl_session_cache ssl_session_timeout ssl_session_tickets ssl_prefer_server_ciphers ssl_dhparam ssl_ecdh_curve
	ssl_client_certificate ssl_verify_client ssl_verify_depth ssl_stapling ssl_stapling_verify ssl_trusted_certificate
	resolver resolver_timeout auth_basic_user_file
	proxy_pass proxy_set_header proxy_http_version proxy_connect_timeout proxy_read_timeout proxy_send_timeout grpc_pass
	grpc_read_timeout grpc_send_timeout grpc_connect_timeout grpc_set_header
	proxy_hide_header add_header proxy_next_upstream proxy_next_upstream_tries proxy_ssl_server_name proxy_ssl_name
	proxy_ssl_verify proxy_ssl_trusted_certificate proxy_ssl_session_reuse proxy_ssl_protocols proxy_ssl_verify_depth
	proxy_buffering proxy_request_buffering proxy_buffers proxy_buffer_size proxy_busy_buffers_size proxy_max_temp_file_size
	proxy_socket_keepalive proxy_pass_request_headers proxy_pass_request_body proxy_headers_hash_max_size
	proxy_headers_hash_bucket_size sendfile tcp_nopush tcp_nodelay types types_hash_max_size types_hash_bucket_size
	default_type server_names_hash_bucket_size server_names_hash_max_size server_tokens charset log_not_found
	client_body_buffer_size client_header_buffer_size large_client_header_buffers gzip_vary gzip_types gzip_comp_level
	gzip_min_length gzip_proxied gzip_disable gzip_buffers gzip_http_version index error_log merge_slashes
	underscores_in_headers port_in_redirect absolute_redirect variables_hash_max_size variables_hash_bucket_size
	keepalive_requests reset_timedout_connection open_file_cache http2_max_concurrent_streams`)

// look lists a directive of a server or http block that is not done; those of locations are looked at there.
func (n *nginx) look(d directive) {
	off := d.arg(0) == "off"
	switch why, is := listed[d.name]; {
	case protecting[d.name] != "" || slices.Contains(serving, d.name):
		// the locations that it holds for say so
	case d.name == "ssl_protocols":
		for _, p := range d.args {
			if p != "TLSv1.2" && p != "TLSv1.3" {
				n.b.note(d.place, "ssl_protocols "+p, "is no longer spoken: TLS 1.2 and 1.3 are", "")
			}
		}
	case is && (off || d.name == "client_max_body_size" && d.arg(0) == "0"):
	case is:
		n.b.note(d.place, d.name, why[0], why[1])
	case !slices.Contains(taken, d.name):
		n.b.note(d.place, d.name, "has no equal here", "")
	}
}

func (n *nginx) lookListen(d directive) {
	for _, a := range d.args[min(1, len(d.args)):] {
		switch name, _, _ := strings.Cut(a, "="); name {
		case "ssl", "default_server", "default", "http2", "reuseport", "deferred", "fastopen", "backlog", "rcvbuf", "sndbuf",
			"ipv6only", "so_keepalive", "bind":
		default:
			n.b.note(d.place, "listen "+name, "has no equal here", "")
		}
	}
}

// clientAuth has a server's hosts ask for client certificates.
func (n *nginx) clientAuth(s directive, hosts []string, known bool) {
	verify := n.all(s, "ssl_verify_client")
	if len(verify) == 0 || verify[0].arg(0) == "off" {
		return
	}
	d := verify[0]
	ca := n.all(s, "ssl_client_certificate")
	if d.arg(0) != "on" || len(ca) == 0 || len(hosts) == 0 || !known {
		n.b.closeHosts(hosts, d.place, "ssl_verify_client",
			"certificates of clients are either asked for, on exact names or "+
				"*.NAME, or not", "write client_auth of the listener by hand")
		return
	}
	made := n.b.certificate(ca[0].place, "ssl_client_certificate", ca[0].arg(0), "", hosts[0], "clients")
	if made == "" {
		n.b.closeHosts(hosts, d.place, "ssl_verify_client", "its authorities cannot be read", "import where they can be")
		return
	}
	for _, l := range n.listens(s) {
		for _, own := range n.b.listeners {
			if l.tls && own.GetPort() == l.port {
				own.ClientAuth = append(own.ClientAuth, &configv1.ClientAuth{Hosts: hosts, CaCertificate: made})
			}
		}
	}
}

// one is the nearest directive of a name.
func (s *scope) one(name string) (d directive, found bool) {
	for _, level := range s.levels {
		for _, d := range level {
			if d.name == name {
				return d, true
			}
		}
	}
	return d, false
}

// all are those of the nearest block that has any.
func (s *scope) all(name string) []directive { return nearest(name, s.levels...) }

// nearest are the directives of a name in the first of some blocks that has any, as nginx inherits lists.
func nearest(name string, blocks ...[]directive) (out []directive) {
	for _, block := range blocks {
		for _, d := range block {
			if d.name == name {
				out = append(out, d)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

// in is the scope within a block of it.
func (s *scope) in(block []directive) *scope {
	inner := *s
	inner.levels = append([][]directive{block}, s.levels...)
	return &inner
}

// time is a duration of nginx's.
func (s *scope) time(name string, otherwise time.Duration) *durationpb.Duration {
	d, found := s.one(name)
	if !found {
		return durationpb.New(otherwise)
	}
	if out, ok := nginxTime(d.arg(0)); ok {
		return out
	}
	s.n.b.note(d.place, name, "is no time", "correct it, and import again")
	return durationpb.New(otherwise)
}

var nginxTimes = regexp.MustCompile(`^(\d+)(ms|s|m|h|d|)$`)

func nginxTime(text string) (*durationpb.Duration, bool) {
	m := nginxTimes.FindStringSubmatch(text)
	if m == nil {
		return nil, false
	}
	n, _ := strconv.Atoi(m[1])
	unit := map[string]time.Duration{
		"ms": time.Millisecond, "": time.Second, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	}[m[2]]
	return durationpb.New(time.Duration(n) * unit), true
}

// newEntry is a route of the server, without what it does.
func (s *scope) newEntry(p Place, kind pathKind, path string, hosts []string) *entry {
	e := &entry{kind: kind, path: path, route: &configv1.Route{Hosts: hosts, Listeners: slices.Clone(s.listeners)}}
	if slices.Equal(hosts, []string{"*"}) {
		e.route.Hosts = nil
	}
	words := []string{s.first}
	if kind != matching {
		words = append(words, strings.Trim(path, "/"))
	}
	return s.n.b.route(p, e, words...)
}

// entry makes the route of a location.
func (s *scope) entry(l location) {
	in := s
	if l.name != "" { // which the server's own return has not
		in = s.in(l.block)
	}
	e := s.newEntry(l.place, l.kind, l.path, s.hosts)
	for _, d := range l.block {
		if l.name == "" {
			break
		}
		if d.name == "location" {
			s.n.b.close(e, d.place, "location "+d.arg(len(d.args)-1), "lies in another location, which is not read",
				"put it beside the other one")
			return
		}
		s.n.look(d)
	}
	for _, name := range sortedKeys(protecting) {
		d, found := in.one(name)
		if !found || d.arg(0) == "off" || d.name == "satisfy" || d.name == "if" && (certbotIf(d) || !contains(l.block, d)) ||
			d.name == "allow" && d.arg(0) == "all" {
			continue
		}
		s.n.b.close(e, d.place, name, protecting[name], protectingRemedy[name])
		return
	}
	in.action(e, l)
}

func contains(block []directive, d directive) bool {
	return slices.ContainsFunc(block, func(x directive) bool { return x.name == d.name && x.place == d.place })
}

// action is what a location does.
func (s *scope) action(e *entry, l location) {
	for _, d := range l.block {
		switch d.name {
		case "return":
			s.returns(e, d)
			return
		case "rewrite":
			if slices.Contains([]string{"permanent", "redirect"}, d.arg(2)) || strings.Contains(d.arg(1), "://") {
				s.n.b.close(e, d.place, "rewrite", "redirects some requests of a location", "write the route by hand")
				return
			}
		}
	}
	for _, d := range l.block {
		switch d.name {
		case "proxy_pass", "grpc_pass":
			s.proxy(e, l, d)
			return
		}
	}
	for _, name := range serving {
		if d, found := s.one(name); found {
			s.n.b.close(e, d.place, name, "is no proxy: files, programs and the like are not served here",
				"serve them by a server of their own, and make that a Service")
			return
		}
	}
	s.n.b.close(e, l.place, "location", "has neither proxy_pass nor return", "write the route by hand")
}

// proxy sends a location's requests on.
func (s *scope) proxy(e *entry, l location, d directive) {
	b := s.n.b
	scheme, host, path, hasPath, ok := target(d.arg(0))
	if ok && d.name == "grpc_pass" {
		scheme = map[string]string{"grpc": "grpc", "grpcs": "grpcs"}[scheme]
	}
	if !ok || !slices.Contains([]string{"http", "https", "grpc", "grpcs"}, scheme) {
		b.close(e, d.place, d.name, "has no plain address: sockets and variables have no equal here",
			"write the Service and the route by hand")
		return
	}
	service := s.service(e, d, scheme, host)
	if service == "" {
		return
	}
	e.route.Backends = []*configv1.Backend{{Service: service}}
	e.route.IdleTimeout = s.time("proxy_read_timeout", time.Minute)
	e.route.ResponseHeadersTimeout = e.route.IdleTimeout
	if up, has := s.n.upstreams[host]; has && serverCount(up) > 1 {
		e.route.Retry = s.retry()
	}
	if hasPath {
		if l.kind == matching {
			b.close(e, d.place, d.name, "has a path in a location of an expression", "nginx refuses it, too")
			return
		}
		e.to = &path
	}
	s.rewrites(e, l, hasPath)
	s.headers(e, d, host)
}

func serverCount(up directive) (n int) {
	for _, d := range up.block {
		if d.name == "server" {
			n++
		}
	}
	return n
}

// retry is what nginx does where nothing is said: the next server, where one does not take the request.
func (s *scope) retry() *configv1.Retry {
	out := &configv1.Retry{Conditions: []string{"connect-failure", "refused-stream", "reset-before-request"}}
	d, found := s.one("proxy_next_upstream")
	if !found {
		return out
	}
	for _, a := range d.args {
		switch code, is := strings.CutPrefix(a, "http_"); {
		case a == "off":
			return nil
		case is:
			n, _ := strconv.Atoi(code)
			out.Statuses = append(out.Statuses, uint32(n))
		case a == "error", a == "timeout":
		default:
			s.n.b.note(d.place, "proxy_next_upstream "+a, "is no condition here", "Route.retry.conditions")
		}
	}
	if len(out.Statuses) > 0 {
		out.Conditions = append(out.Conditions, "retriable-status-codes")
	}
	return out
}

var groupReference = regexp.MustCompile(`\$(\d)`)

// rewrites are those of a location that keep the request here.
func (s *scope) rewrites(e *entry, l location, hasPath bool) {
	var found []directive
	for _, d := range l.block {
		if d.name == "rewrite" {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		return
	}
	d := found[0]
	text, ok := searching(d.arg(0), false)
	to := groupReference.ReplaceAllString(strings.ReplaceAll(d.arg(1), `\`, `\\`), `\$1`)
	switch {
	case len(found) > 1 || d.arg(2) != "break" || !ok || strings.ContainsAny(to, "$?") || hasPath &&
		e.route.GetBackends() == nil:
		s.n.b.close(e, d.place, "rewrite", "only one with break, of an expression of RE2 and without a query, is read",
			"write Route.rewrite by hand")
	default:
		e.to = nil // nginx does not put proxy_pass' path in place of a rewritten one
		e.route.Rewrite = &configv1.Rewrite{Regex: &configv1.RegexRewrite{Pattern: "^" + text + "$", Substitution: to}}
	}
}

// service is the Service of a proxy_pass, made where it is new; "" where there can be none.
func (s *scope) service(e *entry, d directive, scheme, host string) string {
	spec := &configv1.Service{ConnectTimeout: s.time("proxy_connect_timeout", time.Minute)}
	switch scheme {
	case "https", "grpcs":
		spec.Protocol = configv1.Service_https
		spec.Tls = s.upstreamTLS(d, host)
		if scheme == "grpcs" {
			spec.Protocol = configv1.Service_grpc
		}
	case "grpc":
		spec.Protocol = configv1.Service_grpc
	}
	port := map[bool]uint32{true: 443, false: 80}[strings.HasSuffix(scheme, "s")]
	up, has := s.n.upstreams[host]
	if has {
		s.n.balance(spec, up, port)
	} else if h, p, ok := endpointOf(host, port); ok {
		spec.Endpoints = []*configv1.Endpoint{{Host: h, Port: p}}
	}
	if len(spec.GetEndpoints()) == 0 {
		s.n.b.close(e, d.place, d.name, "has no server that can be reached here", "write the Service by hand")
		return ""
	}
	raw, err := resource.CanonicalSpec(spec)
	if err != nil {
		return ""
	}
	key := host + string(raw)
	if s.n.made[key] == "" {
		s.n.made[key] = s.n.b.name(resource.KindService, host)
		s.n.b.add(d.place, resource.KindService, s.n.made[key], spec)
	}
	return s.n.made[key]
}

// upstreamTLS is TLS towards servers. nginx accepts any certificate where nothing is said; that is not taken over.
func (s *scope) upstreamTLS(d directive, host string) *configv1.UpstreamTls {
	out := &configv1.UpstreamTls{}
	if name, found := s.one("proxy_ssl_name"); found {
		out.Sni = name.arg(0)
	} else if _, has := s.n.upstreams[host]; !has {
		if h, _, ok := endpointOf(host, 443); ok && strings.ContainsAny(h, "abcdefghijklmnopqrstuvwxyz") {
			out.Sni = h
		}
	}
	if verify, found := s.one("proxy_ssl_verify"); found && verify.arg(0) == "on" {
		if ca, has := s.one("proxy_ssl_trusted_certificate"); has {
			out.CaCertificate = s.n.b.certificate(ca.place, ca.name, ca.arg(0), "", host, "authorities")
		}
	} else {
		s.n.b.note(d.place, d.name+" https", "is not verified by nginx, and is here, by the system's authorities",
			"Service.tls.ca_certificate, or insecure_skip_verify where any certificate will do")
	}
	return out
}

// balance reads an upstream block.
func (n *nginx) balance(spec *configv1.Service, up directive, port uint32) {
	for _, d := range up.block {
		switch d.name {
		case "server":
			h, p, ok := endpointOf(d.arg(0), port)
			if !ok || strings.HasPrefix(d.arg(0), "unix:") {
				n.b.note(d.place, "server "+d.arg(0), "is no host and port", "")
				continue
			}
			x := &configv1.Endpoint{Host: h, Port: p}
			down := false
			for _, a := range d.args[1:] {
				switch name, value, _ := strings.Cut(a, "="); name {
				case "weight":
					w, _ := strconv.ParseUint(value, 10, 32)
					x.Weight = uint32(w)
				case "backup":
					x.Priority = 1
					n.b.note(d.place, "server backup", "takes over where checks find the others failed, and there are none",
						"Service.health_check or outlier_detection")
				case "down":
					down = true
				default:
					n.b.note(d.place, "server "+name, "has no equal here", "Service.outlier_detection is near")
				}
			}
			if !down {
				spec.Endpoints = withEndpoint(spec.GetEndpoints(), x)
			}
		case "least_conn":
			spec.LoadBalancing = &configv1.LoadBalancing{Policy: configv1.LoadBalancing_least_request}
		case "random":
			spec.LoadBalancing = &configv1.LoadBalancing{Policy: configv1.LoadBalancing_random}
		case "ip_hash":
			spec.LoadBalancing = &configv1.LoadBalancing{Policy: configv1.LoadBalancing_maglev}
		case "hash":
			spec.LoadBalancing = &configv1.LoadBalancing{Policy: configv1.LoadBalancing_ring_hash, HashOn: n.hashOn(d)}
		case "keepalive", "keepalive_requests", "keepalive_timeout", "zone":
		default:
			n.b.note(d.place, d.name, "has no equal here", "")
		}
	}
}

// withEndpoint adds an endpoint. One that is there twice has the sum of the weights.
func withEndpoint(all []*configv1.Endpoint, x *configv1.Endpoint) []*configv1.Endpoint {
	for _, o := range all {
		if o.GetHost() == x.GetHost() && o.GetPort() == x.GetPort() && o.GetPriority() == x.GetPriority() {
			o.Weight = max(o.GetWeight(), 1) + max(x.GetWeight(), 1)
			return all
		}
	}
	return append(all, x)
}

func (n *nginx) hashOn(d directive) []*configv1.HashOn {
	key := d.arg(0)
	switch {
	case key == "$remote_addr" || key == "$binary_remote_addr":
		return []*configv1.HashOn{{Source: &configv1.HashOn_SourceIp{SourceIp: true}}}
	case strings.HasPrefix(key, "$http_"):
		return []*configv1.HashOn{{Source: &configv1.HashOn_Header{Header: headerOf(key[6:])}}}
	case strings.HasPrefix(key, "$cookie_"):
		return []*configv1.HashOn{{Source: &configv1.HashOn_Cookie{Cookie: &configv1.HashCookie{Name: key[8:]}}}}
	case strings.HasPrefix(key, "$arg_"):
		return []*configv1.HashOn{{Source: &configv1.HashOn_Query{Query: key[5:]}}}
	}
	n.b.note(d.place, "hash", "is of what is not hashed here, and is of the client's address in its place",
		"Service.load_balancing.hash_on")
	return nil
}

func headerOf(variable string) string { return strings.ReplaceAll(variable, "_", "-") }

// headers are those that a location sends on, and answers with.
func (s *scope) headers(e *entry, pass directive, host string) {
	b := s.n.b
	request, response := &configv1.HeaderChanges{}, &configv1.HeaderChanges{}
	own := false
	for _, d := range append(s.all("proxy_set_header"), s.all("grpc_set_header")...) {
		name, value := d.arg(0), d.arg(1)
		what := "proxy_set_header " + name
		switch lower := strings.ToLower(name); {
		case lower == "host":
			own = true
			switch value {
			case "$host", "$http_host", "$server_name":
			case "$proxy_host":
				own = false
			default:
				if strings.Contains(value, "$") {
					b.close(e, d.place, what, "is made of what is not known here", "Route.rewrite.host")
					return
				}
				rewriteOf(e).Host = value
			}
		case lower == "upgrade":
			e.route.Websocket = true
		case lower == "connection" || lower == "x-forwarded-proto" && value == "$scheme" ||
			lower == "x-forwarded-for" && value == "$proxy_add_x_forwarded_for":
			// an Envoy does so by itself
		case value == "":
			request.Remove = append(request.Remove, name)
		default:
			format, ok := nginxFormat(value)
			if !ok {
				b.note(d.place, what, "is made of a variable that has no equal here", "Route.request_headers")
				continue
			}
			request.Set = append(request.Set, &configv1.HeaderValue{Name: name, Value: format})
		}
	}
	if !own && pass.name == "proxy_pass" {
		rewriteOf(e).Host = host
	}
	s.answers(response)
	if len(request.GetSet())+len(request.GetRemove()) > 0 {
		e.route.RequestHeaders = request
	}
	if len(response.GetAdd())+len(response.GetRemove()) > 0 {
		e.route.ResponseHeaders = response
	}
}

// answers are the headers of answers.
func (s *scope) answers(into *configv1.HeaderChanges) {
	for _, d := range s.all("add_header") {
		format, ok := nginxFormat(d.arg(1))
		if !ok {
			s.n.b.note(d.place, "add_header "+d.arg(0), "is made of a variable that has no equal here", "Route.response_headers")
			continue
		}
		if d.arg(2) != "always" {
			s.n.b.note(d.place, "add_header "+d.arg(0), "is in each answer here, also with a status of 400 and above",
				"nginx has it so with always")
		}
		into.Add = append(into.Add, &configv1.HeaderValue{Name: d.arg(0), Value: format})
	}
	for _, d := range s.all("proxy_hide_header") {
		into.Remove = append(into.Remove, d.arg(0))
	}
}

// answered gives an answer that no service makes the headers that the directives add.
func (s *scope) answered(e *entry) {
	response := &configv1.HeaderChanges{}
	s.answers(response)
	if len(response.GetAdd()) > 0 {
		e.route.ResponseHeaders = response
	}
}

func rewriteOf(e *entry) *configv1.Rewrite {
	if e.route.Rewrite == nil {
		e.route.Rewrite = &configv1.Rewrite{}
	}
	return e.route.Rewrite
}

var variable = regexp.MustCompile(`\$\{?([a-z_0-9]+)\}?`)

// nginxFormat is a value with variables as Envoy writes it.
func nginxFormat(value string) (out string, ok bool) {
	ok = true
	out = variable.ReplaceAllStringFunc(strings.ReplaceAll(value, "%", "%%"), func(v string) string {
		name := variable.FindStringSubmatch(v)[1]
		known := map[string]string{
			"remote_addr": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "host": "%REQ(:authority)%",
			"http_host": "%REQ(:authority)%", "scheme": "%REQ(:scheme)%", "request_method": "%REQ(:method)%",
			"request_uri": "%REQ(:path)%", "server_port": "%DOWNSTREAM_LOCAL_PORT%", "server_protocol": "%PROTOCOL%",
			"remote_port": "%DOWNSTREAM_REMOTE_PORT%", "server_addr": "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
		}[name]
		if h, is := strings.CutPrefix(name, "http_"); is && known == "" {
			known = "%REQ(" + headerOf(h) + ")%"
		}
		if known == "" {
			ok = false
		}
		return known
	})
	return out, ok
}

// slash is nginx's answer to a location's path without its final slash.
func (s *scope) slash(l location, all []location) {
	path := strings.TrimSuffix(l.path, "/")
	if path == l.path || path == "" || slices.ContainsFunc(all, func(o location) bool { return o.path == path }) ||
		!slices.ContainsFunc(l.block, func(d directive) bool { return d.name == "proxy_pass" || d.name == "grpc_pass" }) {
		return
	}
	e := s.newEntry(l.place, exact, path, s.hosts)
	e.route.Redirect = &configv1.Redirect{Path: l.path, Status: 301}
	s.in(l.block).answered(e)
}

var (
	equalHost   = regexp.MustCompile(`^\(?\$(host|http_host|server_name)$`)
	equalScheme = regexp.MustCompile(`^\(?\$scheme$`)
)

// certbotIf says whether an if compares the host, or the scheme, and returns, as Certbot writes it.
func certbotIf(d directive) bool {
	return len(d.args) == 3 && d.args[1] == "=" && len(d.block) == 1 && d.block[0].name == "return" &&
		(equalHost.MatchString(d.args[0]) || equalScheme.MatchString(d.args[0]))
}

// ifHost makes a route of Certbot's condition.
func (s *scope) ifHost(d directive) {
	if !certbotIf(d) {
		s.n.b.closeHosts(s.hosts, d.place, "if",
			"conditions of a server are not read, but for one of $host or $scheme with a "+
				"return", "write the routes of the host by hand")
		return
	}
	value := unquote(strings.TrimSuffix(d.args[2], ")"))
	e := s.newEntry(d.place, under, "/", s.hosts)
	if equalHost.MatchString(d.args[0]) {
		e.route.Hosts = []string{strings.ToLower(value)}
	} else {
		e.route.Listeners = slices.DeleteFunc(e.route.GetListeners(), func(name string) bool {
			return !slices.ContainsFunc(s.n.b.listeners, func(l *configv1.Listener) bool {
				return l.GetName() == name && (l.GetProtocol() == configv1.Listener_https) == (value == "https")
			})
		})
		if len(e.route.GetListeners()) == 0 {
			s.n.b.entries = s.n.b.entries[:len(s.n.b.entries)-1]
			return
		}
	}
	s.returns(e, d.block[0])
}

// rewriteAway is a rewrite of a server that redirects.
func (s *scope) rewriteAway(d directive) {
	text, ok := searching(d.arg(0), false)
	if !ok || strings.Contains(d.arg(1), "$") {
		s.n.b.closeHosts(s.hosts, d.place, "rewrite", "a redirect by an expression with parts of the path has no equal here",
			"Route.redirect replaces a prefix (prefix) or the whole path (path)")
		return
	}
	e := s.newEntry(d.place, matching, text, s.hosts)
	status := uint32(301)
	if d.arg(2) == "redirect" {
		status = 302
	}
	s.redirect(e, d, d.arg(1), status, false)
}

var location2 = regexp.MustCompile(`^(https?|\$scheme)://([^/$]+|\$(?:host|http_host|server_name))(:\d+)?(/[^$]*|\$request_uri|)$`)

// returns is what return says.
func (s *scope) returns(e *entry, d directive) {
	code, err := strconv.ParseUint(d.arg(0), 10, 32)
	text := d.arg(1)
	if err != nil { // return URL
		code, text = 302, d.arg(0)
	}
	status := uint32(code)
	switch {
	case slices.Contains([]uint32{301, 302, 303, 307, 308}, status):
		s.redirect(e, d, text, status, true)
		return
	case status == 444 || status < 200:
		s.n.b.close(e, d.place, fmt.Sprintf("return %d", status), "ends the connection, which no route does", "")
		return
	case strings.Contains(text, "$"):
		s.n.b.close(e, d.place, "return", "has a body of variables, which no answer has here", "Route.direct_response")
		return
	}
	e.route.DirectResponse = &configv1.DirectResponse{Status: status, Body: text}
	if t, found := s.one("default_type"); found && text != "" {
		e.route.DirectResponse.ContentType = t.arg(0)
	}
	s.answered(e)
}

// redirect sends clients elsewhere; what a return names replaces the query, what a rewrite names keeps it.
func (s *scope) redirect(e *entry, d directive, to string, status uint32, strip bool) {
	r := &configv1.Redirect{Status: status}
	if strings.HasPrefix(to, "/") && !strings.Contains(to, "$") {
		r.Path = to
	} else if m := location2.FindStringSubmatch(to); m != nil {
		if m[1] != "$scheme" {
			r.Scheme = m[1]
		}
		if !strings.HasPrefix(m[2], "$") {
			host, port, found := strings.Cut(m[2], ":")
			r.Host = host
			if found {
				m[3] = ":" + port
			}
		}
		if m[3] != "" {
			p, _ := strconv.ParseUint(m[3][1:], 10, 32)
			r.Port = uint32(p)
		}
		if m[4] != "$request_uri" {
			r.Path = m[4]
			if r.GetPath() == "" {
				r.Path = "/"
			}
		}
	} else {
		s.n.b.close(e, d.place, d.name, "redirects to what is made of other variables than $scheme, $host and $request_uri",
			"Route.redirect")
		return
	}
	r.StripQuery = strip && r.GetPath() != "" && !strings.Contains(r.GetPath(), "?")
	e.route.Redirect = r
	s.answered(e)
}
