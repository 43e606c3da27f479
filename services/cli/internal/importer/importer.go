// Package importer reads the configuration of other proxies and makes resources of it: what cannot be translated is
// listed with file, line, reason and remedy, and nothing is guessed.
//
// A route that could only be made in part would answer otherwise than the original, and one whose protection is missing
// would let anybody in. Leaving it out is no better: its requests would go to the next route that fits, for instance
// the
// whole site. So it is made, and closed: it answers 503 until somebody has written it by hand.
package importer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/cli/internal/manifest"
	"github.com/marchproxy/marchproxy/services/cli/internal/offline"
)

// Place is where something stands. A database has rows in place of lines.
type Place struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
	Row  string `json:"row,omitempty"`
}

func (p Place) String() string {
	if p.Line > 0 {
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	if p.Row != "" {
		return p.File + ": " + p.Row
	}
	return p.File
}

// Note is something of the input that is not in the resources, or not as it was. It holds no value of the input, which
// may be a secret.
type Note struct {
	Place
	// What it is called, why it is not done, and what to do in its place ("" where there is nothing).
	What   string `json:"what"`
	Reason string `json:"reason"`
	Remedy string `json:"remedy,omitempty"`
}

func (n Note) String() string {
	out := fmt.Sprintf("%s: %s: %s", n.Place, n.What, n.Reason)
	if n.Remedy != "" {
		out += "; " + n.Remedy
	}
	return out
}

// Options say how to read.
type Options struct {
	// From is the format, "" for what the content says.
	From string
	// Gateway is the one that gets listeners and routes.
	Gateway string
	// Agreed says that who imports agrees to the terms of the authorities that certificates come from.
	Agreed bool
}

// Result is what an input comes to: resources in the order in which they refer to one another, and the list.
type Result struct {
	From  string
	Files []manifest.File
	Notes []Note
}

// format is a kind of input.
type format struct {
	name, says string
	// is says whether a file is one, by its name and content.
	is func(name string, raw []byte) bool
	// read reads files of it.
	read func(b *builder, name string, raw []byte) error
}

// formats, in the order in which content is tried.
var formats = []format{
	{"npm", "Nginx Proxy Manager: database.sqlite, its dump, or JSON of its tables", isNPM, readNPM},
	{"guide", "the integration guide's JSON", isGuide, readGuide},
	{"envoy", "an Envoy bootstrap with static resources, YAML or JSON", isEnvoy, readEnvoy},
	{"traefik", "Traefik's configuration, YAML or TOML, or a compose file with its labels", isTraefik, readTraefik},
	{"nginx", "nginx: nginx.conf, or a file of server blocks", isNginx, readNginx},
}

// Formats are the names of the formats, each with what it is.
func Formats() (names []string, says string) {
	var lines []string
	for _, f := range formats {
		names = append(names, f.name)
		lines = append(lines, fmt.Sprintf("  %-8s %s", f.name, f.says))
	}
	return names, strings.Join(lines, "\n")
}

// Read reads files, all of one format.
func Read(ctx context.Context, paths []string, o Options) (Result, error) {
	b := &builder{
		ctx: ctx, gateway: o.Gateway, agreed: o.Agreed, names: map[resource.Ref]bool{},
		origin: map[resource.Ref]Place{},
	}
	var of *format
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			return Result{}, err
		}
		i := slices.IndexFunc(formats, func(f format) bool {
			return o.From == f.name || o.From == "" && f.is(path, raw)
		})
		switch {
		case i < 0 && o.From != "":
			names, _ := Formats()
			return Result{}, fmt.Errorf("--from %s is not known; it is one of %s", o.From, strings.Join(names, ", "))
		case i < 0:
			return Result{}, fmt.Errorf("%s: is of no format that is known by its content; say which with --from", path)
		case of != nil && of.name != formats[i].name:
			return Result{}, fmt.Errorf("%s: is of format %s, and what came before of %s; import them one after the other",
				path, formats[i].name, of.name)
		}
		of = &formats[i]
		if err := of.read(b, path, raw); err != nil {
			return Result{}, err
		}
	}
	if of == nil {
		return Result{}, errors.New("name at least one file")
	}
	for len(b.last) > 0 { // they may add more
		f := b.last[0]
		b.last = b.last[1:]
		f()
	}
	out := Result{From: of.name}
	var err error
	if out.Files, err = b.finish(); err != nil {
		return Result{}, err
	}
	slices.SortStableFunc(b.notes, func(x, y Note) int {
		return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Line, y.Line))
	})
	out.Notes = slices.CompactFunc(b.notes, func(x, y Note) bool { return x == y })
	return out, nil
}

// builder collects what the files say.
type builder struct {
	ctx     context.Context //nolint:containedctx // of one import
	gateway string
	agreed  bool
	notes   []Note
	objects []object
	entries []*entry
	// listeners of the gateway, where the files say.
	listeners []*configv1.Listener
	limits    *configv1.Limits
	issuedBy  string // the gateway's certificate_issuer
	at        Place  // of the gateway
	names     map[resource.Ref]bool
	origin    map[resource.Ref]Place
	last      []func() // what is done after all files are read
	traefik   *traefik
}

type object struct {
	ref  resource.Ref
	spec proto.Message
}

// note adds to the list.
func (b *builder) note(p Place, what, reason, remedy string) {
	b.notes = append(b.notes, Note{p, what, reason, remedy})
}

// name is a free name of a kind that is made of words.
func (b *builder) name(kind string, words ...string) string {
	base := plainName(strings.Join(words, "-"))
	out := base
	for n := 2; b.names[resource.Ref{Kind: kind, Name: out}]; n++ {
		suffix := fmt.Sprintf("-%d", n)
		out = strings.TrimRight(base[:min(len(base), 63-len(suffix))], "-") + suffix
	}
	b.names[resource.Ref{Kind: kind, Name: out}] = true
	return out
}

// plainName is a text as an RFC 1123 label.
func plainName(s string) string {
	var out strings.Builder
	for _, r := range strings.ToLower(s) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			out.WriteRune(r)
		} else if n := out.Len(); n > 0 && out.String()[n-1] != '-' {
			out.WriteByte('-')
		}
	}
	name := out.String()
	name = strings.Trim(name[:min(len(name), 63)], "-")
	if name == "" {
		return "imported"
	}
	return name
}

// add adds an object under a name that [builder.name] has given.
func (b *builder) add(p Place, kind, name string, spec proto.Message) {
	ref := resource.Ref{Kind: kind, Name: name}
	b.names[ref] = true
	b.origin[ref] = p
	b.objects = append(b.objects, object{ref, spec})
}

// listener is the one of a port; it is made where it is new.
func (b *builder) listener(p Place, name, address string, port uint32, tls bool) *configv1.Listener {
	protocol := configv1.Listener_http
	if tls {
		protocol = configv1.Listener_https
	}
	if address == "0.0.0.0" || address == "*" {
		address = ""
	}
	for _, l := range b.listeners {
		if l.GetPort() != port {
			continue
		}
		if l.GetProtocol() != protocol {
			b.note(p, fmt.Sprintf("port %d", port), "is with TLS in one place and without in another",
				"give them ports of their own")
		}
		if l.GetAddress() != address {
			b.note(p, fmt.Sprintf("port %d", port), "is bound to several addresses, and here to the first one",
				"a listener has one address; leave it out for all of them")
		}
		return l
	}
	used := func(name string) bool {
		return slices.ContainsFunc(b.listeners, func(l *configv1.Listener) bool { return l.GetName() == name })
	}
	own := plainName(name)
	for n := 2; used(own); n++ {
		own = fmt.Sprintf("%s-%d", plainName(name), n)
	}
	l := &configv1.Listener{Name: own, Port: port, Protocol: protocol, Address: address}
	if len(b.listeners) == 0 {
		b.at = p
	}
	b.listeners = append(b.listeners, l)
	return l
}

// limit is the gateway's limits, to be set.
func (b *builder) limit() *configv1.Limits {
	if b.limits == nil {
		b.limits = &configv1.Limits{}
	}
	return b.limits
}

// beside is the path of a file that another one names: relative to that one's folder.
func beside(file, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(file), name)
}

// certificate adds one of files, named relative to the file that names them; "" where it cannot be read.
func (b *builder) certificate(p Place, what, chain, key string, name ...string) string {
	spec := &configv1.Certificate{}
	for file, into := range sorted(map[string]*string{chain: &spec.Chain, key: &spec.PrivateKey}) {
		if file == "" {
			continue
		}
		raw, err := os.ReadFile(beside(p.File, file))
		if err != nil {
			b.note(p, what, fmt.Sprintf("%s cannot be read here", file),
				"run the import where it can be, or add the Certificate by hand and name it in the listener")
			return ""
		}
		*into = string(raw)
	}
	return b.pem(p, spec, name...)
}

// pem adds a certificate, or finds the same one.
func (b *builder) pem(p Place, spec *configv1.Certificate, name ...string) string {
	for _, o := range b.objects {
		if c, is := o.spec.(*configv1.Certificate); is && proto.Equal(c, spec) {
			return o.ref.Name
		}
	}
	own := b.name(resource.KindCertificate, name...)
	b.add(p, resource.KindCertificate, own, spec)
	return own
}

const (
	disagreed   = "comes from an authority by ACME, and that you agree to its terms is not in the input"
	agreeRemedy = "read the terms, and import again with --agree-terms"
)

// issuer is the CertificateIssuer of a directory.
func (b *builder) issuer(p Place, directory, email string) string {
	for _, o := range b.objects {
		if c, is := o.spec.(*configv1.CertificateIssuer); is && c.GetDirectory() == directory {
			return o.ref.Name
		}
	}
	spec := &configv1.CertificateIssuer{Directory: directory, TermsAgreed: true}
	if email != "" {
		spec.Contacts = []string{email}
	}
	words := directory
	if strings.Contains(directory, "://") {
		words = "acme"
	}
	name := b.name(resource.KindIssuer, words)
	b.add(p, resource.KindIssuer, name, spec)
	return name
}

// finish makes the resources, and lists those that would be refused.
func (b *builder) finish() ([]manifest.File, error) {
	b.arrange()
	if len(b.listeners) > 0 {
		g := &configv1.Gateway{Listeners: b.listeners, Limits: b.limits, CertificateIssuer: b.issuedBy}
		open := g.Listeners[:0:0]
		for _, l := range g.GetListeners() {
			if l.GetProtocol() == configv1.Listener_https && len(l.GetCertificates()) == 0 && !b.certified(l.GetName()) &&
				b.issuedBy == "" {
				b.note(b.at, "listener "+l.GetName(), "has no certificate, so that it could not be opened, and is left out with "+
					"the routes that it alone has", "add the certificate, and import again")
				continue
			}
			open = append(open, l)
		}
		gone := map[string]bool{}
		for _, l := range g.GetListeners() {
			gone[l.GetName()] = !slices.Contains(open, l)
		}
		g.Listeners = open
		b.onListeners(open, gone)
		if len(open) > 0 {
			b.add(b.at, resource.KindGateway, b.gateway, g)
		}
	}
	for _, e := range b.entries {
		if b.gateway != resource.DefaultGateway {
			e.route.Gateways = []string{b.gateway}
		}
		b.add(e.place, resource.KindRoute, e.name, e.route)
	}
	return b.checked()
}

// certified says whether a certificate names the listener itself.
func (b *builder) certified(listener string) bool {
	return slices.ContainsFunc(b.objects, func(o object) bool {
		c, is := o.spec.(*configv1.Certificate)
		return is && slices.Contains(c.GetListeners(), listener)
	})
}

// onListeners takes listeners that are gone from the routes; one that is on all there are names none.
func (b *builder) onListeners(open []*configv1.Listener, gone map[string]bool) {
	b.entries = slices.DeleteFunc(b.entries, func(e *entry) bool {
		had := len(e.route.GetListeners())
		e.route.Listeners = slices.DeleteFunc(e.route.GetListeners(), func(l string) bool { return gone[l] })
		left := len(e.route.GetListeners())
		if left == len(open) {
			e.route.Listeners = nil
		}
		return had > 0 && left == 0
	})
}

// checked are the objects as files, without those that the schema, another object or Envoy would refuse.
func (b *builder) checked() ([]manifest.File, error) {
	for {
		var files []manifest.File
		for _, k := range resource.Kinds {
			for _, o := range b.objects {
				if o.ref.Kind != k.Name {
					continue
				}
				raw, err := resource.CanonicalSpec(o.spec)
				if err != nil {
					return nil, fmt.Errorf("write %s: %w", o.ref, err)
				}
				files = append(files, manifest.File{Kind: o.ref.Kind, Name: o.ref.Name, Spec: raw})
			}
		}
		if len(files) == 0 {
			return files, nil
		}
		docs, err := manifest.Documents(files)
		if err != nil {
			return nil, fmt.Errorf("what was made of it cannot be read: %w", err)
		}
		bad := map[resource.Ref]bool{}
		for _, f := range offline.Check(docs, b.gateway != resource.DefaultGateway || len(b.listeners) == 0) {
			ref := f.Document.Ref()
			if !bad[ref] {
				b.note(b.origin[ref], ref.String(), "would be refused, and is left out: "+
					strings.TrimPrefix(f.Path, "$.spec.")+" "+f.Message, "correct it in the original, or write it by hand")
			}
			bad[ref] = true
		}
		if len(bad) == 0 {
			return files, nil
		}
		b.without(bad)
	}
}

// without takes objects away. A route is closed in place of it, once: see the package's comment.
func (b *builder) without(bad map[resource.Ref]bool) {
	kept := b.objects[:0]
	for _, o := range b.objects {
		if r, is := o.spec.(*configv1.Route); is && bad[o.ref] && r.GetDirectResponse().GetBody() != closedBody {
			o.spec = closedRoute(r)
			bad[o.ref] = false
		}
		if !bad[o.ref] {
			kept = append(kept, o)
		}
	}
	b.objects = kept
}

const closedBody = "not imported\n"

// closedRoute answers what a route would, with 503.
func closedRoute(r *configv1.Route) *configv1.Route {
	return &configv1.Route{
		Hosts: r.GetHosts(), Path: r.GetPath(), Methods: r.GetMethods(), Headers: r.GetHeaders(), Query: r.GetQuery(),
		Gateways: r.GetGateways(), Listeners: r.GetListeners(),
		DirectResponse: &configv1.DirectResponse{Status: 503, Body: closedBody},
	}
}

// sortedKeys are a map's keys in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// sorted walks a map in the order of its keys, so that the same files come to the same notes and objects each time.
func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, key := range sortedKeys(m) {
			if !yield(key, m[key]) {
				return
			}
		}
	}
}
