package translate

import (
	"maps"
	"slices"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

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
		used := st.Get(resource.Ref{Kind: resource.KindService, Name: name}) != nil && w.uses[name] > 0
		if used && b.out[ek] == nil && f[TypeCluster] != nil && f[TypeEndpoint] != nil {
			w.put(ck, f[TypeCluster])
			w.put(ek, f[TypeEndpoint])
			w.kept[name] = true
		}
	}
	d, _ := w.run()
	return d
}
