package translate

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/rsa"
	"regexp"
	"slices"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Which certificate serves a server name (SNI), and how an Envoy comes by it:
//
//  1. hosts that demand a client certificate have a filter chain of their own;
//  2. so has a wildcard, for its names are without number; so have the names below it, which would otherwise be
//     served by it; and so has a name with two certificates, one of each kind of key;
//  3. every other name's certificate is a secret of that name. One chain serves them all: it asks for the secret
//     when a client names it, so that a certificate that comes or goes changes no listener, and no connection drains;
//  4. a client that sends no name, or nothing that is a host's name, is served by the listener's first certificate.
//
// A secret has no listener, so that a name that two listeners serve differently is of the second sort there.

// serving is what a listener does with server names.
type serving struct {
	// chains serve names by certificates of their own.
	chains []tlsChain
	// onDemand are the certificates of names without a chain, by name.
	onDemand map[string]string
	// first are the certificates for clients that send no name.
	first []string
	// auth and wild are the names, and the domains with "*." before them, that never reach step 3.
	auth, wild map[string]bool
}

// tlsChain is a filter chain: the server names that lead to it, and what it presents.
type tlsChain struct {
	name         string
	names, certs []string
	ca           string // that clients' certificates must come from; none where empty
}

// shape is what matters of a certificate's content here.
type shape struct {
	of    *resource.Object
	names []string // in lower case, wildcards with their "*."
	kind  string   // of its key
}

// hostName is a name that a chain can be found by.
var hostName = regexp.MustCompile(`^(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*$`)

func (b *Builder) shapeOf(o *resource.Object) shape {
	if s, ok := b.shapes[o.Name]; ok && s.of == o {
		return s
	}
	s := shapeOf(o)
	b.shapes[o.Name] = s
	return s
}

func shapeOf(o *resource.Object) shape {
	s := shape{of: o}
	leaf, err := certificate.Leaf(o.Message().(*configv1.Certificate).GetChain())
	if err != nil {
		return s // the writer has read it; an older one may have taken what this one does not
	}
	names := leaf.DNSNames
	if len(names)+len(leaf.IPAddresses)+len(leaf.URIs)+len(leaf.EmailAddresses) == 0 {
		names = []string{leaf.Subject.CommonName} // so does Envoy
	}
	for _, n := range names {
		if n = strings.ToLower(n); hostName.MatchString(n) && !slices.Contains(s.names, n) {
			s.names = append(s.names, n)
		}
	}
	switch leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		s.kind = "rsa"
	case *ecdsa.PublicKey:
		s.kind = "ecdsa"
	}
	return s
}

// same says whether two certificates, or their absence, make no difference to a listener.
func (s shape) same(o shape) bool { return s.kind == o.kind && slices.Equal(s.names, o.names) }

// parents yields the wildcards that a name, or a wildcard itself, is below: *.b.c and *.c of a.b.c.
func parents(name string) func(func(string) bool) {
	return func(yield func(string) bool) {
		name = strings.TrimPrefix(name, "*.")
		for {
			_, rest, found := strings.Cut(name, ".")
			if !found || !yield("*."+rest) {
				return
			}
			name = rest
		}
	}
}

// isBelow says whether a name is below one of these wildcards.
func isBelow(name string, wild map[string]bool) bool {
	for p := range parents(name) {
		if wild[p] {
			return true
		}
	}
	return false
}

// serve says what a listener does by itself; [settle] makes several agree.
func (w *work) serve(l *configv1.Listener) *serving {
	s := &serving{onDemand: map[string]string{}, auth: map[string]bool{}, wild: map[string]bool{}}
	certs := map[string][]string{} // by name
	for _, c := range l.GetCertificates() {
		w.listed[c] = true
		o := w.st.Get(resource.Ref{Kind: resource.KindCertificate, Name: c})
		if o == nil {
			continue
		}
		sh := w.shapeOf(o)
		for _, n := range sh.names {
			if !slices.ContainsFunc(certs[n], func(other string) bool { return w.shapes[other].kind == sh.kind }) {
				certs[n] = append(certs[n], c)
			}
		}
	}
	if list := l.GetCertificates(); len(list) > 0 {
		s.first = list[:1]
		if sh := w.shapes[list[0]]; len(sh.names) > 0 && len(certs[sh.names[0]]) > 1 {
			s.first = certs[sh.names[0]] // with the one for clients that cannot use the other kind of key
		}
	}
	groups := map[string]*tlsChain{}
	for _, a := range l.GetClientAuth() {
		s.authenticate(l, a, certs, groups)
	}
	for n := range certs {
		if strings.HasPrefix(n, "*.") && !s.auth[n] && !isBelow(n, s.auth) {
			s.wild[n] = true
		}
	}
	for n, c := range certs {
		switch {
		case s.auth[n] || isBelow(n, s.auth):
		case s.wild[n] || isBelow(n, s.wild) || len(c) > 1:
			g := chainOf(groups, c, "")
			g.names = append(g.names, n)
		default:
			s.onDemand[n] = c[0]
		}
	}
	s.collect(groups)
	return s
}

// authenticate adds the chain of hosts that demand a client certificate.
func (s *serving) authenticate(l *configv1.Listener, a *configv1.ClientAuth, certs map[string][]string, groups map[string]*tlsChain) {
	hosts := map[string]bool{}
	for _, h := range a.GetHosts() {
		hosts[h], s.auth[h] = true, true
	}
	present := a.GetCertificates()
	if len(present) == 0 {
		// Those of the listener's that have a name of these hosts: another one that comes is no matter for this chain.
		fits := map[string]bool{}
		for n, c := range certs {
			if hosts[n] || isBelow(n, hosts) {
				for _, x := range c {
					fits[x] = true
				}
			}
		}
		for h := range hosts {
			if _, rest, found := strings.Cut(h, "."); found && !strings.HasPrefix(h, "*.") {
				for _, x := range certs["*."+rest] {
					fits[x] = true
				}
			}
		}
		for _, c := range l.GetCertificates() {
			if fits[c] {
				present = append(present, c)
			}
		}
		if len(present) == 0 {
			present = s.first
		}
	}
	g := chainOf(groups, present, a.GetCaCertificate())
	g.names = append(g.names, a.GetHosts()...)
}

// chainOf is the chain with these certificates. Its name does not depend on the others, for a chain that changes its name
// is another one, whose connections drain.
func chainOf(groups map[string]*tlsChain, certs []string, ca string) *tlsChain {
	name := "certificates/" + strings.Join(certs, "+")
	if ca != "" {
		name = "client-auth/" + ca + "/" + strings.Join(certs, "+")
	}
	g := groups[name]
	if g == nil {
		g = &tlsChain{name: name, certs: certs, ca: ca}
		groups[name] = g
	}
	return g
}

func (s *serving) collect(groups map[string]*tlsChain) {
	s.chains = s.chains[:0]
	for _, g := range groups {
		slices.Sort(g.names)
		g.names = slices.Compact(g.names)
		s.chains = append(s.chains, *g)
	}
	slices.SortFunc(s.chains, func(a, b tlsChain) int { return cmp.Compare(a.name, b.name) })
}

// reaches says whether a name gets as far as the certificates on demand.
func (s *serving) reaches(name string) bool {
	return !s.auth[name] && !isBelow(name, s.auth) && !isBelow(name, s.wild) && !slices.ContainsFunc(s.chains, func(c tlsChain) bool {
		_, found := slices.BinarySearch(c.names, name)
		return found
	})
}

// settle gives a name that is not the same certificate's everywhere a chain where it has a certificate, and returns
// the certificates on demand.
func settle(all []*serving) map[string]string {
	out := map[string]string{}
	differs := map[string]bool{}
	for i, s := range all {
		for n, c := range s.onDemand {
			if len(all) > 1 && !differs[n] {
				for j, other := range all {
					if j != i && other.onDemand[n] != c && other.reaches(n) {
						differs[n] = true
					}
				}
			}
			out[n] = c
		}
	}
	if len(differs) == 0 {
		return out
	}
	for _, s := range all {
		groups := map[string]*tlsChain{}
		for i := range s.chains {
			groups[s.chains[i].name] = &s.chains[i]
		}
		for n := range differs {
			delete(out, n)
			if c, ok := s.onDemand[n]; ok {
				g := chainOf(groups, []string{c}, "")
				g.names = append(g.names, n)
				delete(s.onDemand, n)
			}
		}
		copied := map[string]*tlsChain{}
		for n, g := range groups {
			c := *g
			copied[n] = &c
		}
		s.collect(copied)
	}
	return out
}
