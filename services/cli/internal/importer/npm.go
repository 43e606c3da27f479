package importer

import (
	"bytes"
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	_ "modernc.org/sqlite" // the driver

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

var (
	sqliteMagic = []byte("SQLite format 3\x00")
	npmDump     = regexp.MustCompile("(?i)CREATE TABLE (IF NOT EXISTS )?[`\"']?proxy_host")
	npmJSON     = regexp.MustCompile(`"(proxy_hosts?|forward_domain_name|forward_scheme)"\s*:`)
)

func isNPM(_ string, raw []byte) bool {
	raw = bytes.TrimSpace(raw)
	return bytes.HasPrefix(raw, sqliteMagic[:15]) || npmDump.Match(raw) ||
		(bytes.HasPrefix(raw, []byte("{")) || bytes.HasPrefix(raw, []byte("["))) && npmJSON.Match(raw)
}

// npmTables are those that are read, with what the API calls them.
var npmTables = map[string]string{
	"proxy_host": "proxy_hosts", "redirection_host": "redirection_hosts", "dead_host": "dead_hosts", "stream": "streams",
	"access_list": "access_lists", "access_list_auth": "", "access_list_client": "", "certificate": "certificates",
}

// npm is a database of Nginx Proxy Manager, by tables.
type npm struct {
	b    *builder
	rows map[string][]npmRow
	made map[string]string // the certificates that are made, by id
}

type npmRow struct {
	at
	place Place
}

func readNPM(b *builder, name string, raw []byte) (err error) {
	m := &npm{b: b, rows: map[string][]npmRow{}, made: map[string]string{}}
	switch trimmed := bytes.TrimSpace(raw); {
	case bytes.HasPrefix(raw, sqliteMagic):
		err = m.database(name, (&url.URL{
			Scheme: "file", Opaque: (&url.URL{Path: abs(name)}).EscapedPath(),
			RawQuery: "mode=ro&immutable=1",
		}).String(), nil)
	case bytes.HasPrefix(trimmed, []byte("{")), bytes.HasPrefix(trimmed, []byte("[")):
		err = m.json(name, raw)
	default:
		err = m.database(name, ":memory:", raw)
	}
	if err != nil {
		return err
	}
	m.read(name)
	return nil
}

func abs(name string) string {
	if out, err := filepath.Abs(name); err == nil {
		return out
	}
	return name
}

// json reads tables as the API lists them, or by their names.
func (m *npm) json(name string, raw []byte) error {
	roots, err := readYAML(name, raw)
	if err != nil || len(roots) == 0 {
		return err
	}
	for table, plural := range sorted(npmTables) {
		for _, key := range []string{table, plural} {
			if key != "" {
				for _, r := range roots[0].get(key).list() {
					m.rows[table] = append(m.rows[table], npmRow{r, r.place()})
				}
			}
		}
	}
	if roots[0].node.Kind == yaml.SequenceNode {
		for _, r := range roots[0].list() {
			table := "dead_host"
			switch {
			case r.get("forward_domain_name").has():
				table = "redirection_host"
			case r.get("forward_host").has():
				table = "proxy_host"
			}
			m.rows[table] = append(m.rows[table], npmRow{r, r.place()})
		}
	}
	return nil
}

// database reads a database's tables, after a dump is put into it. It is opened to be read alone.
func (m *npm) database(name, source string, dump []byte) error {
	db, err := sql.Open("sqlite", source)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1) // each connection to :memory: has a database of its own
	if dump != nil {
		if _, err := db.ExecContext(m.b.ctx, string(dump)); err != nil {
			return fmt.Errorf("%s: is no dump of SQLite (sqlite3 database.sqlite .dump): %w; of MySQL give the hosts as "+
				"JSON, from /api/nginx/proxy-hosts", name, err)
		}
	}
	for table := range sorted(npmTables) {
		if err := m.table(db, name, table); err != nil {
			return fmt.Errorf("%s: table %s: %w", name, table, err)
		}
	}
	return nil
}

func (m *npm) table(db *sql.DB, file, table string) error {
	var there int
	if err := db.QueryRowContext(m.b.ctx, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?", table).
		Scan(&there); err != nil || there == 0 {
		return err
	}
	rows, err := db.QueryContext(m.b.ctx, "SELECT * FROM "+table+" ORDER BY id") //nolint:gosec // one of npmTables
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		n := mapNode(0)
		for i, c := range columns {
			if values[i].Valid {
				n.Content = append(n.Content, textNode(c, 0), column(c, values[i].String))
			}
		}
		r := rootOf(file, n)
		place := Place{File: file, Row: table + " " + r.get("id").text()}
		r.tree.pos = func(*yaml.Node) Place { return place }
		m.rows[table] = append(m.rows[table], npmRow{r, place})
	}
	return rows.Err()
}

// column is a value as a node: some columns hold JSON.
func column(name, text string) *yaml.Node {
	if slices.Contains([]string{"domain_names", "meta", "locations"}, name) {
		var n yaml.Node
		if yaml.Unmarshal([]byte(text), &n) == nil && len(n.Content) == 1 {
			return n.Content[0]
		}
	}
	return textNode(text, 0)
}

// read makes of each host the blocks that Nginx Proxy Manager writes for nginx, and reads these.
func (m *npm) read(file string) {
	of := Place{File: file}
	d := func(name string, args ...string) directive { return directive{name, args, of, nil} }
	n := &nginx{
		b: m.b, upstreams: map[string]directive{}, made: map[string]string{},
		http: []directive{d("proxy_connect_timeout", "90s"), d("proxy_read_timeout", "90s")},
		// Hosts that it does not know have a page of its own.
		defaulted: map[string]bool{":80": true, ":443": true},
	}
	for _, table := range []string{"proxy_host", "redirection_host", "dead_host"} {
		for _, r := range m.rows[table] {
			if r.get("is_deleted").yes() {
				r.done()
				continue
			}
			if r.get("enabled").has() && !r.get("enabled").yes() {
				r.done()
				m.b.note(r.place, table, "is disabled, and is left out", "")
				continue
			}
			for _, s := range m.servers(table, r) {
				n.server(s)
			}
			for _, key := range []string{
				"id", "created_on", "modified_on", "owner_user_id", "meta", "http2_support", "owner",
				"access_list", "certificate", "trust_forwarded_proto", "enabled", "is_deleted",
			} {
				r.get(key).done()
			}
			r.rest(func(a at, _ *yaml.Node) {
				if v := a.text(); v != "0" && v != "false" && v != "" {
					m.b.note(r.place, a.path, "has no equal here", "")
				}
			})
		}
	}
	for _, r := range m.rows["stream"] {
		if !r.get("is_deleted").yes() {
			m.b.note(r.place, "stream", "is of TCP or UDP, and here are HTTP and HTTPS alone", "")
		}
	}
}

// servers are the server blocks of a host.
func (m *npm) servers(table string, r npmRow) []directive {
	d := func(name string, args ...string) directive { return directive{name, args, r.place, nil} }
	names := d("server_name", r.get("domain_names").texts()...)
	var block []directive
	if custom := strings.TrimSpace(r.get("advanced_config").text()); custom != "" {
		own, err := m.b.nginxFile(r.place.File, []byte(custom), maxIncludes)
		if err != nil {
			m.b.closeHosts(names.args, r.place, "advanced_config", "cannot be read", "write the routes of the host by hand")
		}
		block = append(block, placed(own, r.place)...)
	}
	for key, why := range sorted(map[string][2]string{
		"caching_enabled": {"nothing is cached here", ""},
		"block_exploits":  {"requests are not compared with a list of attacks here", "a RateLimitPolicy bounds what one client may do"},
	}) {
		if r.get(key).yes() {
			m.b.note(r.place, key, why[0], why[1])
		}
	}
	guard := m.guard(r)
	switch table {
	case "proxy_host":
		block = append(block, m.proxied(r, block, guard)...)
	case "redirection_host":
		to := strings.Replace(r.get("forward_scheme").text(), "auto", "$scheme", 1)
		if to == "" {
			to = "$scheme"
		}
		to += "://" + r.get("forward_domain_name").text()
		if r.get("preserve_path").yes() {
			to += "$request_uri"
		}
		code := r.get("forward_http_code").text()
		if code == "" {
			code = "301"
		}
		block = append(block, directive{"location", []string{"/"}, r.place, append(guard, d("return", code, to))})
	default:
		block = append(block, directive{"location", []string{"/"}, r.place, append(guard, d("return", "404"))})
	}
	forced, hsts := r.get("ssl_forced").yes(), r.get("hsts_enabled").yes()
	subdomains := r.get("hsts_subdomains").yes()
	if !m.certificate(r) {
		return []directive{{"server", nil, r.place, append([]directive{d("listen", "80"), names}, block...)}}
	}
	secure := append([]directive{d("listen", "443", "ssl"), names}, block...)
	if hsts {
		value := "max-age=63072000; preload"
		if subdomains {
			value = "max-age=63072000; includeSubDomains; preload"
		}
		secure = append(secure, d("add_header", "Strict-Transport-Security", value, "always"))
	}
	plain := append([]directive{d("listen", "80"), names}, block...)
	if forced {
		plain = []directive{d("listen", "80"), names, d("return", "301", "https://$host$request_uri")}
	}
	return []directive{{"server", nil, r.place, plain}, {"server", nil, r.place, secure}}
}

// placed has directives stand at another place, with what is in them.
func placed(all []directive, p Place) []directive {
	for i := range all {
		all[i].place = p
		all[i].block = placed(all[i].block, p)
	}
	return all
}

// proxied are the locations of a proxy host, beside those that are written by hand.
func (m *npm) proxied(r npmRow, custom, guard []directive) (out []directive) {
	d := func(name string, args ...string) directive { return directive{name, args, r.place, nil} }
	headers := append(slices.Clone(guard), d("proxy_set_header", "Host", "$host"),
		d("proxy_set_header", "X-Forwarded-Scheme", "$scheme"), d("proxy_set_header", "X-Forwarded-Proto", "$scheme"),
		d("proxy_set_header", "X-Forwarded-For", "$proxy_add_x_forwarded_for"),
		d("proxy_set_header", "X-Real-IP", "$remote_addr"))
	if r.get("allow_websocket_upgrade").yes() {
		headers = append(headers, d("proxy_set_header", "Upgrade", "$http_upgrade"))
	}
	all := []struct {
		path string
		at   at
	}{}
	for _, l := range r.get("locations").list() {
		all = append(all, struct {
			path string
			at   at
		}{l.get("path").text(), l})
	}
	if !slices.ContainsFunc(custom, func(x directive) bool { return x.name == "location" && x.arg(0) == "/" }) {
		all = append(all, struct {
			path string
			at   at
		}{"/", r.at})
	}
	for _, l := range all {
		scheme := l.at.get("forward_scheme").text()
		if scheme == "" {
			scheme = "http"
		}
		host, path, _ := strings.Cut(l.at.get("forward_host").text(), "/")
		to := scheme + "://" + host + ":" + strconv.Itoa(int(l.at.get("forward_port").number()))
		if path != "" {
			to += "/" + path
		}
		block := append(slices.Clone(headers), d("proxy_pass", to))
		if l.path != "/" {
			if own, err := m.b.nginxFile(r.place.File, []byte(l.at.get("advanced_config").text()), maxIncludes); err == nil {
				block = append(block, placed(own, r.place)...)
			}
			l.at.done()
		}
		out = append(out, directive{"location", strings.Fields(l.path), r.place, block})
	}
	r.get("forward_scheme").done()
	r.get("forward_host").done()
	r.get("forward_port").done()
	return out
}

// guard is what an access list says of who may come in.
func (m *npm) guard(r npmRow) (out []directive) {
	id := r.get("access_list_id").text()
	if id == "" || id == "0" {
		return nil
	}
	place := r.place
	for _, a := range m.rows["access_list_auth"] {
		if a.get("access_list_id").text() == id {
			out = append(out, directive{"auth_basic", []string{"users"}, place, nil})
			break
		}
	}
	for _, a := range m.rows["access_list_client"] {
		if a.get("access_list_id").text() == id {
			out = append(out, directive{"deny", []string{"all"}, place, nil})
			break
		}
	}
	known := slices.ContainsFunc(m.rows["access_list"], func(a npmRow) bool { return a.get("id").text() == id })
	if len(out) == 0 && !known || len(out) == 0 && len(m.rows["access_list_auth"]) == 0 {
		// The list itself is not in the input: that it lets everybody pass would be a guess.
		out = append(out, directive{"deny", []string{"all"}, place, nil})
	}
	return out
}

// certificate makes that of a host; false for a host without TLS.
func (m *npm) certificate(r npmRow) bool {
	id := r.get("certificate_id").text()
	if id == "" || id == "0" {
		return false
	}
	if _, done := m.made[id]; done {
		return true
	}
	m.made[id] = ""
	i := slices.IndexFunc(m.rows["certificate"], func(c npmRow) bool { return c.get("id").text() == id })
	if i < 0 {
		m.b.note(r.place, "certificate_id", "names a certificate that is not in the input",
			"add the Certificate by hand, with the gateway in its gateways")
		return true
	}
	c := m.rows["certificate"][i]
	meta, names := c.get("meta"), c.get("domain_names").texts()
	name := m.b.name(resource.KindCertificate, firstName(names))
	spec := &configv1.Certificate{Gateways: []string{m.b.gateway}, Listeners: []string{"https"}}
	switch {
	case c.get("provider").text() != "letsencrypt":
		spec.Chain = strings.TrimSpace(meta.get("certificate").text()+"\n"+meta.get("intermediate_certificate").text()) + "\n"
		spec.PrivateKey = meta.get("certificate_key").text()
		if spec.GetPrivateKey() == "" {
			m.b.note(c.place, "certificate", "is without its key in the input",
				"add the Certificate by hand, of data/custom_ssl/npm-"+id)
			return true
		}
	case meta.get("dns_challenge").yes():
		m.b.note(c.place, "certificate", "is proven by a DNS provider's interface, and here by RFC 2136 or HTTP",
			"write a CertificateIssuer with dns01, or add the certificate from letsencrypt/live/npm-"+id)
		return true
	case !meta.get("letsencrypt_agree").yes() && !m.b.agreed:
		m.b.note(c.place, "certificate", disagreed, agreeRemedy)
		return true
	default:
		spec.Issuer, spec.Names = m.b.issuer(c.place, "letsencrypt", meta.get("letsencrypt_email").text()), names
	}
	m.b.add(c.place, resource.KindCertificate, name, spec)
	m.made[id] = name
	return true
}
