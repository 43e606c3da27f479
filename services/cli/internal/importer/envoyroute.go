package importer

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

var headerKeys = []string{
	"request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
}

// route reads one of Envoy's.
func (e *envoy) route(a, vhost, table at, hosts []string, listener string, websocket bool, idle at) {
	b := e.b
	r := &entry{route: &configv1.Route{Hosts: slices.Clone(hosts), Listeners: []string{listener}}}
	name := a.get("name").text()
	if name == "" {
		name = e.vhost
	}
	match := a.get("match")
	problem := e.match(r, match)
	if problem != "" {
		a.done()
		if len(hosts) == 0 {
			hosts = []string{"*"}
		}
		b.closeHosts(hosts, match.place(), match.path, problem, "write the routes of the host by hand")
		return
	}
	b.route(a.place(), r, name)
	if p := a.get("typed_per_filter_config"); p.has() {
		for _, filter := range p.keys() {
			config := p.get(filter)
			kind := lastOf(config.get("@type").text(), ".")
			switch kind {
			case "LocalRateLimit":
				e.rateLimit(config, r)
			case "CorsPolicy":
				e.cors(r, config)
			}
		}
	}
	switch {
	case a.get("redirect").has():
		e.redirect(r, a.get("redirect"))
	case a.get("direct_response").has():
		d := a.get("direct_response")
		r.route.DirectResponse = &configv1.DirectResponse{Status: d.get("status").number(), Body: e.data(d.get("body"))}
		if d.get("status").number() < 200 {
			b.close(r, d.place(), d.path, "has a status below 200", "")
			return
		}
	case a.get("route").has():
		e.forward(r, a.get("route"), websocket, idle)
	default:
		a.done()
		b.close(r, a.place(), a.path, "is neither route, redirect nor direct_response", "write the route by hand")
		return
	}
	for _, level := range []at{a, vhost, table} {
		e.headers(&r.route.RequestHeaders, level.get("request_headers_to_add"), level.get("request_headers_to_remove"))
		e.headers(&r.route.ResponseHeaders, level.get("response_headers_to_add"), level.get("response_headers_to_remove"))
	}
	if r.route.GetDirectResponse() != nil {
		r.route.RequestHeaders = nil
		for _, h := range r.route.GetResponseHeaders().GetSet() {
			if strings.EqualFold(h.GetName(), "content-type") && !strings.Contains(h.GetValue(), "%") {
				r.route.DirectResponse.ContentType = h.GetValue()
			}
		}
	}
}

// match reads what a request has to be; it says why it cannot.
func (e *envoy) match(r *entry, a at) string {
	folded := a.get("case_sensitive").text() == "false"
	switch {
	case a.get("prefix").has():
		r.kind, r.path = under, a.get("prefix").text()
		if r.path == "" {
			r.path = "/"
		}
	case a.get("path").has():
		r.kind, r.path = exact, a.get("path").text()
	case a.get("path_separated_prefix").has():
		r.kind, r.path = segments, a.get("path_separated_prefix").text()
	case a.in("safe_regex", "regex").has():
		r.kind, r.path = matching, a.in("safe_regex", "regex").text()
		a.in("safe_regex", "google_re2").done()
	default:
		return "is by something else than prefix, path, path_separated_prefix and safe_regex"
	}
	if folded {
		r.path, r.kind = "(?i)"+r.pattern(), matching
	}
	for _, h := range a.get("headers").list() {
		name := h.get("name").text()
		m, ok := e.value(h)
		if !ok || strings.HasPrefix(name, ":") && name != ":method" {
			return "header " + name + " is compared in a way that no route has"
		}
		if name == ":method" {
			if m.GetExact() == "" || h.get("invert_match").yes() {
				return "methods are named one by one here"
			}
			r.route.Methods = append(r.route.Methods, m.GetExact())
			continue
		}
		r.route.Headers = append(r.route.Headers, &configv1.NamedMatch{
			Name: name, Value: m,
			Invert: h.get("invert_match").yes(),
		})
	}
	for _, q := range a.get("query_parameters").list() {
		m, ok := e.value(q)
		if !ok {
			return "a query parameter is compared in a way that no route has"
		}
		r.route.Query = append(r.route.Query, &configv1.NamedMatch{Name: q.get("name").text(), Value: m})
	}
	left := ""
	a.rest(func(x at, _ *yaml.Node) { left = "asks for " + lastOf(x.path, ".") + ", which no route does" })
	return left
}

// value is what a header or parameter is compared with.
func (e *envoy) value(a at) (*configv1.StringMatch, bool) {
	if p := a.get("present_match"); p.has() {
		return &configv1.StringMatch{Match: &configv1.StringMatch_Present{Present: p.yes()}}, true
	}
	s := a.get("string_match")
	for _, old := range []string{"exact_match", "prefix_match", "suffix_match"} {
		if a.get(old).has() {
			return stringMatch(strings.TrimSuffix(old, "_match"), a.get(old).text()), true
		}
	}
	if re := a.in("safe_regex_match", "regex"); re.has() {
		return stringMatch("regex", re.text()), true
	}
	if !s.has() { // a name alone: that it is there
		return &configv1.StringMatch{Match: &configv1.StringMatch_Present{Present: true}}, true
	}
	fold := s.get("ignore_case").yes()
	for _, kind := range []string{"exact", "prefix", "suffix", "contains"} {
		if !s.get(kind).has() {
			continue
		}
		text := s.get(kind).text()
		if !fold && kind != "contains" {
			return stringMatch(kind, text), true
		}
		before, after := "", ""
		if kind == "suffix" || kind == "contains" {
			before = ".*"
		}
		if kind == "prefix" || kind == "contains" {
			after = ".*"
		}
		re := before + regexp.QuoteMeta(text) + after
		if fold {
			re = "(?i)" + re
		}
		return stringMatch("regex", re), true
	}
	if re := s.in("safe_regex", "regex"); re.has() {
		return stringMatch("regex", re.text()), true
	}
	return nil, false
}

func stringMatch(kind, text string) *configv1.StringMatch {
	switch kind {
	case "exact":
		return &configv1.StringMatch{Match: &configv1.StringMatch_Exact{Exact: text}}
	case "prefix":
		return &configv1.StringMatch{Match: &configv1.StringMatch_Prefix{Prefix: text}}
	case "suffix":
		return &configv1.StringMatch{Match: &configv1.StringMatch_Suffix{Suffix: text}}
	}
	return &configv1.StringMatch{Match: &configv1.StringMatch_Regex{Regex: text}}
}

// headers adds a level's changes; a level further out comes later, as in Envoy.
func (e *envoy) headers(into **configv1.HeaderChanges, add, remove at) {
	change := func() *configv1.HeaderChanges {
		if *into == nil {
			*into = &configv1.HeaderChanges{}
		}
		return *into
	}
	for _, h := range add.list() {
		v := &configv1.HeaderValue{Name: h.in("header", "key").text(), Value: h.in("header", "value").text()}
		action := h.get("append_action").text()
		if old := h.get("append"); old.has() && !old.yes() {
			action = "OVERWRITE_IF_EXISTS_OR_ADD"
		}
		switch action {
		case "", "APPEND_IF_EXISTS_OR_ADD", "0":
			change().Add = append(change().Add, v)
		case "OVERWRITE_IF_EXISTS_OR_ADD", "2":
			change().Set = slices.DeleteFunc(change().Set, func(x *configv1.HeaderValue) bool {
				return strings.EqualFold(x.GetName(), v.GetName())
			})
			change().Set = append(change().Set, v)
		default:
			e.b.note(h.place(), h.path, "is set in a way that is not done here: "+action,
				"set or add of request_headers, response_headers")
		}
	}
	for _, name := range remove.texts() {
		change().Remove = append(change().Remove, name)
	}
}

func (e *envoy) redirect(r *entry, a at) {
	d := &configv1.Redirect{
		Scheme: a.get("scheme_redirect").text(), Host: a.get("host_redirect").text(), Port: a.get("port_redirect").number(),
		Path: a.get("path_redirect").text(), Prefix: a.get("prefix_rewrite").text(), StripQuery: a.get("strip_query").yes(),
	}
	if a.get("https_redirect").yes() {
		d.Scheme = "https"
	}
	code := a.get("response_code").text()
	d.Status = map[string]uint32{
		"": 301, "MOVED_PERMANENTLY": 301, "FOUND": 302, "SEE_OTHER": 303, "TEMPORARY_REDIRECT": 307, "PERMANENT_REDIRECT": 308,
		"0": 301, "1": 302, "2": 303, "3": 307, "4": 308,
	}[code]
	r.route.Redirect = d
	if a.get("regex_rewrite").has() || d.GetStatus() == 0 {
		a.done()
		e.b.close(r, a.place(), a.path, "is by an expression, which no redirect is here", "Route.redirect")
		return
	}
	if d.GetPrefix() != "" && r.kind != segments && r.path != "/" {
		// Envoy puts it in place of what the match takes, which here is a prefix of whole segments alone.
		if r.kind == under && strings.HasSuffix(r.path, "/") == strings.HasSuffix(d.GetPrefix(), "/") {
			e.b.note(a.place(), a.path,
				"is of a prefix by whole segments here: the path without what follows is redirected, too", "")
			r.kind = segments
			return
		}
		e.b.close(r, a.place(), a.path, "replaces a prefix that does not end with a segment", "Route.redirect.prefix")
	}
}

// forward sends requests to clusters.
func (e *envoy) forward(r *entry, a at, websocket bool, idle at) {
	b := e.b
	failed := func(p Place, why string) { b.close(r, p, a.path, why, "write the Service and the route by hand") }
	if w := a.get("weighted_clusters"); w.has() {
		for _, c := range w.get("clusters").list() {
			made, why := e.service(c.get("name").text())
			if why != "" {
				failed(c.place(), why)
				return
			}
			x := &configv1.Backend{Service: made, Weight: proto.Uint32(c.get("weight").number())}
			e.headers(&x.RequestHeaders, c.get("request_headers_to_add"), c.get("request_headers_to_remove"))
			r.route.Backends = append(r.route.Backends, x)
		}
		w.get("total_weight").done()
	} else {
		made, why := e.service(a.get("cluster").text())
		if why != "" {
			failed(a.place(), why)
			return
		}
		r.route.Backends = []*configv1.Backend{{Service: made}}
	}
	timeout := &durationpb.Duration{Seconds: 15} // Envoy's own, where nothing is said
	if t := a.get("timeout"); t.has() {
		timeout, _ = t.duration()
	}
	r.route.Timeout = timeout
	for _, t := range []at{a.get("idle_timeout"), idle} {
		if d, ok := t.duration(); ok && d != nil && r.route.GetIdleTimeout() == nil {
			r.route.IdleTimeout = d
		}
	}
	r.route.Websocket = websocket
	for _, u := range a.get("upgrade_configs").list() {
		if strings.EqualFold(u.get("upgrade_type").text(), "websocket") {
			r.route.Websocket = !u.get("enabled").has() || u.get("enabled").yes()
		}
	}
	if h := a.get("host_rewrite_literal").text(); h != "" {
		rewriteOf(r).Host = h
	}
	if p := a.get("prefix_rewrite"); p.text() != "" {
		if r.kind == matching {
			failed(p.place(), "replaces what an expression matches")
			return
		}
		to := p.text()
		r.to = &to
	}
	if x := a.get("regex_rewrite"); x.has() {
		rewriteOf(r).Regex = &configv1.RegexRewrite{
			Pattern: x.in("pattern", "regex").text(), Substitution: x.get("substitution").text(),
		}
		x.in("pattern", "google_re2").done()
	}
	for _, key := range []string{
		"path_rewrite_policy", "host_rewrite_header", "host_rewrite_path_regex",
		"auto_host_rewrite",
	} {
		if x := a.get(key); x.has() && x.text() != "false" {
			failed(x.place(), "changes path or host by "+key)
			return
		}
	}
	for _, m := range a.get("request_mirror_policies").list() {
		made, why := e.service(m.get("cluster").text())
		if why != "" {
			b.note(m.place(), m.path, why, "")
			continue
		}
		x := &configv1.Mirror{Service: made}
		if f := m.in("runtime_fraction", "default_value"); f.has() {
			x.Percent = proto.Float64(fraction(f))
		}
		r.route.Mirrors = append(r.route.Mirrors, x)
	}
	if c := a.get("cors"); c.has() {
		e.cors(r, c)
	}
	e.retry(r, a.get("retry_policy"))
	e.hash(r, a.get("hash_policy"))
}

// fraction is one in percent.
func fraction(a at) float64 {
	of := map[string]float64{"": 100, "HUNDRED": 100, "TEN_THOUSAND": 10000, "MILLION": 1e6}[a.get("denominator").text()]
	return float64(a.get("numerator").number()) * 100 / of
}

func (e *envoy) retry(r *entry, a at) {
	if !a.has() {
		return
	}
	out := &configv1.Retry{Attempts: max(a.get("num_retries").number(), 1)}
	out.Conditions = append(out.Conditions, a.get("retry_on").texts()...)
	for _, s := range a.get("retriable_status_codes").texts() {
		n, _ := strconv.ParseUint(s, 10, 32)
		out.Statuses = append(out.Statuses, uint32(n))
	}
	out.PerTryTimeout, _ = a.get("per_try_timeout").duration()
	out.Backoff, _ = a.in("retry_back_off", "base_interval").duration()
	r.route.Retry = out
}

// hash has the Services of a route choose endpoints by what its hash policies say.
func (e *envoy) hash(r *entry, a at) {
	var out []*configv1.HashOn
	for _, h := range a.list() {
		x := &configv1.HashOn{Terminal: h.get("terminal").yes()}
		switch {
		case h.in("header", "header_name").has():
			x.Source = &configv1.HashOn_Header{Header: h.in("header", "header_name").text()}
		case h.in("cookie", "name").has():
			c := &configv1.HashCookie{Name: h.in("cookie", "name").text(), Path: h.in("cookie", "path").text()}
			c.Ttl, _ = h.in("cookie", "ttl").duration()
			x.Source = &configv1.HashOn_Cookie{Cookie: c}
		case h.in("query_parameter", "name").has():
			x.Source = &configv1.HashOn_Query{Query: h.in("query_parameter", "name").text()}
		case h.in("connection_properties", "source_ip").yes():
			x.Source = &configv1.HashOn_SourceIp{SourceIp: true}
		default:
			e.b.note(h.place(), h.path, "hashes what is not hashed here", "Service.load_balancing.hash_on")
			continue
		}
		out = append(out, x)
	}
	if len(out) == 0 {
		return
	}
	for _, backend := range r.route.GetBackends() {
		for _, o := range e.b.objects {
			s, is := o.spec.(*configv1.Service)
			if is && o.ref.Name == backend.GetService() && s.GetLoadBalancing() != nil &&
				s.GetLoadBalancing().GetHashOn() == nil {
				s.LoadBalancing.HashOn = out
			}
		}
	}
}

func (e *envoy) cors(r *entry, a at) {
	a.get("@type").done()
	c := &configv1.Cors{
		AllowMethods: a.get("allow_methods").texts(), AllowHeaders: a.get("allow_headers").texts(),
		ExposeHeaders: a.get("expose_headers").texts(), AllowCredentials: a.get("allow_credentials").yes(),
	}
	if n := a.get("max_age").number(); n > 0 {
		c.MaxAge = &durationpb.Duration{Seconds: int64(n)}
	}
	for _, o := range a.get("allow_origin_string_match").list() {
		for _, kind := range []string{"exact", "prefix", "suffix"} {
			if o.get(kind).has() {
				c.AllowOrigins = append(c.AllowOrigins, stringMatch(kind, o.get(kind).text()))
			}
		}
		if re := o.in("safe_regex", "regex"); re.has() {
			c.AllowOrigins = append(c.AllowOrigins, stringMatch("regex", re.text()))
		}
	}
	if len(c.GetAllowOrigins()) > 0 {
		r.route.Cors = c
	}
}

// rateLimit is a token bucket of a route, or of the gateway where r is nil.
func (e *envoy) rateLimit(a at, r *entry) {
	for _, key := range []string{"@type", "stat_prefix", "filter_enabled", "filter_enforced"} {
		a.get(key).done()
	}
	bucket := a.get("token_bucket")
	if !bucket.has() {
		return
	}
	limit := &configv1.LocalRateLimit{Requests: max(bucket.get("tokens_per_fill").number(), 1)}
	if n := bucket.get("max_tokens").number(); n != limit.GetRequests() {
		limit.Burst = n
	}
	limit.Per, _ = bucket.get("fill_interval").duration()
	if r == nil {
		e.b.limit().LocalRateLimit = limit
	} else {
		r.route.LocalRateLimit = limit
	}
}

// service makes a cluster's Service, once; it says why it cannot.
func (e *envoy) service(name string) (made, why string) {
	if made, done := e.made[name]; done {
		return made, ""
	}
	a, known := e.clusters[name]
	if !known {
		return "", "goes to a cluster that is not in the input"
	}
	if kind := a.get("type").text(); !slices.Contains([]string{"", "STATIC", "STRICT_DNS", "LOGICAL_DNS"}, kind) ||
		a.get("cluster_type").has() {
		return "", "goes to a cluster whose endpoints are not in the input (" + kind + ")"
	}
	spec := &configv1.Service{}
	spec.ConnectTimeout, _ = a.get("connect_timeout").duration()
	for _, key := range []string{"name", "dns_lookup_family", "respect_dns_ttl", "alt_stat_name"} {
		a.get(key).done()
	}
	a.in("load_assignment", "cluster_name").done()
	for _, l := range a.in("load_assignment", "endpoints").list() {
		for _, x := range l.get("lb_endpoints").list() {
			socket := x.in("endpoint", "address", "socket_address")
			p := &configv1.Endpoint{
				Host: socket.get("address").text(), Port: socket.get("port_value").number(),
				Weight: x.get("load_balancing_weight").number(), Priority: l.get("priority").number(),
				Region: l.in("locality", "region").text(), Zone: l.in("locality", "zone").text(),
			}
			if p.GetPort() == 0 {
				return "", "goes to a cluster with an endpoint that is no host and port"
			}
			spec.Endpoints = append(spec.Endpoints, p)
		}
	}
	if p := e.balance(spec, a); p != "" {
		return "", p
	}
	e.protocol(spec, a)
	if why := e.upstream(spec, a.get("transport_socket")); why != "" {
		return "", why
	}
	e.checks(spec, a)
	made = e.b.name(resource.KindService, name)
	e.made[name] = made
	e.b.add(a.place(), resource.KindService, made, spec)
	return made, ""
}

func (e *envoy) balance(spec *configv1.Service, a at) string {
	policy := a.get("lb_policy").text()
	p, known := map[string]configv1.LoadBalancing_Policy{
		"": 0, "ROUND_ROBIN": 0, "LEAST_REQUEST": configv1.LoadBalancing_least_request,
		"RING_HASH": configv1.LoadBalancing_ring_hash, "MAGLEV": configv1.LoadBalancing_maglev, "RANDOM": configv1.LoadBalancing_random,
	}[policy]
	if !known {
		return "goes to a cluster that chooses endpoints by " + policy
	}
	if p != 0 {
		spec.LoadBalancing = &configv1.LoadBalancing{Policy: p}
		spec.LoadBalancing.ChoiceCount = a.in("least_request_lb_config", "choice_count").number()
		spec.LoadBalancing.MinRingSize = a.in("ring_hash_lb_config", "minimum_ring_size").number()
		spec.LoadBalancing.TableSize = a.in("maglev_lb_config", "table_size").number()
	}
	if t := a.in("circuit_breakers", "thresholds").list(); len(t) > 0 {
		spec.CircuitBreaker = &configv1.CircuitBreaker{
			MaxConnections: t[0].get("max_connections").number(), MaxPendingRequests: t[0].get("max_pending_requests").number(),
			MaxRequests: t[0].get("max_requests").number(), MaxRetries: t[0].get("max_retries").number(),
		}
	}
	return ""
}

// protocol is what is spoken to the endpoints.
func (e *envoy) protocol(spec *configv1.Service, a at) {
	options := a.get("typed_extension_protocol_options")
	for _, key := range options.keys() {
		o := options.get(key)
		o.get("@type").done()
		explicit := o.get("explicit_http_config")
		if x := explicit.get("http2_protocol_options"); x.node != nil {
			x.done()
			spec.Protocol = configv1.Service_http2
		}
		explicit.get("http_protocol_options").done()
		spec.IdleTimeout, _ = o.in("common_http_protocol_options", "idle_timeout").duration()
	}
	if x := a.get("http2_protocol_options"); x.node != nil { // as it was before
		x.done()
		spec.Protocol = configv1.Service_http2
	}
}

// upstream is TLS towards the endpoints. Envoy accepts any certificate where it is told of no authority.
func (e *envoy) upstream(spec *configv1.Service, a at) string {
	if !a.has() {
		return ""
	}
	a.get("name").done()
	c := a.get("typed_config")
	if !strings.HasSuffix(c.get("@type").text(), "UpstreamTlsContext") {
		return "goes to a cluster with a transport that is not TLS"
	}
	if spec.GetProtocol() == configv1.Service_PROTOCOL_UNSPECIFIED {
		spec.Protocol = configv1.Service_https
	}
	common := c.get("common_tls_context")
	common.get("alpn_protocols").done()
	spec.Tls = &configv1.UpstreamTls{Sni: c.get("sni").text()}
	trusted := common.in("validation_context", "trusted_ca")
	if !trusted.has() {
		e.b.note(c.place(), c.path, "is not verified by Envoy, and is here, by the system's authorities",
			"Service.tls.ca_certificate, or insecure_skip_verify where any certificate will do")
	} else if name := trusted.get("filename").text(); !strings.HasPrefix(name, "/etc/ssl/") &&
		!strings.HasPrefix(name, "/etc/pki/") {
		chain := e.data(trusted)
		if chain == "" {
			return "goes to a cluster whose authorities cannot be read here"
		}
		spec.Tls.CaCertificate = e.b.pem(trusted.place(), &configv1.Certificate{Chain: chain}, e.vhost, "authorities")
	}
	for _, own := range common.get("tls_certificates").list() {
		cert := &configv1.Certificate{Chain: e.data(own.get("certificate_chain")), PrivateKey: e.data(own.get("private_key"))}
		if cert.GetPrivateKey() == "" {
			return "goes to a cluster whose client certificate cannot be read here"
		}
		spec.Tls.ClientCertificate = e.b.pem(own.place(), cert, e.vhost, "client")
	}
	return ""
}

// checks are health checks and outlier detection. With them Envoy sends requests to all endpoints once half are
// unhealthy, which is said, since it is otherwise here.
func (e *envoy) checks(spec *configv1.Service, a at) {
	for i, h := range a.get("health_checks").list() {
		if i > 0 {
			e.b.note(h.place(), h.path, "a Service has one health check", "")
			continue
		}
		c := &configv1.HealthCheck{
			HealthyThreshold: h.get("healthy_threshold").number(), UnhealthyThreshold: h.get("unhealthy_threshold").number(),
		}
		c.Interval, _ = h.get("interval").duration()
		c.Timeout, _ = h.get("timeout").duration()
		switch {
		case h.get("http_health_check").node != nil:
			x := h.get("http_health_check")
			check := &configv1.HttpCheck{Path: x.get("path").text(), Host: x.get("host").text()}
			for _, s := range x.get("expected_statuses").list() {
				for n := s.get("start").number(); n < s.get("end").number() && len(check.ExpectedStatuses) < 65; n++ {
					check.ExpectedStatuses = append(check.ExpectedStatuses, n)
				}
			}
			c.Check = &configv1.HealthCheck_Http{Http: check}
		case h.get("grpc_health_check").node != nil:
			h.get("grpc_health_check").read()
			c.Check = &configv1.HealthCheck_Grpc{Grpc: &configv1.GrpcCheck{Service: h.in("grpc_health_check",
				"service_name").text()}}
		case h.get("tcp_health_check").node != nil:
			h.get("tcp_health_check").read()
			c.Check = &configv1.HealthCheck_Tcp{Tcp: &configv1.TcpCheck{}}
		default:
			e.b.note(h.place(), h.path, "is of a kind that is not known here", "Service.health_check")
			continue
		}
		spec.HealthCheck = c
	}
	if o := a.get("outlier_detection"); o.node != nil {
		o.read()
		x := &configv1.OutlierDetection{
			Consecutive_5Xx: o.get("consecutive_5xx").number(), ConsecutiveGatewayFailure: o.get("consecutive_gateway_failure").number(),
			MaxEjectionPercent: o.get("max_ejection_percent").number(),
		}
		x.Interval, _ = o.get("interval").duration()
		x.BaseEjectionTime, _ = o.get("base_ejection_time").duration()
		spec.OutlierDetection = x
	}
	panic := a.in("common_lb_config", "healthy_panic_threshold", "value")
	if panic.has() {
		spec.PanicThreshold = proto.Uint32(panic.number())
	} else if spec.GetHealthCheck() != nil || spec.GetOutlierDetection() != nil {
		spec.PanicThreshold = proto.Uint32(50)
	}
}
