package translate

import (
	"maps"
	"slices"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// listeners builds the gateway's listeners: all where the gateway has changed, and otherwise those of which the server
// names make something else.
func (w *work) listeners() {
	certs := map[string]certUse{}
	versions := map[string]uint64{}
	build := w.listener
	for _, l := range w.names.Listeners() {
		versions[l.Name()] = l.Version()
		build = build || w.versions[l.Name()] != l.Version()
	}
	if !build {
		return
	}
	w.versions = versions
	wanted := map[string]bool{}
	for _, l := range w.gw.GetListeners() {
		wanted[l.GetName()] = true
		if x := w.names.Listener(l.GetName()); x != nil && len(x.First()) == 0 {
			w.put(Key{TypeListener, l.GetName()}, nil) // it opens with its first certificate
			continue
		}
		r, own := w.listenerResource(l, w.names)
		for name, u := range own {
			all := certs[name]
			if len(u.present) > 0 {
				all.present = u.present
			}
			if len(u.trust) > 0 {
				all.trust = u.trust
			}
			certs[name] = all
		}
		w.put(r.Key, r)
	}
	for name := range w.open {
		if !wanted[name] {
			w.closed = append(w.closed, name)
			w.put(Key{TypeListener, name}, nil)
		}
	}
	w.open = wanted
	w.useCerts("gateway", certs)
}

// useCerts replaces what a user (a service, or the gateway) uses.
func (w *work) useCerts(user string, now map[string]certUse) {
	was := w.certsOf[user]
	for name, old := range was {
		u, n := w.Builder.certs[name], now[name]
		if len(old.present) > 0 && len(n.present) == 0 {
			delete(u.present, user)
			w.certs[name] = true
		}
		if len(old.trust) > 0 && len(n.trust) == 0 {
			delete(u.trust, user)
			w.certs[name] = true
		}
		if len(u.present)+len(u.trust) == 0 {
			delete(w.Builder.certs, name)
		}
	}
	for name, n := range now {
		u := w.Builder.certs[name]
		if u.present == nil {
			u = certUse{present: map[string]bool{}, trust: map[string]bool{}}
			w.Builder.certs[name] = u
		}
		if len(n.present) > 0 && !u.present[user] {
			u.present[user] = true
			w.certs[name] = true
		}
		if len(n.trust) > 0 && !u.trust[user] {
			u.trust[user] = true
			w.certs[name] = true
		}
	}
	if w.certsOf[user] = now; len(now) == 0 {
		delete(w.certsOf, user)
	}
}

// certificate builds a certificate's secrets, or removes those that nobody uses.
func (w *work) certificate(name string) {
	o := w.st.Get(resource.Ref{Kind: resource.KindCertificate, Name: name})
	u, names := w.Builder.certs[name], w.servedBy[name]
	var made []*Resource
	var problem *config.Problem
	if o != nil {
		made, problem = w.secretsOf(o, u, names, w.carriers.of)
	}
	if o == nil || len(u.present) == 0 {
		w.put(Key{TypeSecret, certSecret(name)}, nil)
	}
	if o == nil || len(u.trust) == 0 {
		w.put(Key{TypeSecret, caSecret(name)}, nil)
	}
	if o == nil {
		for n := range names { // the listener may begin with it all the same
			w.put(Key{TypeSecret, n}, nil)
		}
	}
	for _, r := range made {
		w.put(r.Key, r)
	}
	if problem != nil { // what is in use stays what it was
		w.problems = append(w.problems, *problem)
	}
}

// name finds the secrets that are asked for by server name, those that differ from before, and their carriers.
func (w *work) name() {
	x := w.st.ServerNames(w.gateway)
	names, ok := x.Since(w.seen)
	if ok = ok && x == w.names; !ok {
		names = slices.AppendSeq(slices.Collect(maps.Keys(w.named)), x.AllOnDemand)
	}
	w.names, w.seen = x, x.Now()
	carriers := map[string][]string{} // those that are another one now
	for _, n := range names {
		if n != AnyName {
			w.rename(n, x.OnDemand(n), carriers)
		}
	}
	w.rename(AnyName, w.anyName(), carriers)
	ref := resource.Ref{Kind: resource.KindGateway, Name: w.gateway}
	for id, list := range carriers {
		if len(list) == 0 {
			w.put(Key{TypeCluster, id}, nil)
			continue
		}
		w.put(Key{TypeCluster, id}, newResource(id, carrier(id, list), nil, ref))
		for _, n := range list {
			if r := w.out[Key{TypeSecret, n}]; r == nil || r.Carrier != id {
				w.certs[w.named[n]] = true
			}
		}
	}
}

// anyName is the certificate that names without one are served with: the same at every listener, or none.
func (w *work) anyName() string {
	any := ""
	for i, l := range w.names.Listeners() {
		first := l.First()
		if len(first) == 0 || (i > 0 && first[0] != any) {
			return ""
		}
		any = first[0]
	}
	return any
}

// rename has a name be served with a certificate on demand, "" for none.
func (w *work) rename(n, now string, carriers map[string][]string) {
	was := w.named[n]
	if was == now {
		return
	}
	if was != "" {
		w.certs[was] = true
		if delete(w.servedBy[was], n); len(w.servedBy[was]) == 0 {
			delete(w.servedBy, was)
		}
	}
	if now == "" {
		delete(w.named, n)
		w.put(Key{TypeSecret, n}, nil)
	} else {
		w.certs[now] = true
		w.named[n] = now
		if w.servedBy[now] == nil {
			w.servedBy[now] = map[string]bool{}
		}
		w.servedBy[now][n] = true
	}
	if n != AnyName && (was == "") != (now == "") {
		w.carriers.change(n, now != "", func(id string, names []string) { carriers[id] = names })
	}
}
