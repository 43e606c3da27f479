package translate

import (
	"maps"
	"slices"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// service builds a service's cluster and endpoints, or removes them where nothing of this gateway sends traffic to it.
func (w *work) service(name string) {
	ck, ek := Key{TypeCluster, name}, Key{TypeEndpoint, name}
	o := w.st.Get(resource.Ref{Kind: resource.KindService, Name: w.serviceOf(name)})
	delete(w.kept, name)
	if o == nil || !w.used(name) {
		w.useDNS(name, nil)
		w.put(ck, nil)
		w.put(ek, nil)
		w.useCerts("service/"+name, nil)
		w.measure(name, "")
		return
	}
	now := w.view.service(name, o.Name, o.Message().(*configv1.Service), w.out[ck], w.out[ek])
	w.useDNS(name, now.names)
	if now.kept {
		w.kept[name] = true
		return
	}
	w.useCerts("service/"+name, now.certs)
	if !IsSink(name) {
		w.measure(name, probeOf(o.Name, o.Message().(*configv1.Service)))
	}
	w.put(ck, now.cluster)
	if now.endpoints != nil {
		w.put(ek, now.endpoints)
	}
}

// measure notes by what request a service is measured, "" for none.
func (w *work) measure(service, probe string) {
	if w.Builder.measured[service] == probe {
		return
	}
	w.remeasured = true
	if w.Builder.measured[service] = probe; probe == "" {
		delete(w.Builder.measured, service)
	}
}

// useDNS replaces the names of a service's endpoints.
func (w *work) useDNS(service string, names []string) {
	for _, host := range w.hosts[service] {
		users := w.dns[host]
		if delete(users, service); len(users) == 0 {
			delete(w.dns, host)
		}
	}
	delete(w.hosts, service)
	for _, host := range names {
		if w.dns[host] == nil {
			w.dns[host] = map[string]bool{}
		}
		if !w.dns[host][service] {
			w.dns[host][service] = true
			w.hosts[service] = append(w.hosts[service], host)
		}
	}
}

// Kept lists the clusters and endpoints of services that are served as they were, because their names have no
// address: another life of the server would not know them. Those that need a certificate are left out, which may be
// gone by then.
func (b *Builder) Kept() []*Resource {
	var out []*Resource
	for _, name := range slices.Sorted(maps.Keys(b.kept)) {
		c, e := b.out[Key{TypeCluster, name}], b.out[Key{TypeEndpoint, name}]
		if c != nil && e != nil && len(c.Secrets) == 0 {
			out = append(out, c, e)
		}
	}
	return out
}

// Keep takes what [Builder.Kept] listed before a restart, where a service still has no endpoints of its own: it is
// served so until its names have an address.
func (b *Builder) Keep(st *config.State, kept []*Resource) Delta {
	w := b.begin(st)
	forms := map[string]map[Type]*Resource{}
	for _, r := range kept {
		if forms[r.Name] == nil {
			forms[r.Name] = map[Type]*Resource{}
		}
		forms[r.Name][r.Type] = r
	}
	for name, f := range forms {
		ck, ek := Key{TypeCluster, name}, Key{TypeEndpoint, name}
		used := st.Get(resource.Ref{Kind: resource.KindService, Name: w.serviceOf(name)}) != nil && w.used(name)
		if used && b.out[ek] == nil && f[TypeCluster] != nil && f[TypeEndpoint] != nil {
			w.put(ck, f[TypeCluster])
			w.put(ek, f[TypeEndpoint])
			w.kept[name] = true
		}
	}
	d, _ := w.run()
	return d
}
