package fleet

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// follow has the resolver follow the names of every service's endpoints, also of one that no route sends to yet: who
// writes it learns whether its names exist, and its first route waits for nothing. Call it with the lock held.
func (f *Fleet) follow(changes []config.Change) {
	for _, c := range changes {
		if config.KindOf(c.Ref().Kind).Endpoints == nil {
			continue
		}
		before, after := f.followed(c.Before), f.followed(c.After)
		for host := range after {
			if f.hosts[host] == nil {
				f.hosts[host] = map[resource.Ref]string{}
				f.resolver.Follow(host)
			}
			service := config.ServiceOf(c.After)
			if was, known := f.hosts[host][c.Ref()]; !known || was != service {
				f.hosts[host][c.Ref()] = service
				raise(f.troubled)
			}
		}
		for host := range before {
			if after[host] {
				continue
			}
			raise(f.troubled)
			if delete(f.hosts[host], c.Ref()); len(f.hosts[host]) == 0 {
				delete(f.hosts, host)
				f.resolver.Forget(host)
			}
		}
	}
}

// followed are the hosts of an object's endpoints that the resolver is asked for: names, and addresses that a service
// may not have, so that both are spoken of in the same way. The api refuses such addresses, unless it allows others
// than this server, or one was written before there was a rule.
func (f *Fleet) followed(o *resource.Object) map[string]bool {
	out := map[string]bool{}
	if o == nil {
		return out
	}
	for _, e := range config.KindOf(o.Kind).Endpoints(o) {
		if addr, err := netip.ParseAddr(e.Name); err != nil || f.refusedAddr(addr) {
			out[e.Name] = true
		}
	}
	return out
}

// refusedAddr says whether an address may not be an endpoint.
func (f *Fleet) refusedAddr(a netip.Addr) bool { return f.opt.Resolver.Allowed.Refusal(a) != "" }

// resolved builds what names have other addresses for.
func (f *Fleet) resolved(names []string) {
	f.build.Lock()
	defer f.build.Unlock()
	for _, m := range f.members {
		m.gateway.Apply(f.commit.Revision, m.builder.Resolved(f.state, names))
	}
	f.signal()
}

// Restore hands over the addresses that an earlier process has found; call it after the last good
// state has been applied, and before [Fleet.Run].
func (f *Fleet) Restore(names map[string][]netip.Addr) { f.resolver.Restore(names) }

// Unsaved returns the addresses that have changed since it was called last, to be kept on disk: none for names that
// nobody has any more.
func (f *Fleet) Unsaved() map[string][]netip.Addr { return f.resolver.Unsaved() }

// Troubled is signalled when [Fleet.Names] may have another answer.
func (f *Fleet) Troubled() <-chan struct{} { return f.troubled }

// shown is how many services are listed with a name.
const shown = 10

// maxNames is how many names are reported with what is wrong with them: while DNS is away that may be all there are,
// and a message has to fit. That they have no address is known of all of them.
const maxNames = 2000

// Names reports the names that do not resolve, [maxNames] at most.
func (f *Fleet) Names(now time.Time) status.NamesStatus {
	out := status.NamesStatus{ID: f.opt.ID, At: resource.Time(now)}
	f.data.RLock()
	defer f.data.RUnlock()
	all := f.resolver.Troubles()
	for _, t := range all[:min(len(all), maxNames)] {
		n := status.NameStatus{
			Host: t.Host, Problem: t.Problem, Reason: t.Reason, Addresses: int32(t.Addresses), Since: resource.Time(t.Since),
		}
		n.Services = slices.Compact(slices.Sorted(maps.Values(f.hosts[t.Host])))
		n.Services = n.Services[:min(len(n.Services), shown)]
		out.Names = append(out.Names, n)
	}
	return out
}
