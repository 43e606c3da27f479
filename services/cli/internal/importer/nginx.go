package importer

import (
	"bytes"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tufanbarisyildirim/gonginx/config"
	"github.com/tufanbarisyildirim/gonginx/parser"
)

var nginxServer = regexp.MustCompile(`(?m)^\s*(server|http|upstream\s+\S+)\s*\{`)

func isNginx(name string, raw []byte) bool {
	return nginxServer.Match(raw) && !bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) && filepath.Ext(name) != ".toml"
}

// directive is one of nginx's, with what stands in its braces.
type directive struct {
	name  string
	args  []string
	place Place
	block []directive
}

// arg is an argument, "" where there are fewer.
func (d directive) arg(i int) string {
	if i < len(d.args) {
		return d.args[i]
	}
	return ""
}

func readNginx(b *builder, name string, raw []byte) error {
	all, err := b.nginxFile(name, raw, 0)
	if err != nil {
		return err
	}
	n := &nginx{b: b, upstreams: map[string]directive{}, made: map[string]string{}}
	n.read(all)
	return nil
}

// maxIncludes is how deep files may include one another.
const maxIncludes = 10

// nginxFile parses a file and what it includes. A parser that panics at a malformed file is no reason for us to.
func (b *builder) nginxFile(name string, raw []byte, depth int) (out []directive, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: cannot be read as nginx's configuration: %v", name, p)
		}
	}()
	parsed, err := parser.NewStringParser(string(raw), parser.WithSkipValidDirectivesErr(),
		parser.WithSkipComments()).Parse()
	if err != nil {
		return nil, fmt.Errorf("%s: cannot be read as nginx's configuration: %w", name, err)
	}
	return b.directives(name, parsed.GetDirectives(), depth), nil
}

func (b *builder) directives(file string, from []config.IDirective, depth int) (out []directive) {
	for _, x := range from {
		d := directive{name: x.GetName(), place: Place{File: file, Line: x.GetLine()}}
		for _, p := range x.GetParameters() {
			d.args = append(d.args, unquote(p.GetValue()))
		}
		if d.name == "include" {
			out = append(out, b.include(d, depth)...)
			continue
		}
		if block := x.GetBlock(); block != nil {
			d.block = b.directives(file, block.GetDirectives(), depth)
		}
		out = append(out, d)
	}
	return out
}

// include reads the files that a directive names, from the folder of the file that names them.
func (b *builder) include(d directive, depth int) (out []directive) {
	if filepath.Base(d.arg(0)) == "mime.types" {
		return nil // types of files, which are not served here
	}
	pattern := beside(d.place.File, d.arg(0))
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 && !strings.ContainsAny(pattern, "*?[") || depth >= maxIncludes {
		b.note(d.place, "include "+d.arg(0), "cannot be read here, so that nothing of it is imported",
			"run the import where the file is, or give the output of nginx -T")
		return nil
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err == nil {
			var more []directive
			if more, err = b.nginxFile(f, raw, depth+1); err == nil {
				out = append(out, more...)
			}
		}
		if err != nil {
			b.note(d.place, "include "+d.arg(0), err.Error(), "correct it, and import again")
		}
	}
	return out
}

// unquote is an argument as nginx takes it: without its quotes, and with a few characters behind a backslash.
func unquote(s string) string {
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		s = s[1 : n-1]
	}
	return escapes.Replace(s)
}

var escapes = strings.NewReplacer(`\"`, `"`, `\'`, `'`, `\\`, `\`, `\t`, "\t", `\r`, "\r", `\n`, "\n")

// nginx reads servers and upstreams.
type nginx struct {
	b         *builder
	http      []directive
	upstreams map[string]directive
	made      map[string]string // Services by what they are made of
	// defaulted are the listeners that have a default server.
	defaulted map[string]bool
}

func (n *nginx) read(all []directive) {
	var servers []directive
	for _, d := range all {
		switch d.name {
		case "http":
			n.http = append(n.http, d.block...)
		case "server", "upstream", "map", "limit_req_zone", "limit_conn_zone":
			n.http = append(n.http, d)
		case "events", "user", "worker_processes", "pid", "error_log", "worker_rlimit_nofile", "load_module", "daemon",
			"worker_cpu_affinity", "pcre_jit", "master_process":
			// of the program
		default:
			n.http = append(n.http, d)
		}
	}
	for _, d := range n.http {
		switch d.name {
		case "server":
			servers = append(servers, d)
		case "upstream":
			n.upstreams[d.arg(0)] = d
		case "map":
			if d.arg(0) != "$http_upgrade" {
				n.b.note(d.place, "map "+d.arg(1), "variables of one's own have no equal here", "")
			}
		default:
			n.look(d)
		}
	}
	n.defaulted = map[string]bool{}
	for _, s := range servers { // those that say so go before the first one
		for _, l := range n.listens(s) {
			if l.isDefault {
				n.defaulted[l.key()] = true
			}
		}
	}
	for _, s := range servers {
		n.server(s)
	}
}

// listen is an address of a server.
type listen struct {
	address   string
	port      uint32
	tls       bool
	isDefault bool
	place     Place
}

func (l listen) key() string { return net.JoinHostPort(l.address, strconv.Itoa(int(l.port))) }

func (n *nginx) listens(server directive) (out []listen) {
	for _, d := range server.block {
		if d.name != "listen" {
			continue
		}
		l := listen{port: 80, place: d.place}
		where := d.arg(0)
		if host, port, err := net.SplitHostPort(where); err == nil {
			p, _ := strconv.ParseUint(port, 10, 16)
			l.address, l.port = host, uint32(p)
		} else if p, err := strconv.ParseUint(where, 10, 16); err == nil {
			l.port = uint32(p)
		} else {
			l.address = where
		}
		if l.address == "*" || l.address == "0.0.0.0" {
			l.address = ""
		}
		for _, a := range d.args[min(1, len(d.args)):] {
			switch a {
			case "ssl":
				l.tls = true
			case "default_server", "default":
				l.isDefault = true
			}
		}
		out = append(out, l)
	}
	if len(out) == 0 {
		out = []listen{{port: 80, place: server.place}}
	}
	// nginx's [::]:80 beside 80 is the same listener for IPv6.
	return slices.DeleteFunc(out, func(l listen) bool {
		return l.address == "::" && slices.ContainsFunc(out, func(o listen) bool {
			return o.address == "" &&
				o.port == l.port
		})
	})
}

func (n *nginx) server(s directive) {
	hosts, known := n.hosts(s)
	var listeners, defaults []string
	for _, d := range s.block {
		if d.name == "listen" {
			n.lookListen(d)
		}
	}
	for _, l := range n.listens(s) {
		if strings.HasPrefix(l.address, "unix:") || l.address != "" && net.ParseIP(strings.Trim(l.address, "[]")) == nil {
			n.b.note(l.place, "listen "+l.address, "is no address and port that an Envoy listens on here", "")
			continue
		}
		name := "http"
		if l.tls {
			name = "https"
		}
		made := n.b.listener(l.place, name, strings.Trim(l.address, "[]"), l.port, l.tls)
		if l.tls {
			n.certificates(s, made.GetName())
		}
		if l.isDefault || !n.defaulted[l.key()] {
			n.defaulted[l.key()] = true
			defaults = append(defaults, made.GetName())
		} else {
			listeners = append(listeners, made.GetName())
		}
	}
	for _, d := range s.block {
		if d.name != "location" {
			n.look(d)
		}
	}
	n.clientAuth(s, hosts, known)
	if len(defaults) > 0 {
		n.locations(s, append(slices.Clone(hosts), "*"), defaults)
	}
	if len(listeners) > 0 && len(hosts) > 0 {
		n.locations(s, hosts, listeners)
	}
}

// hosts are a server's names; known is false where one cannot be said here.
func (n *nginx) hosts(s directive) (hosts []string, known bool) {
	known = true
	for _, d := range s.block {
		if d.name != "server_name" {
			continue
		}
		for _, h := range d.args {
			h = strings.ToLower(h)
			switch {
			case h == "_" || h == "":
			case strings.HasPrefix(h, "~") || strings.HasSuffix(h, ".*"):
				known = false
				n.b.note(d.place, "server_name "+h, "hosts are exact names or *.NAME here", "name the hosts")
			case strings.HasPrefix(h, "."):
				hosts = append(hosts, h[1:], "*"+h)
			default:
				hosts = append(hosts, h)
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts), known
}

// certificates adds a server's certificates to a listener.
func (n *nginx) certificates(s directive, listener string) {
	certs, keys := n.all(s, "ssl_certificate"), n.all(s, "ssl_certificate_key")
	for i, c := range certs {
		if i >= len(keys) {
			n.b.note(c.place, "ssl_certificate", "has no ssl_certificate_key", "add it")
			continue
		}
		hosts, _ := n.hosts(s)
		name := "certificate"
		if len(hosts) > 0 {
			name = strings.TrimPrefix(hosts[0], "*.")
		}
		made := n.b.certificate(c.place, "ssl_certificate", c.arg(0), keys[i].arg(0), name)
		for _, l := range n.b.listeners {
			if l.GetName() == listener && made != "" && !slices.Contains(l.GetCertificates(), made) {
				l.Certificates = append(l.Certificates, made)
			}
		}
	}
}

// all are a server's directives of a name, or the http block's where it has none.
func (n *nginx) all(s directive, name string) []directive { return nearest(name, s.block, n.http) }

// location is a block of a server, or the server itself (path /) for its own return.
type location struct {
	directive
	kind pathKind
	path string
	// firm is ^~: no expression is tried after it.
	firm bool
	ok   bool
}

func (n *nginx) locations(s directive, hosts, listeners []string) {
	var exacts, firm, res, plain []location
	scope := &scope{
		n: n, levels: [][]directive{s.block, n.http}, hosts: hosts, listeners: listeners,
		first: firstName(hosts),
	}
	for _, d := range s.block {
		if d.name == "if" {
			scope.ifHost(d)
		}
	}
	for _, d := range s.block {
		if d.name == "return" || d.name == "rewrite" && slices.Contains([]string{"permanent", "redirect"}, d.arg(2)) {
			if d.name == "return" {
				scope.entry(location{directive{"", nil, d.place, s.block}, under, "/", false, true})
				return // before any location
			}
			scope.rewriteAway(d)
		}
	}
	for _, d := range s.block {
		if d.name != "location" {
			continue
		}
		l := location{directive: d, path: d.arg(len(d.args) - 1), ok: true}
		switch mod := d.arg(0); {
		case strings.HasPrefix(l.path, "@"):
			n.b.note(d.place, "location "+l.path, "is for requests that other directives send to it, which is not done here", "")
		case mod == "=":
			l.kind = exact
			exacts = append(exacts, l)
		case mod == "~" || mod == "~*":
			l.kind = matching
			if l.path, l.ok = searching(l.path, mod == "~*"); !l.ok {
				n.b.closeHosts(hosts, d.place, "location "+mod, "its expression is none of RE2's (look-around and the like)",
					"write the routes of the host by hand")
				continue
			}
			res = append(res, l)
		case mod == "^~":
			l.firm = true
			firm = append(firm, l)
		default:
			plain = append(plain, l)
		}
	}
	longest := func(a, b location) int { return len(b.path) - len(a.path) }
	if len(res) == 0 {
		plain, firm = append(plain, firm...), nil
	}
	slices.SortStableFunc(firm, longest)
	slices.SortStableFunc(plain, longest)
	for _, p := range plain {
		for _, f := range firm {
			if strings.HasPrefix(p.path, f.path) {
				n.b.closeHosts(hosts, p.place, "location "+p.path, "lies below a location ^~, and expressions are tried for it, "+
					"which has no equal here", "write the routes of the host by hand")
			}
		}
	}
	for _, l := range exacts {
		scope.entry(l)
	}
	for _, l := range slices.Concat(firm, plain) {
		scope.slash(l, slices.Concat(exacts, firm, plain))
	}
	for _, l := range slices.Concat(firm, res, plain) {
		scope.entry(l)
	}
}

func firstName(hosts []string) string {
	if len(hosts) == 0 || hosts[0] == "*" {
		return "default"
	}
	return strings.TrimPrefix(hosts[0], "*.")
}

// endpointOf reads host[:port].
func endpointOf(s string, port uint32) (host string, p uint32, ok bool) {
	if h, text, err := net.SplitHostPort(s); err == nil {
		v, err := strconv.ParseUint(text, 10, 16)
		return strings.Trim(h, "[]"), uint32(v), err == nil && v > 0 && h != ""
	}
	s = strings.Trim(s, "[]")
	return s, port, s != "" && !strings.ContainsAny(s, "/ ")
}

// target reads an URL of a backend.
func target(s string) (scheme, host, path string, hasPath, ok bool) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || strings.Contains(s, "$") {
		return "", "", "", false, false
	}
	return u.Scheme, u.Host, u.EscapedPath(), u.EscapedPath() != "", true
}
