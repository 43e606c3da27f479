package importer

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/labels"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

var (
	traefikYAML  = regexp.MustCompile(`(?mi)^(http|entryPoints|tls|certificatesResolvers)\s*:|^\s*["']?http["']?\s*:\s*\{`)
	traefikTOML  = regexp.MustCompile(`(?mi)^\s*\[(http|entryPoints|tls|certificatesResolvers)\.`)
	traefikLabel = regexp.MustCompile(`(?i)traefik\.http\.`)
)

func isTraefik(name string, raw []byte) bool {
	return traefikYAML.Match(raw) || traefikTOML.Match(raw) || traefikLabel.Match(raw) && !bytes.Contains(raw,
		[]byte("server {")) ||
		filepath.Ext(name) == ".toml"
}

// traefik is all that files say, its trees beside one another.
type traefik struct {
	b           *builder
	roots       []at
	entryPoints map[string]*entryPoint
	made        map[string]string
	hosts       map[string]string // of the containers, by the services of their labels
}

type entryPoint struct {
	name     string
	at       at
	tls      bool
	listener string
	to       string // the one that all requests are redirected to
}

func readTraefik(b *builder, name string, raw []byte) error {
	if b.traefik == nil {
		b.traefik = &traefik{
			b: b, entryPoints: map[string]*entryPoint{}, made: map[string]string{},
			hosts: map[string]string{},
		}
		b.last = append([]func(){b.traefik.read}, b.last...)
	}
	t := b.traefik
	if filepath.Ext(name) == ".toml" || traefikTOML.Match(raw) {
		root, err := readTOML(name, raw)
		if err != nil {
			return err
		}
		t.roots = append(t.roots, root)
		return nil
	}
	roots, err := readYAML(name, raw)
	if err != nil {
		return err
	}
	for _, r := range roots {
		if services := r.get("services"); services.has() && !r.get("http").has() {
			if err := t.compose(r, services); err != nil {
				return err
			}
			continue
		}
		t.roots = append(t.roots, r)
	}
	return nil
}

// compose makes a tree of the labels of a compose file's services, and of the flags of Traefik's own.
func (t *traefik) compose(file, services at) error {
	root := mapNode(1)
	tree := at{tree: &tree{taken: map[*yaml.Node]bool{}, pos: file.tree.pos}, node: root}
	for _, name := range services.keys() {
		s := services.get(name)
		host := name
		if own := s.get("container_name").text(); own != "" {
			host = own
		}
		flags := s.get("command")
		for _, f := range flags.list() {
			for _, word := range strings.Fields(f.text()) {
				if key, value, is := strings.Cut(word, "="); is && strings.HasPrefix(key, "--") {
					set(root, strings.Split(key[2:], "."), value, f.node.Line)
				}
			}
		}
		t.labelled(root, s.get("labels"), host)
	}
	t.roots = append(t.roots, tree)
	return nil
}

// labelled puts a container's labels into a tree. What they call a service without saying where is the container.
func (t *traefik) labelled(root *yaml.Node, all at, host string) {
	type label struct {
		name, value string
		line        int
	}
	var out []label
	for _, k := range all.keys() {
		v := all.get(k)
		out = append(out, label{k, v.text(), v.node.Line})
	}
	if all.node != nil && all.node.Kind == yaml.SequenceNode {
		for _, x := range all.list() {
			k, v, _ := strings.Cut(x.text(), "=")
			out = append(out, label{k, v, x.node.Line})
		}
	}
	flat := map[string]string{}
	for _, l := range out {
		flat[l.name] = l.value
	}
	basics := labels.ReadBasics(flat)
	if _, there := flat["traefik.enable"]; there && !basics.Enabled {
		return
	}
	services, routers := map[string]bool{}, map[string]bool{}
	for _, l := range out {
		name, theirs := strings.CutPrefix(strings.ToLower(l.name), "traefik.")
		if !theirs || name == "enable" || name == "docker.network" {
			continue
		}
		parts := strings.Split(l.name, ".")[1:]
		if len(parts) > 3 && strings.EqualFold(parts[0], "http") {
			switch strings.ToLower(parts[1]) {
			case "services":
				services[parts[2]] = true
			case "routers":
				routers[parts[2]] = true
			}
		}
		set(root, parts, strings.ReplaceAll(l.value, "$$", "$"), l.line)
	}
	if len(services) == 0 && len(routers) > 0 {
		services[host] = true
		set(root, []string{"http", "services", host, "loadbalancer", "server", "port"}, strconv.Itoa(int(basics.Port)),
			all.node.Line)
	}
	for s := range sorted(services) {
		t.hosts[s] = host
	}
	if len(services) == 1 {
		for r := range sorted(routers) { // a router that names no service has the only one
			at := below(below(below(root, "http", all.node.Line, false), "routers", all.node.Line, false), r, all.node.Line,
				false)
			if !slices.ContainsFunc(at.Content, func(n *yaml.Node) bool { return strings.EqualFold(n.Value, "service") }) {
				for s := range sorted(services) {
					set(at, []string{"service"}, s, all.node.Line)
				}
			}
		}
	}
}

var numbered = regexp.MustCompile(`^(.+)\[(\d+)\]$`)

// set puts a value at a path, as labels and flags write it; elements of lists are numbered.
func set(n *yaml.Node, path []string, value string, line int) {
	for _, key := range path[:len(path)-1] {
		if m := numbered.FindStringSubmatch(key); m != nil {
			i, _ := strconv.Atoi(m[2])
			list := below(n, m[1], line, false)
			if list.Kind == yaml.MappingNode && len(list.Content) == 0 {
				list.Kind, list.Tag = yaml.SequenceNode, "!!seq"
			}
			owner := sequence(n, m[1])
			for owner != nil && len(owner.Content) <= i && i < 1000 {
				owner.Content = append(owner.Content, mapNode(line))
			}
			if owner == nil || i >= len(owner.Content) {
				return
			}
			n = owner.Content[i]
			continue
		}
		n = below(n, key, line, false)
	}
	n.Content = append(n.Content, textNode(path[len(path)-1], line), textNode(value, line))
}

func sequence(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key && n.Content[i+1].Kind == yaml.SequenceNode {
			return n.Content[i+1]
		}
	}
	return nil
}

// find is a path in the first tree that has it.
func (t *traefik) find(path ...string) at {
	var out at
	for _, r := range t.roots {
		if out = r.in(path...); out.node != nil {
			return out
		}
	}
	return out
}

// names are those below a path in all trees.
func (t *traefik) names(path ...string) (out []string) {
	for _, r := range t.roots {
		out = append(out, r.in(path...).keys()...)
	}
	return out
}

// local is a name without its provider.
func local(name string) string {
	name, _, _ = strings.Cut(name, "@")
	return name
}

// router is one on its way.
type router struct {
	name     string
	at       at
	priority int
	tls      bool
	points   []string
}

func (t *traefik) read() {
	for _, name := range t.names("entryPoints") {
		a := t.find("entryPoints", name)
		e := &entryPoint{name: name, at: a, tls: a.in("http", "tls").node != nil}
		a.in("http", "tls").done()
		e.to = a.in("http", "redirections", "entryPoint", "to").text()
		a.in("http", "redirections", "entryPoint", "scheme").done()
		a.in("http", "redirections", "entryPoint", "permanent").done()
		t.entryPoints[name] = e
	}
	var routers []*router
	for _, name := range t.names("http", "routers") {
		r := &router{name: name, at: t.find("http", "routers", name)}
		r.points = r.at.get("entryPoints").texts()
		r.tls = r.at.get("tls").node != nil && r.at.get("tls").node.Value != "false"
		if tls := r.at.get("tls"); tls.node != nil && len(tls.node.Content) == 0 {
			tls.done()
		}
		r.priority = int(r.at.get("priority").number())
		if r.priority == 0 {
			r.priority = len(r.at.get("rule").text())
		}
		for _, p := range r.points {
			if t.entryPoints[p] == nil {
				t.entryPoints[p] = &entryPoint{name: p}
				t.b.note(r.at.get("entryPoints").place(), "entryPoint "+p,
					"has its address in Traefik's static configuration, which is "+
						"not in the input; the routes name the listener "+plainName(p)+" of the gateway", "import both together, or add the listener")
			}
			if r.tls {
				t.entryPoints[p].tls = true
			}
		}
		routers = append(routers, r)
	}
	secure := slices.ContainsFunc(routers, func(r *router) bool { return r.tls })
	if secure && !slices.ContainsFunc(routers, func(r *router) bool { return r.tls && len(r.points) > 0 }) {
		for _, e := range t.entryPoints { // by its port alone
			e.tls = e.tls || strings.HasSuffix(e.at.get("address").text(), ":443")
		}
	}
	t.listeners()
	slices.SortStableFunc(routers, func(a, b *router) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.name, b.name))
	})
	for _, r := range routers {
		t.router(r)
	}
	t.everywhere()
	t.certificates()
	for _, r := range t.roots {
		for _, key := range []string{"providers", "api", "log", "accessLog", "global", "ping"} {
			if a := r.get(key); a.has() {
				a.done()
				if key == "accessLog" {
					t.b.note(a.place(), key, "is another log here", "Gateway.access_log")
				}
			}
		}
		r.rest(func(a at, key *yaml.Node) {
			t.b.note(a.tree.pos(key), a.path, "has no equal here, or nothing uses it", "")
		})
	}
}

// listeners makes those of the entry points whose addresses are known.
func (t *traefik) listeners() {
	for _, name := range sortedKeys(t.entryPoints) {
		e := t.entryPoints[name]
		e.listener = plainName(name)
		address := e.at.get("address").text()
		if address == "" {
			continue
		}
		address, proto, _ := strings.Cut(address, "/")
		host, port, err := net.SplitHostPort(address)
		n, bad := strconv.ParseUint(port, 10, 16)
		if err != nil || bad != nil || proto != "" && proto != "tcp" {
			t.b.note(e.at.get("address").place(), "entryPoint "+name, "has no address and port of TCP", "")
			continue
		}
		e.listener = t.b.listener(e.at.place(), name, host, uint32(n), e.tls).GetName()
	}
	for _, name := range sortedKeys(t.entryPoints) {
		if e := t.entryPoints[name]; e.to != "" {
			x := &entry{kind: under, path: "/", route: &configv1.Route{Listeners: []string{e.listener}}}
			to := &configv1.Redirect{Scheme: "https"}
			if p := t.entryPoints[e.to]; p != nil {
				if _, port, err := net.SplitHostPort(p.at.get("address").text()); err == nil && port != "443" {
					n, _ := strconv.ParseUint(port, 10, 16)
					to.Port = uint32(n)
				}
			}
			t.b.route(e.at.place(), x, name, "redirect")
			permanent := e.at.in("http", "redirections", "entryPoint", "permanent")
			t.redirect(x, !permanent.has() || permanent.yes(), to)
		}
	}
}

// on are the listeners of a router.
func (t *traefik) on(r *router) (out []string) {
	points := r.points
	if len(points) == 0 {
		points = sortedKeys(t.entryPoints)
	}
	for _, p := range points {
		if e := t.entryPoints[p]; e.tls == r.tls || r.at.tree == nil {
			if e.to == "" {
				out = append(out, e.listener)
			}
		} else if e.tls && !r.tls && e.at.node != nil && e.at.in("http", "tls").node != nil {
			out = append(out, e.listener)
		} else if len(r.points) > 0 {
			t.b.note(r.at.place(), "entryPoint "+p, "has requests with TLS and without, and here one of both",
				"give them ports of their own")
		}
	}
	return out
}

// everywhere has what is for any host be for each host that others name, too: a host that is known has its own routes
// here, and no others.
func (t *traefik) everywhere() {
	known := map[string]bool{}
	for _, e := range t.b.entries {
		for _, h := range e.route.GetHosts() {
			known[h] = true
		}
	}
	if len(known) == 0 {
		return
	}
	for _, e := range t.b.entries {
		if len(e.route.GetHosts()) == 0 {
			e.route.Hosts = append([]string{"*"}, sortedKeys(known)...)
		}
	}
}

var hostCall = regexp.MustCompile(`[^!]?Host\(([^)]*)\)`)

func (t *traefik) router(r *router) {
	b := t.b
	rule := r.at.get("rule")
	matches, err := labels.Rule(rule.text())
	if err == nil && strings.Contains(rule.text(), "{") && !strings.Contains(rule.text(), "Regexp") {
		err = fmt.Errorf("has a pattern in braces")
	}
	if err != nil {
		var hosts []string
		for _, m := range hostCall.FindAllStringSubmatch(rule.text(), -1) {
			for h := range strings.SplitSeq(m[1], ",") {
				hosts = append(hosts, strings.ToLower(strings.Trim(strings.TrimSpace(h), "`\"'")))
			}
		}
		r.at.done()
		b.closeHosts(hosts, rule.place(), "rule of router "+r.name, err.Error(), "write the routes by hand")
		return
	}
	listeners := t.on(r)
	if len(listeners) == 0 && len(t.entryPoints) > 0 {
		b.note(r.at.place(), "router "+r.name, "is on no listener that is made here, and is left out", "")
		r.at.done()
		return
	}
	t.resolver(r)
	for _, m := range matches {
		e := &entry{kind: under, path: "/", route: &configv1.Route{
			Hosts: m.Hosts, Methods: m.Methods, Listeners: slices.Clone(listeners), Websocket: true,
		}}
		switch {
		case m.Exact != "":
			e.kind, e.path = exact, m.Exact
		case m.Prefix != "":
			e.path = m.Prefix
		case m.Regex != "":
			text, ok := searching(m.Regex, false)
			if !ok {
				b.closeHosts(m.Hosts, rule.place(), "rule of router "+r.name, "has an expression that is none of RE2's", "write the routes by hand")
				return
			}
			e.kind, e.path = matching, text
		}
		for _, h := range m.Headers {
			e.route.Headers = append(e.route.Headers, named(h))
		}
		for _, q := range m.Query {
			e.route.Query = append(e.route.Query, named(q))
		}
		b.route(r.at.place(), e, local(r.name))
		t.serve(r, e)
	}
	r.at.get("service").done()
	r.at.get("middlewares").done()
	r.at.get("ruleSyntax").done()
}

func named(v labels.NameValue) *configv1.NamedMatch {
	return &configv1.NamedMatch{Name: v.Name, Value: stringMatch("exact", v.Value)}
}

// resolver has a router's certificate ordered.
func (t *traefik) resolver(r *router) {
	a := r.at.in("tls", "certResolver")
	if a.text() == "" {
		return
	}
	r.at.in("tls", "domains").done()
	acme := t.find("certificatesResolvers", a.text(), "acme")
	email, directory := acme.get("email").text(), "letsencrypt"
	if s := acme.get("caServer").text(); strings.Contains(s, "staging") {
		directory = "letsencrypt-staging"
	} else if s != "" && !strings.Contains(s, "acme-v02.api.letsencrypt.org") {
		directory = s
	}
	if acme.node != nil {
		if dns := acme.get("dnsChallenge"); dns.has() {
			t.b.note(dns.place(), "dnsChallenge", "is a DNS provider's interface, and here are RFC 2136 and HTTP", "CertificateIssuer.dns01")
		}
		acme.done()
	}
	if !t.b.agreed {
		t.b.note(a.place(), "certResolver", disagreed, agreeRemedy)
		return
	}
	t.b.issuedBy = t.b.issuer(a.place(), directory, email)
}

// serve is what a router does with its requests.
func (t *traefik) serve(r *router, e *entry) {
	b := t.b
	if b.issuedBy != "" && r.at.in("tls", "certResolver").text() != "" && len(e.route.GetHosts()) > 0 {
		e.route.Tls = configv1.Route_auto
	}
	var chain []at
	for _, m := range r.at.get("middlewares").texts() {
		chain = append(chain, t.middlewares(m, 0)...)
	}
	for _, m := range chain {
		if m.node == nil {
			b.close(e, r.at.get("middlewares").place(), "middleware "+m.path, "is not in the input", "import all files together")
			return
		}
		if !t.middleware(r, e, m) {
			return
		}
	}
	if e.route.GetRedirect() != nil {
		e.route.Websocket = false
		return
	}
	name := r.at.get("service").text()
	backends, mirrors, ok := t.backends(name, 0)
	if !ok {
		b.close(e, r.at.place(), "service of router "+r.name, "is none that is read here", "write the Service and the route by hand")
		return
	}
	e.route.Backends, e.route.Mirrors = backends, mirrors
	if len(backends) == 1 {
		lb := t.find("http", "services", local(name), "loadBalancer")
		if pass := lb.get("passHostHeader").text(); pass == "false" {
			servers := lb.get("servers").list()
			if len(servers) != 1 {
				b.note(lb.get("passHostHeader").place(), "passHostHeader", "is of one server here", "Route.rewrite.host")
			} else if u, err := url.Parse(servers[0].get("url").text()); err == nil {
				rewriteOf(e).Host = u.Host
			}
		}
	}
}

// middlewares are those of a name, chains taken apart.
func (t *traefik) middlewares(name string, depth int) []at {
	a := t.find("http", "middlewares", local(name))
	if a.node == nil || depth > 10 {
		return []at{{path: local(name)}}
	}
	a.path = name
	names := a.in("chain", "middlewares").texts()
	if len(names) == 0 {
		return []at{a}
	}
	var out []at
	for _, n := range names {
		out = append(out, t.middlewares(n, depth+1)...)
	}
	return out
}

// keeping are middlewares that say who may come in.
var keeping = map[string]string{ //nolint:gosec // sentences
	"basicauth": "asks for a user and a password, which no AuthPolicy does", "digestauth": "asks for a user and a password, " +
		"which no AuthPolicy does", "forwardauth": "asks another server who may pass, which no AuthPolicy does",
	"ipallowlist": "lets some addresses pass, which no route does", "ipwhitelist": "lets some addresses pass, which no route does",
	"plugin": "is a program",
}

// middleware does what one says; false where the route is closed.
func (t *traefik) middleware(r *router, e *entry, m at) bool {
	b := t.b
	for _, kind := range m.keys() {
		a, p := m.get(kind), m.get(kind).place()
		what := "middleware " + m.path + " (" + kind + ")"
		switch lower := strings.ToLower(kind); lower {
		case "stripprefix", "addprefix", "replacepath", "replacepathregex", "stripprefixregex":
			if e.to != nil || e.route.GetRewrite() != nil {
				b.close(e, p, what, "changes a path a second time", "Route.rewrite")
				return false
			}
			if !t.path(e, lower, a) {
				b.close(e, p, what, "has no equal here", "Route.rewrite")
				return false
			}
		case "redirectscheme":
			if r.tls && strings.EqualFold(a.get("scheme").text(), "https") {
				a.done()
				continue // it is as it should be
			}
			t.redirect(e, a.get("permanent").yes(), &configv1.Redirect{Scheme: a.get("scheme").text(), Port: a.get("port").number()})
		case "redirectregex":
			to := hostRedirect(a.get("regex").text(), a.get("replacement").text())
			if to == nil {
				b.close(e, p, what, "is by another expression than ^https?://HOST/(.*)", "Route.redirect")
				return false
			}
			t.redirect(e, a.get("permanent").yes(), to)
		case "headers":
			t.headers(r, e, a)
		case "retry":
			e.route.Retry = &configv1.Retry{Attempts: max(a.get("attempts").number(), 2) - 1}
			a.get("initialInterval").done()
		default:
			if why := keeping[lower]; why != "" {
				a.done()
				b.close(e, p, what, why, protectingRemedy["auth_basic"])
				return false
			}
			why := map[string]string{
				"ratelimit": "counts each client for a route, which no limit here does", "compress": "answers are not compressed here",
				"buffering": "requests have no limit of size here",
			}[lower]
			remedy := map[string]string{"ratelimit": limitRemedy}[lower]
			if why == "" {
				why = "has no equal here"
			}
			a.done()
			b.note(p, what, why, remedy)
		}
	}
	return true
}

// redirect has Traefik's statuses: other ones for GET than for all else.
func (t *traefik) redirect(e *entry, permanent bool, to *configv1.Redirect) {
	get, other := uint32(302), uint32(307)
	if permanent {
		get, other = 301, 308
	}
	e.route.Redirect = to
	e.route.Redirect.Status = other
	e.route.Websocket = false
	if len(e.route.GetMethods()) > 0 {
		return
	}
	own := *e
	own.route = proto.CloneOf(e.route)
	own.route.Methods, own.route.Redirect.Status = []string{"GET"}, get
	own.name = t.b.name(resource.KindRoute, e.name, "get")
	at := slices.Index(t.b.entries, e)
	t.b.entries = slices.Insert(t.b.entries, at, &own)
}

var (
	fromHost = regexp.MustCompile(`^\^https\?://((?:[a-z0-9-]|\\?\.)+)/\(\.\*\)\$?$`)
	toHost   = regexp.MustCompile(`^(https?)://([a-z0-9.-]+)/\$\{?1\}?$`)
)

// hostRedirect is a redirect to another host, the path kept; nil for another one.
func hostRedirect(from, to string) *configv1.Redirect {
	m := toHost.FindStringSubmatch(to)
	if m == nil || !fromHost.MatchString(from) {
		return nil
	}
	return &configv1.Redirect{Scheme: m[1], Host: m[2]}
}

// path changes the path; false where it cannot be done.
func (t *traefik) path(e *entry, kind string, a at) bool {
	r := &configv1.RegexRewrite{}
	switch kind {
	case "stripprefix":
		var all []string
		for _, p := range a.get("prefixes").texts() {
			all = append(all, regexp.QuoteMeta(p))
		}
		a.get("forceSlash").done()
		r.Pattern, r.Substitution = "^(?:"+strings.Join(all, "|")+")/*", "/"
	case "addprefix":
		r.Pattern, r.Substitution = "^/", substitution(strings.TrimRight(a.get("prefix").text(), "/"))+"/"
	case "replacepath":
		r.Pattern, r.Substitution = "^.*$", substitution(a.get("path").text())
	default:
		return false
	}
	rewriteOf(e).Regex = r
	return true
}

// headers are those of the headers middleware.
func (t *traefik) headers(r *router, e *entry, a at) {
	change := func(into **configv1.HeaderChanges, name, value string) {
		if *into == nil {
			*into = &configv1.HeaderChanges{}
		}
		if value == "" {
			(*into).Remove = append((*into).Remove, name)
		} else {
			(*into).Set = append((*into).Set, &configv1.HeaderValue{Name: name, Value: strings.ReplaceAll(value, "%", "%%")})
		}
	}
	custom := a.get("customRequestHeaders")
	for _, name := range custom.keys() {
		if strings.EqualFold(name, "host") {
			rewriteOf(e).Host = custom.get(name).text()
			continue
		}
		change(&e.route.RequestHeaders, name, custom.get(name).text())
	}
	custom = a.get("customResponseHeaders")
	for _, name := range custom.keys() {
		change(&e.route.ResponseHeaders, name, custom.get(name).text())
	}
	for key, h := range sorted(map[string][2]string{
		"frameDeny": {"X-Frame-Options", "DENY"}, "contentTypeNosniff": {"X-Content-Type-Options", "nosniff"},
		"browserXssFilter": {"X-XSS-Protection", "1; mode=block"},
	}) {
		if a.get(key).yes() {
			change(&e.route.ResponseHeaders, h[0], h[1])
		}
	}
	for key, name := range sorted(map[string]string{
		"customFrameOptionsValue": "X-Frame-Options", "contentSecurityPolicy": "Content-Security-Policy",
		"referrerPolicy": "Referrer-Policy", "permissionsPolicy": "Permissions-Policy",
	}) {
		if v := a.get(key).text(); v != "" {
			change(&e.route.ResponseHeaders, name, v)
		}
	}
	if n := a.get("stsSeconds").number(); n > 0 && (r.tls || a.get("forceSTSHeader").yes()) {
		value := fmt.Sprintf("max-age=%d", n)
		if a.get("stsIncludeSubdomains").yes() {
			value += "; includeSubDomains"
		}
		if a.get("stsPreload").yes() {
			value += "; preload"
		}
		change(&e.route.ResponseHeaders, "Strict-Transport-Security", value)
	}
	t.cors(e, a)
	if h := e.route.GetResponseHeaders(); h != nil {
		slices.SortFunc(h.Set, func(x, y *configv1.HeaderValue) int { return strings.Compare(x.GetName(), y.GetName()) })
	}
}

func (t *traefik) cors(e *entry, a at) {
	c := &configv1.Cors{
		AllowMethods: a.get("accessControlAllowMethods").texts(), AllowHeaders: a.get("accessControlAllowHeaders").texts(),
		ExposeHeaders: a.get("accessControlExposeHeaders").texts(), AllowCredentials: a.get("accessControlAllowCredentials").yes(),
	}
	for _, o := range a.get("accessControlAllowOriginList").texts() {
		if o == "*" {
			c.AllowOrigins = append(c.AllowOrigins, stringMatch("regex", ".*"))
		} else {
			c.AllowOrigins = append(c.AllowOrigins, stringMatch("exact", o))
		}
	}
	if n := a.get("accessControlMaxAge").number(); n > 0 {
		c.MaxAge = &durationpb.Duration{Seconds: int64(n)}
	}
	a.get("addVaryHeader").done()
	if len(c.GetAllowOrigins()) > 0 {
		e.route.Cors = c
	}
}

// backends are the Services of a service, with their weights.
func (t *traefik) backends(name string, depth int) (out []*configv1.Backend, mirrors []*configv1.Mirror, ok bool) {
	a := t.find("http", "services", local(name))
	if a.node == nil || depth > 5 || strings.HasSuffix(name, "@internal") {
		return nil, nil, false
	}
	if w := a.get("weighted"); w.has() {
		if s := w.get("sticky"); s.has() {
			s.done()
			t.b.note(s.place(), "sticky", "shares are by chance here", "")
		}
		for _, s := range w.get("services").list() {
			below, _, fine := t.backends(s.get("name").text(), depth+1)
			if !fine || len(below) != 1 {
				return nil, nil, false
			}
			if s.get("weight").has() {
				below[0].Weight = proto.Uint32(s.get("weight").number())
			}
			out = append(out, below...)
		}
		return out, nil, len(out) > 0
	}
	if m := a.get("mirroring"); m.has() {
		out, _, ok = t.backends(m.get("service").text(), depth+1)
		for _, s := range m.get("mirrors").list() {
			below, _, fine := t.backends(s.get("name").text(), depth+1)
			if !fine || len(below) != 1 {
				return nil, nil, false
			}
			mirrors = append(mirrors, &configv1.Mirror{Service: below[0].GetService(), Percent: proto.Float64(float64(s.get("percent").number()))})
		}
		return out, mirrors, ok
	}
	lb := a.get("loadBalancer")
	if !lb.has() {
		return nil, nil, false
	}
	made, fine := t.service(local(name), lb)
	return []*configv1.Backend{{Service: made}}, nil, fine
}

// service makes a Service, once.
func (t *traefik) service(name string, lb at) (string, bool) {
	if made, done := t.made[name]; done {
		return made, made != ""
	}
	t.made[name] = ""
	spec := &configv1.Service{ConnectTimeout: durationpb.New(30e9)}
	scheme := ""
	for _, s := range lb.get("servers").list() {
		u, err := url.Parse(s.get("url").text())
		if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || scheme != "" && scheme != u.Scheme {
			t.b.note(s.place(), "server of service "+name, "is no URL of scheme, host and port, the same scheme for all", "")
			return "", false
		}
		scheme = u.Scheme
		host, port, ok := endpointOf(u.Host, map[bool]uint32{true: 443, false: 80}[scheme == "https"])
		if !ok {
			t.b.note(s.place(), "server of service "+name, "is no host and port", "")
			return "", false
		}
		spec.Endpoints = append(spec.Endpoints, &configv1.Endpoint{Host: host, Port: port, Weight: s.get("weight").number()})
	}
	if own := lb.get("server"); own.has() {
		scheme = own.get("scheme").text()
		if own.get("port").number() == 0 {
			t.b.note(own.place(), "service "+name, "has no port in the labels", "traefik.http.services.NAME.loadbalancer.server.port")
			return "", false
		}
		spec.Endpoints = append(spec.Endpoints, &configv1.Endpoint{Host: t.hosts[name], Port: own.get("port").number()})
	}
	protocols := map[string]configv1.Service_Protocol{
		"": 0, "http": 0, "https": configv1.Service_https, "h2c": configv1.Service_http2,
	}
	protocol, known := protocols[scheme]
	if !known || len(spec.GetEndpoints()) == 0 {
		return "", false
	}
	spec.Protocol = protocol
	t.check(spec, lb.get("healthCheck"))
	if s := lb.get("sticky"); s.has() {
		s.done()
		t.b.note(s.place(), "sticky", "cookies of Traefik's kind name a server, and none does here",
			"Service.load_balancing: ring_hash with hash_on.cookie")
	}
	lb.get("passHostHeader").done()
	lb.in("responseForwarding").done()
	t.transport(spec, lb.get("serversTransport").text())
	t.made[name] = t.b.name(resource.KindService, name)
	t.b.add(lb.place(), resource.KindService, t.made[name], spec)
	return t.made[name], true
}

// check is a health check, with Traefik's times where none are given.
func (t *traefik) check(spec *configv1.Service, a at) {
	if !a.has() {
		return
	}
	h := &configv1.HealthCheck{
		Check:    &configv1.HealthCheck_Http{Http: &configv1.HttpCheck{Path: a.get("path").text(), Host: a.get("hostname").text()}},
		Interval: durationpb.New(30e9), Timeout: durationpb.New(5e9),
	}
	for key, into := range sorted(map[string]**durationpb.Duration{"interval": &h.Interval, "timeout": &h.Timeout}) {
		if d, ok := a.get(key).duration(); ok && d != nil {
			*into = d
		}
	}
	if n := a.get("status").number(); n > 0 {
		h.GetHttp().ExpectedStatuses = []uint32{n}
	} else {
		// what of 2xx and 3xx has a meaning
		h.GetHttp().ExpectedStatuses = []uint32{
			200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308,
		}
	}
	spec.HealthCheck = h
}

func (t *traefik) transport(spec *configv1.Service, name string) {
	if name == "" {
		return
	}
	a := t.find("http", "serversTransports", local(name))
	if a.node == nil {
		return
	}
	if spec.GetProtocol() == configv1.Service_https {
		spec.Tls = &configv1.UpstreamTls{Sni: a.get("serverName").text(), InsecureSkipVerify: a.get("insecureSkipVerify").yes()}
	}
	if d, ok := a.in("forwardingTimeouts", "dialTimeout").duration(); ok && d != nil {
		spec.ConnectTimeout = d
	}
}

// certificates adds those of files to all listeners with TLS.
func (t *traefik) certificates() {
	for _, r := range t.roots {
		for _, c := range r.in("tls", "certificates").list() {
			chain, key := c.get("certFile").text(), c.get("keyFile").text()
			c.get("stores").done()
			base := strings.TrimSuffix(filepath.Base(chain), filepath.Ext(chain))
			if made := t.b.certificate(c.place(), "certificate", chain, key, base); made != "" {
				for _, l := range t.b.listeners {
					if l.GetProtocol() == configv1.Listener_https {
						l.Certificates = append(l.Certificates, made)
					}
				}
			}
		}
	}
}
