package servername_test

import (
	"cmp"
	"slices"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

// The rules of the package once more, from scratch and without an index: what [servername.Index] keeps up to date has
// to be what this finds.

type wanted struct {
	chains   map[string]*servername.Chain
	onDemand map[string]string
	first    []string
	auth     map[string]bool
	wild     map[string]bool
}

// material is what the reference knows of a certificate.
type material struct {
	name, created, kind string
	names               []string
	spec                *configv1.Certificate
}

func parents(name string) (out []string) {
	name = strings.TrimPrefix(name, "*.")
	for {
		_, rest, found := strings.Cut(name, ".")
		if !found {
			return out
		}
		out = append(out, "*."+rest)
		name = rest
	}
}

func below(name string, wild map[string]bool) bool {
	return slices.ContainsFunc(parents(name), func(p string) bool { return wild[p] })
}

// presented are a listener's certificates in their order.
func presented(g string, l *configv1.Listener, all map[string]material) []string {
	list := slices.Clone(l.GetCertificates())
	var naming []material
	for _, m := range all {
		c := m.spec
		gateways := c.GetGateways()
		if len(gateways) == 0 && len(c.GetListeners()) > 0 {
			gateways = []string{resource.DefaultGateway}
		}
		if slices.Contains(gateways, g) && (len(c.GetListeners()) == 0 || slices.Contains(c.GetListeners(), l.GetName())) &&
			!slices.Contains(list, m.name) {
			naming = append(naming, m)
		}
	}
	slices.SortFunc(naming, func(a, b material) int {
		return cmp.Or(cmp.Compare(a.created, b.created),
			cmp.Compare(a.name, b.name))
	})
	for _, m := range naming {
		list = append(list, m.name)
	}
	return list
}

func (w *wanted) chain(certs []string, ca string, names ...string) {
	name := "certificates/" + strings.Join(certs, "+")
	if ca != "" {
		name = "client-auth/" + ca + "/" + strings.Join(certs, "+")
	}
	c := w.chains[name]
	if c == nil {
		c = &servername.Chain{Name: name, Certs: certs, CA: ca}
		w.chains[name] = c
	}
	c.Names = append(c.Names, names...)
	slices.Sort(c.Names)
	c.Names = slices.Compact(c.Names)
}

func alone(g string, l *configv1.Listener, all map[string]material) *wanted {
	w := &wanted{map[string]*servername.Chain{}, map[string]string{}, nil, map[string]bool{}, map[string]bool{}}
	list := presented(g, l, all)
	certs := map[string][]string{}
	for _, c := range list {
		for _, n := range all[c].names {
			if !slices.ContainsFunc(certs[n], func(other string) bool { return all[other].kind == all[c].kind }) {
				certs[n] = append(certs[n], c)
			}
		}
	}
	if len(list) > 0 {
		w.first = list[:1]
		if names := all[list[0]].names; len(names) > 0 && len(certs[names[0]]) > 1 {
			w.first = certs[names[0]]
		}
	}
	for _, a := range l.GetClientAuth() {
		hosts := map[string]bool{}
		for _, h := range a.GetHosts() {
			hosts[h], w.auth[h] = true, true
		}
		present := a.GetCertificates()
		if len(present) == 0 {
			fits := map[string]bool{}
			for n, c := range certs {
				near := hosts[n] || below(n, hosts)
				for h := range hosts {
					_, rest, _ := strings.Cut(h, ".")
					near = near || !strings.HasPrefix(h, "*.") && n == "*."+rest
				}
				for _, x := range c {
					fits[x] = fits[x] || near
				}
			}
			for _, c := range list {
				if fits[c] {
					present = append(present, c)
				}
			}
			if len(present) == 0 {
				present = w.first
			}
		}
		w.chain(present, a.GetCaCertificate(), a.GetHosts()...)
	}
	for n := range certs {
		if strings.HasPrefix(n, "*.") && !w.auth[n] && !below(n, w.auth) {
			w.wild[n] = true
		}
	}
	for n, c := range certs {
		switch {
		case w.auth[n] || below(n, w.auth):
		case w.wild[n] || below(n, w.wild) || len(c) > 1:
			w.chain(c, "", n)
		default:
			w.onDemand[n] = c[0]
		}
	}
	return w
}

func (w *wanted) reaches(name string) bool {
	if w.auth[name] || below(name, w.auth) || below(name, w.wild) {
		return false
	}
	for _, c := range w.chains {
		if slices.Contains(c.Names, name) {
			return false
		}
	}
	return true
}

// reference is what a gateway's https listeners do, in their order, and the certificates on demand of all.
func reference(st *config.State, gateway string, all map[string]material) ([]*wanted, map[string]string) {
	var out []*wanted
	o := st.Get(resource.Ref{Kind: resource.KindGateway, Name: gateway})
	if o != nil {
		for _, l := range o.Message().(*configv1.Gateway).GetListeners() {
			if l.GetProtocol() == configv1.Listener_https {
				out = append(out, alone(gateway, l, all))
			}
		}
	}
	onDemand, differs := map[string]string{}, map[string]bool{}
	for i, w := range out {
		for n, c := range w.onDemand {
			for j, other := range out {
				differs[n] = differs[n] || j != i && other.onDemand[n] != c && other.reaches(n)
			}
			onDemand[n] = c
		}
	}
	for _, w := range out {
		for n, c := range w.onDemand {
			if differs[n] {
				w.chain([]string{c}, "", n)
				delete(onDemand, n)
			}
		}
	}
	return out, onDemand
}
