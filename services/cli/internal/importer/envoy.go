package importer

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/basic_auth/v3" // their types are known
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

var envoyWords = regexp.MustCompile(`(?m)^\s*["']?(static_resources|staticResources)["']?\s*:|"(static_resources|staticResources)"\s*:`)

func isEnvoy(_ string, raw []byte) bool { return envoyWords.Match(raw) }

// envoy reads a bootstrap: first its types, strictly, then what of it has an equal.
type envoy struct {
	b        *builder
	clusters map[string]at
	made     map[string]string
	vhost    string
}

func readEnvoy(b *builder, name string, raw []byte) error {
	roots, err := readYAML(name, raw)
	if err != nil {
		return err
	}
	for _, root := range roots {
		e := &envoy{b: b, clusters: map[string]at{}, made: map[string]string{}}
		m := &bootstrapv3.Bootstrap{}
		e.types(root.node, m.ProtoReflect().Descriptor(), root, "")
		text, err := root.json()
		if err == nil {
			err = protojson.Unmarshal(text, m)
		}
		if err == nil {
			err = m.ValidateAll()
		}
		if err != nil {
			// The text of the error may have what stands in the file.
			return fmt.Errorf("%s: is no bootstrap that an Envoy would take: %s", name, reason(err))
		}
		e.read(root)
	}
	return nil
}

var protoError = regexp.MustCompile(`(unknown field "[^"]*"|invalid [A-Za-z0-9_.]+: [^|;]*|field [a-zA-Z0-9_.]+ [^:]*|caused by: [^|;]*)`)

func reason(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	if m := protoError.FindString(text); m != "" {
		return m
	}
	return "a value is of another type than its field"
}

// types has each name as the schema writes it, and takes away, with a note, what no schema has.
func (e *envoy) types(n *yaml.Node, d protoreflect.MessageDescriptor, root at, path string) {
	if n.Kind != yaml.MappingNode || d == nil {
		return
	}
	if d.FullName() == "google.protobuf.Any" {
		d = e.any(n, root, path)
		if d == nil {
			return
		}
	}
	if strings.HasPrefix(string(d.FullName()), "google.protobuf.") {
		return
	}
	for i := 0; i+1 < len(n.Content); {
		key, value := n.Content[i], n.Content[i+1]
		if key.Value == "@type" {
			i += 2
			continue
		}
		f := d.Fields().ByName(protoreflect.Name(key.Value))
		if f == nil {
			f = d.Fields().ByJSONName(key.Value)
		}
		where := strings.TrimPrefix(path+"."+key.Value, ".")
		if f == nil {
			e.b.note(root.tree.pos(key), where, fmt.Sprintf("is no field of %s", d.Name()), "correct its name")
			n.Content = slices.Delete(n.Content, i, i+2)
			continue
		}
		key.Value = string(f.Name())
		switch {
		case f.IsMap():
			for j := 1; f.MapValue().Message() != nil && j < len(value.Content); j += 2 {
				e.types(value.Content[j], f.MapValue().Message(), root, where)
			}
		case f.IsList():
			for j, x := range value.Content {
				e.types(x, f.Message(), root, fmt.Sprintf("%s[%d]", where, j))
			}
		default:
			e.types(value, f.Message(), root, where)
		}
		i += 2
	}
}

// unknownType stands in place of what is of a type that is not read here.
const unknownType = "type.googleapis.com/google.protobuf.Empty"

// any is the type of an Any. What is of no known type is emptied, so that the rest can be read strictly.
func (e *envoy) any(n *yaml.Node, root at, path string) protoreflect.MessageDescriptor {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != "@type" {
			continue
		}
		if t, err := protoregistry.GlobalTypes.FindMessageByURL(n.Content[i+1].Value); err == nil {
			return t.Descriptor()
		}
		e.b.note(root.tree.pos(n), path, "is of a type that is not read here: "+lastOf(n.Content[i+1].Value, "/"), "")
		n.Content[i+1].Value = unknownType
		n.Content = n.Content[i : i+2]
		return nil
	}
	return nil
}

func lastOf(s, sep string) string { return s[strings.LastIndex(s, sep)+1:] }

func (e *envoy) read(root at) {
	static := root.get("static_resources")
	for _, c := range static.get("clusters").list() {
		e.clusters[c.get("name").text()] = c
	}
	for _, l := range static.get("listeners").list() {
		e.listener(l)
	}
	for name, c := range sorted(e.clusters) {
		if e.made[name] == "" {
			c.done()
			e.b.note(c.place(), "cluster "+name, "is used by no route that is imported", "")
		}
	}
	for _, key := range []string{"node", "admin"} {
		if a := root.get(key); a.has() {
			a.done()
			e.b.note(a.place(), key, "is given to each Envoy by its agent here", "")
		}
	}
	for _, s := range static.get("secrets").list() {
		s.get("name").text()
	}
	root.rest(func(a at, key *yaml.Node) {
		why, remedy := "has no equal here", ""
		for word, w := range sorted(envoyListed) {
			if strings.HasSuffix(a.path, word) {
				why, remedy = w[0], w[1]
			}
		}
		if a.node.Kind == yaml.ScalarNode && slices.Contains([]string{"false", "0", ""}, a.node.Value) {
			return // as if it were not there
		}
		e.b.note(a.tree.pos(key), a.path, why, remedy)
	})
}

var envoyListed = map[string][2]string{
	"access_log": {"is another log here", "Gateway.access_log"}, "tracing": {"is set for the gateway", "Gateway.tracing"},
	"rate_limits": {"is of a rate limit service, which is not asked here", limitRemedy},
}

func (e *envoy) listener(l at) {
	b := e.b
	name := l.get("name").text()
	socket := l.in("address", "socket_address")
	port := socket.get("port_value").number()
	address := socket.get("address").text()
	if port == 0 {
		l.done()
		b.note(l.place(), "listener "+name, "has no address and port of TCP", "")
		return
	}
	if p := socket.get("protocol"); p.has() {
		p.done()
	}
	l.get("stat_prefix").done()
	for _, f := range l.get("listener_filters").list() {
		if strings.HasSuffix(f.in("typed_config", "@type").text(), "TlsInspector") {
			f.done()
		}
	}
	chains := l.get("filter_chains").list()
	if own := l.get("default_filter_chain"); own.has() {
		chains = append(chains, own)
	}
	if name == "" {
		name = fmt.Sprintf("port-%d", port)
	}
	var made *configv1.Listener
	for _, chain := range chains {
		socket := chain.in("transport_socket", "typed_config")
		chain.in("transport_socket", "name").done()
		chain.get("name").done()
		tls := socket.has()
		made = b.listener(l.place(), name, address, port, tls)
		names := chain.in("filter_chain_match", "server_names").texts()
		for _, x := range chain.get("filters").list() {
			x.get("name").done()
			hcm := x.get("typed_config")
			if !strings.HasSuffix(hcm.get("@type").text(), "HttpConnectionManager") {
				hcm.done()
				b.note(x.place(), x.path, "is no HTTP: TCP and other protocols are not served here", "")
				continue
			}
			before := len(b.entries)
			e.manager(hcm, made.GetName())
			if tls {
				e.downstream(made, socket, names, b.entries[before:])
			}
		}
	}
}

// downstream has a listener present certificates, and ask for those of clients.
func (e *envoy) downstream(l *configv1.Listener, a at, names []string, routes []*entry) {
	b := e.b
	common := a.get("common_tls_context")
	a.get("@type").done()
	for _, c := range common.get("tls_certificates").list() {
		spec := &configv1.Certificate{Chain: e.data(c.get("certificate_chain")), PrivateKey: e.data(c.get("private_key"))}
		if spec.Chain == "" || spec.PrivateKey == "" {
			b.note(c.place(), "tls_certificates", "cannot be read here",
				"run the import where its files are, or add the Certificate by hand")
			continue
		}
		made := b.pem(c.place(), spec, firstName(append(slices.Clone(names), l.GetName())))
		if !slices.Contains(l.GetCertificates(), made) {
			l.Certificates = append(l.Certificates, made)
		}
	}
	common.get("alpn_protocols").done()
	if !a.get("require_client_certificate").yes() {
		return
	}
	hosts := names
	for _, r := range routes {
		if len(names) == 0 {
			hosts = append(hosts, r.route.GetHosts()...)
		}
	}
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	validation := common.get("validation_context")
	ca := e.data(validation.get("trusted_ca"))
	rest := false
	validation.rest(func(at, *yaml.Node) { rest = true })
	if ca == "" || len(hosts) == 0 || slices.Contains(hosts, "*") || rest || slices.ContainsFunc(routes,
		func(r *entry) bool {
			return len(r.route.GetHosts()) == 0
		}) {
		b.note(a.get("require_client_certificate").place(), "require_client_certificate",
			"is for exact names and *.NAME, with an authority "+
				"alone, so that the routes of listener "+l.GetName()+" are closed: they answer 503", "write client_auth of the listener by hand")
		for _, r := range routes {
			r.shut()
		}
		return
	}
	made := b.pem(validation.place(), &configv1.Certificate{Chain: ca}, l.GetName(), "clients")
	l.ClientAuth = append(l.ClientAuth, &configv1.ClientAuth{Hosts: hosts, CaCertificate: made})
}

// data is a source of data: in the file, or in another one.
func (e *envoy) data(a at) string {
	if s := a.get("inline_string").text(); s != "" {
		return s
	}
	if name := a.get("filename").text(); name != "" {
		raw, err := os.ReadFile(beside(a.place().File, name))
		if err == nil {
			return string(raw)
		}
	}
	return ""
}

// harmless are filters that keep nobody out; of the others the routes are closed, unless they are read.
var harmless = []string{
	"Compressor", "Decompressor", "FilterConfig.grpc_stats", "GrpcWeb", "Buffer", "HTTPFault", "BandwidthLimit",
	"AdmissionControl", "AdaptiveConcurrency", "OnDemand", "StatefulSession", "HealthCheck", "Gzip",
}

func (e *envoy) manager(a at, listener string) {
	b := e.b
	before := len(b.entries)
	for _, key := range []string{"stat_prefix", "@type", "codec_type", "generate_request_id", "server_name"} {
		a.get(key).done()
	}
	for _, key := range []string{"use_remote_address", "normalize_path", "merge_slashes", "strip_any_host_port"} {
		if x := a.get(key); x.yes() { // as it is here
			x.done()
		}
	}
	for key, set := range sorted(map[string]func(at){
		"request_timeout": func(x at) { b.limit().RequestTimeout, _ = x.duration() },
		"request_headers_timeout": func(x at) {
			b.limit().RequestHeadersTimeout, _ = x.duration()
		},
		"max_request_headers_kb": func(x at) { b.limit().MaxRequestHeadersKb = x.number() },
	}) {
		if x := a.get(key); x.has() {
			set(x)
		}
	}
	if x := a.in("common_http_protocol_options", "idle_timeout"); x.has() {
		b.limit().IdleTimeout, _ = x.duration()
	}
	if x := a.in("common_http_protocol_options", "max_headers_count"); x.has() {
		b.limit().MaxRequestHeaders = x.number()
	}
	websocket := false
	for _, u := range a.get("upgrade_configs").list() {
		if strings.EqualFold(u.get("upgrade_type").text(), "websocket") {
			websocket = true
		}
	}
	closed := map[string]at{}
	for _, f := range a.get("http_filters").list() {
		f.get("name").done()
		config := f.get("typed_config")
		kind := lastOf(config.get("@type").text(), ".")
		switch {
		case kind == "Router":
			f.done()
		case kind == "Cors":
			config.done()
		case kind == "LocalRateLimit":
			e.rateLimit(config, nil)
		case slices.Contains(harmless, kind):
			f.done()
			b.note(f.place(), f.path, "has no equal here: "+kind, "")
		default:
			f.done()
			closed[f.path] = f
		}
	}
	routes := a.get("route_config")
	if !routes.has() {
		b.note(a.place(), "rds", "routes that come from elsewhere are not in the input", "give a bootstrap that has them")
	}
	routes.get("name").done()
	e.hosts(routes, listener, websocket, a.get("stream_idle_timeout"))
	for _, path := range sortedKeys(closed) {
		b.note(closed[path].place(), path,
			"may decide who passes, and is not read here, so that the routes of listener "+listener+
				" are closed: they answer 503", "write their AuthPolicy, and the routes, by hand")
		for _, r := range b.entries[before:] {
			r.shut()
		}
	}
}

// hosts reads a route table.
func (e *envoy) hosts(a at, listener string, websocket bool, idle at) {
	for _, v := range a.get("virtual_hosts").list() {
		e.vhost = v.get("name").text()
		var hosts []string
		any := false
		for _, d := range v.get("domains").texts() {
			name, _, _ := strings.Cut(d, ":")
			switch {
			case d == "*":
				any = true
			case strings.HasSuffix(name, "*") || strings.Contains(strings.TrimPrefix(name, "*."), "*"):
				e.b.note(v.get("domains").place(), "domain "+d, "hosts are exact names or *.NAME here", "name the hosts")
			default:
				hosts = append(hosts, strings.ToLower(name))
			}
		}
		slices.Sort(hosts)
		hosts = slices.Compact(hosts)
		if any && len(hosts) > 0 {
			hosts = append([]string{"*"}, hosts...)
		}
		if !any && len(hosts) == 0 {
			v.done()
			continue
		}
		if tls := v.get("require_tls"); tls.has() && tls.text() != "NONE" {
			x := &entry{kind: under, path: "/", route: &configv1.Route{
				Hosts: hosts, Listeners: []string{listener}, Redirect: &configv1.Redirect{Scheme: "https", Status: 301},
			}}
			if l := e.b.listenerOf(listener); l.GetProtocol() != configv1.Listener_https {
				e.b.route(v.place(), x, e.vhost, "tls")
			}
		}
		for _, r := range v.get("routes").list() {
			e.route(r, v, a, hosts, listener, websocket, idle)
		}
		for _, level := range []at{v, a} {
			for _, key := range headerKeys {
				level.get(key).done()
			}
		}
	}
}

func (b *builder) listenerOf(name string) *configv1.Listener {
	for _, l := range b.listeners {
		if l.GetName() == name {
			return l
		}
	}
	return nil
}
