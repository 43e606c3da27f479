// Package servername says which certificate serves a server name (SNI) at the https listeners of a gateway, and how an
// Envoy comes by it. It keeps that up to date at the price of what changes, however many certificates there are:
//
//  1. hosts that demand a client certificate have a filter chain of their own;
//  2. so has a wildcard, for its names are without number; so have the names below it, which would otherwise be
//     served by it; and so has a name with two certificates, one of each kind of key;
//  3. every other name's certificate is a secret of that name. One chain serves them all: it asks for the secret
//     when a client names it, so that a certificate that comes or goes changes no listener, and no connection drains;
//  4. a client that sends no name, or nothing that is a host's name, is served by the listener's first certificate.
//
// A secret has no listener, so that a name that two listeners serve differently is of the second sort there.
//
// Certificates come to a listener by its own list, or name it themselves. Of several with the same name those of the
// list come first, in its order, then the others by age.
package servername

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

// keep is how many names that changed an index remembers at least.
const keep = 4096

// Index is one gateway's. It is not safe for concurrent use.
type Index struct {
	gateway string
	find    func(name string) *Certificate
	// spec are the listeners as they are configured, https ours in their order.
	spec  []*configv1.Listener
	https []*Listener
	// certs are those that a listener lists or that name the gateway, naming the latter.
	certs, naming map[string]*Certificate
	// known counts the certificates of a name at all listeners; below are such names by each wildcard above them.
	known   map[string]int
	below   map[string]map[string]struct{}
	decided map[string]decision
	// log are the names decided otherwise of late, the last of them being the number seq.
	log      []string
	seq      uint64
	versions uint64
}

// decision is how a name is served: by a certificate on demand, or by chains, one a listener ("" where it has none).
type decision struct {
	onDemand string
	chains   []string
}

// New is the index of a gateway that is not there yet; find finds a certificate by its name, nil where there is none.
func New(gateway string, find func(name string) *Certificate) *Index {
	return &Index{
		gateway: gateway, find: find, certs: map[string]*Certificate{}, naming: map[string]*Certificate{},
		known: map[string]int{},
		below: map[string]map[string]struct{}{}, decided: map[string]decision{},
	}
}

// With is the index of another form of the gateway, with the same certificates.
func (x *Index) With(g *configv1.Gateway) *Index {
	out := New(x.gateway, x.find)
	for name, c := range x.naming {
		out.certs[name], out.naming[name] = c, c
	}
	out.SetGateway(g)
	return out
}

// Empty says whether nothing is there: no https listener, and no certificate that names the gateway.
func (x *Index) Empty() bool { return len(x.https)+len(x.naming) == 0 }

// Listener finds an https listener; nil where there is none.
func (x *Index) Listener(name string) *Listener {
	if x == nil {
		return nil
	}
	for _, l := range x.https {
		if l.name == name {
			return l
		}
	}
	return nil
}

// Listeners are the https listeners, in the gateway's order.
func (x *Index) Listeners() []*Listener { return x.https }

// OnDemand is the certificate of a name that is asked for when a client names it; "" where it has none, or a chain.
func (x *Index) OnDemand(name string) string { return x.decided[name].onDemand }

// AllOnDemand yields every such name, in no order.
func (x *Index) AllOnDemand(yield func(string) bool) {
	for n, d := range x.decided {
		if d.onDemand != "" && !yield(n) {
			return
		}
	}
}

// Now is the number of the last change.
func (x *Index) Now() uint64 { return x.seq }

// Since lists the names that are decided otherwise since a number, some more than once; not ok where that is too long
// ago to be known.
func (x *Index) Since(seq uint64) (names []string, ok bool) {
	missed := x.seq - seq
	if seq > x.seq || missed > uint64(len(x.log)) {
		return nil, false
	}
	return x.log[uint64(len(x.log))-missed:], true
}

func (x *Index) note(name string) {
	if len(x.log) >= 2*max(keep, len(x.decided)) {
		x.log = slices.Delete(x.log, 0, len(x.log)/2)
	}
	x.log = append(x.log, name)
	x.seq++
}

// know counts a name's certificates.
func (x *Index) know(name string, by int) {
	was := x.known[name]
	now := was + by
	if now == 0 {
		delete(x.known, name)
	} else {
		x.known[name] = now
	}
	if (was == 0) == (now == 0) {
		return
	}
	for p := range parents(name) {
		if now == 0 {
			if delete(x.below[p], name); len(x.below[p]) == 0 {
				delete(x.below, p)
			}
			continue
		}
		if x.below[p] == nil {
			x.below[p] = map[string]struct{}{}
		}
		x.below[p][name] = struct{}{}
	}
}

// learn finds a certificate that a listener lists, and forget drops one that none does any more.
func (x *Index) learn(name string) *Certificate {
	if c := x.certs[name]; c != nil {
		return c
	}
	c := x.find(name)
	if c != nil {
		x.certs[name] = c
	}
	return c
}

func (x *Index) forget(name string) {
	if x.naming[name] == nil && !slices.ContainsFunc(x.https, func(l *Listener) bool { return l.listed[name] }) {
		delete(x.certs, name)
	}
}

// update is what one change touches.
type update struct {
	names   map[string]struct{}
	entries map[*entry]*Listener
}

func newUpdate() *update {
	return &update{map[string]struct{}{}, map[*entry]*Listener{}}
}

func (u *update) touch(l *Listener, name string) {
	u.names[name] = struct{}{}
	l.concerned(name, func(e *entry) { u.again(l, e) })
}

func (u *update) again(l *Listener, e *entry) { u.entries[e] = l }

// below has hosts of client_auth, and the names below them, decided again.
func (u *update) below(l *Listener, hosts []string) {
	for _, h := range hosts {
		u.names[h] = struct{}{}
		for n := range l.index.below[h] {
			u.names[n] = struct{}{}
		}
	}
}

// SetCertificate replaces a certificate, nil where it is gone.
func (x *Index) SetCertificate(name string, now *Certificate) {
	was := x.certs[name]
	if was.same(now) {
		return
	}
	u := newUpdate()
	for _, l := range x.https {
		if was != nil && l.presents(was) {
			l.drop(was, u)
		}
		l.naming.remove(name)
	}
	delete(x.certs, name)
	delete(x.naming, name)
	if now.namesGateway(x.gateway) {
		x.naming[name] = now
	}
	for _, l := range x.https {
		if x.naming[name] != nil && now.namesListener(l.name) {
			l.naming.add(now)
		}
		if now != nil && l.presents(now) {
			x.certs[name] = now
			l.add(now, u)
		}
	}
	if x.naming[name] != nil {
		x.certs[name] = now
	}
	x.decide(u)
}

// SetGateway replaces the gateway, nil where it is gone. It costs what differs, unless an https listener comes or goes.
func (x *Index) SetGateway(g *configv1.Gateway) {
	var https []*configv1.Listener
	for _, l := range g.GetListeners() {
		if l.GetProtocol() == configv1.Listener_https {
			https = append(https, l)
		}
	}
	u := newUpdate()
	was := x.spec
	if x.spec = https; !slices.EqualFunc(was, https, func(a, b *configv1.Listener) bool {
		return a.GetName() == b.GetName()
	}) {
		x.restart(u)
		was = make([]*configv1.Listener, len(https))
	}
	for i, l := range x.https {
		l.relist(https[i].GetCertificates(), u)
		if before := was[i].GetClientAuth(); !slices.EqualFunc(before, https[i].GetClientAuth(),
			func(a, b *configv1.ClientAuth) bool { return proto.Equal(a, b) }) {
			l.authenticate(https[i].GetClientAuth(), u)
		}
	}
	x.decide(u)
}

// restart makes the listeners anew, with the certificates that name them.
func (x *Index) restart(u *update) {
	for name := range x.decided {
		x.note(name)
	}
	x.https = nil
	clear(x.known)
	clear(x.below)
	clear(x.decided)
	clear(x.certs)
	for name, c := range x.naming {
		x.certs[name] = c
	}
	for _, spec := range x.spec {
		l := newListener(x, spec)
		l.changed()
		x.https = append(x.https, l)
		for _, c := range x.naming {
			if c.namesListener(l.name) {
				l.naming.add(c)
				l.add(c, u)
			}
		}
	}
}

// decide decides again what an update has touched.
func (x *Index) decide(u *update) {
	for _, l := range x.https {
		if first := l.begins(); !slices.Equal(first, l.first) {
			l.first = first
			l.changed()
			for _, e := range l.auth {
				u.again(l, e)
			}
		}
	}
	for n := range u.names {
		if isWildcard(n) {
			for b := range x.below[n] {
				u.names[b] = struct{}{}
			}
		}
	}
	for n := range u.names {
		x.become(n, x.judge(n))
	}
	for e, l := range u.entries {
		if slices.Contains(l.auth, e) {
			l.settle(e)
		}
	}
}

// begins finds the certificates for clients that send no name.
func (l *Listener) begins() []string {
	var name string
	if len(l.list) > 0 {
		name = l.list[0]
	} else if c := l.naming.oldest(); c != nil {
		name = c.Name
	} else {
		return nil
	}
	if c := l.index.certs[name]; c != nil && len(c.names) > 0 {
		if pair := l.of(c.names[0]); len(pair) > 1 {
			return slices.Clone(pair) // with the one for clients that cannot use the other kind of key
		}
	}
	return []string{name}
}

// judge says how a name is to be served.
func (x *Index) judge(name string) decision {
	var d decision
	own := make([]string, len(x.https)) // by listener, the certificate on demand
	reach := make([]bool, len(x.https)) // and whether the name gets as far as those
	chain := func(i int, certs []string) {
		if d.chains == nil {
			d.chains = make([]string, len(x.https))
		}
		d.chains[i] = chainName(certs, "")
	}
	for i, l := range x.https {
		certs := l.of(name)
		switch {
		case l.demands(name):
		case isWildcard(name) || len(certs) > 1 || l.isBelow(name):
			if len(certs) > 0 {
				chain(i, certs)
			}
		default:
			reach[i] = true
			if len(certs) > 0 {
				own[i] = certs[0]
				d.onDemand = certs[0]
			}
		}
	}
	if d.onDemand == "" {
		return d
	}
	for i := range own {
		if reach[i] && own[i] != d.onDemand { // it differs
			d.onDemand = ""
			for i, c := range own {
				if c != "" {
					chain(i, []string{c})
				}
			}
			break
		}
	}
	return d
}

// become has a name be served so.
func (x *Index) become(name string, now decision) {
	was := x.decided[name]
	if was.onDemand != now.onDemand {
		x.note(name)
	}
	if now.onDemand == "" && now.chains == nil {
		delete(x.decided, name)
	} else {
		x.decided[name] = now
	}
	if slices.Equal(was.chains, now.chains) {
		return
	}
	for i, c := range now.chains {
		if c != "" {
			x.https[i].join(c, strings.Split(strings.TrimPrefix(c, "certificates/"), "+"), "", name)
		}
	}
	for i, c := range was.chains {
		if c != "" {
			x.https[i].leave(c, name)
		}
	}
}
