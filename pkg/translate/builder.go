package translate

import (
	"iter"
	"maps"
	"slices"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

// Builder keeps the xDS resources of one gateway. It is not safe for concurrent use.
type Builder struct {
	gatewayName string
	options     Options
	out         map[Key]*Resource
	// uses counts, by service, the resources that send traffic to it: those services are the gateway's
	// clusters.
	uses map[string]int
	// sinks are the services that entries of the access log are sent to, by cluster.
	sinks map[string]string
	// traits are what routes need to know of a service; a route is built again when they change.
	traits map[string]string
	// dns are the services whose endpoints have names, by name; hosts are the names, by service.
	dns   map[string]map[string]bool
	hosts map[string][]string
	// kept are the services that are served as they were, for want of an address.
	kept map[string]bool
	// measured are the requests by which services are measured, by name.
	measured map[string]string
	// certs are the certificates that are in use, by name, and how.
	certs map[string]certUse
	// certsOf is the same by user.
	certsOf map[string]map[string]certUse
	// names says how server names are served; seen is how much of it is built, and versions which listeners.
	names    *servername.Index
	seen     uint64
	versions map[string]uint64
	// named are the certificates that are asked for by server name, servedBy the names of each, and carriers have them.
	named    map[string]string
	servedBy map[string]map[string]bool
	carriers carriers
	// policies are the scopes whose routes name a policy, by policy, none being one.
	policies map[string]map[Key]bool
	// open are the listeners that there are, and wildcards the wildcard hosts with routes, the default's among them.
	// limiting are the rate limit policies that limit requests of the gateway, and allowing those with addresses that
	// all of them let pass. A change asks for these without a look at all scopes, hosts and policies.
	open, wildcards, limiting, allowing map[string]bool
	// asked are the scopes with routes that ask for a filter, by its name.
	asked map[string]map[Key]bool
	// current are the policies in the filter configs, and judged the same as these hold them.
	current Policies
	judged  *parts
	// guarded are the guards of the gateway guardedBy, as it was seen last.
	guardedBy *configv1.Gateway
	guarded   map[string]guard
}

// NewBuilder returns a builder without resources.
func NewBuilder(gateway string, opt Options) *Builder {
	return &Builder{
		gatewayName: gateway, options: opt, out: map[Key]*Resource{}, uses: map[string]int{}, traits: map[string]string{},
		dns: map[string]map[string]bool{}, hosts: map[string][]string{}, kept: map[string]bool{},
		measured: map[string]string{}, certs: map[string]certUse{},
		certsOf: map[string]map[string]certUse{}, named: map[string]string{}, servedBy: map[string]map[string]bool{},
		policies: map[string]map[Key]bool{},
		open:     map[string]bool{}, wildcards: map[string]bool{}, limiting: map[string]bool{}, allowing: map[string]bool{},
		asked: map[string]map[Key]bool{}, judged: newParts(),
	}
}

// All yields the resources, in no order.
func (b *Builder) All() iter.Seq[*Resource] { return maps.Values(b.out) }

// DNSNames lists the names of the endpoints, in order.
func (b *Builder) DNSNames() []string { return slices.Sorted(maps.Keys(b.dns)) }

// work is one update: what is to be built again, and what came of it.
type work struct {
	*Builder
	view
	scopes   map[string]bool // hosts
	services map[string]bool
	certs    map[string]bool
	listener bool
	closed   []string          // listeners that are gone
	was      Policies          // in the filter configs so far, as the Envoys have them
	stale    cause             // what filters depend on that may be another
	turned   map[string]bool   // filters that routes begin or cease to ask for, by name
	before   map[Key]*Resource // of what was touched
	// remeasured says that other services are measured, or by another request.
	remeasured bool
	problems   []config.Problem
}

func (b *Builder) begin(st *config.State) *work {
	w := &work{
		Builder: b, view: look(st, b.gatewayName, b.options, b.judged), scopes: map[string]bool{},
		services: map[string]bool{},
		certs:    map[string]bool{}, before: map[Key]*Resource{}, was: b.current,
	}
	w.wild = b.wildcards
	if w.gw != b.guardedBy { // a change of something else needs no look at all the hosts that demand a certificate
		b.guardedBy, b.guarded = w.gw, guardsOf(w.gw)
	}
	w.guards = b.guarded
	return w
}

// Update takes changes that the state has in it already, and builds what they affect. What stays in the filter configs
// for routes that Envoys still have is an argument: was are the policies that the Envoys may know, [Builder.Policies]
// where that is what was built last, and nothing stays where it is zero.
func (b *Builder) Update(st *config.State, changes []config.Change, was Policies) (Delta, []config.Problem) {
	w := b.begin(st)
	if w.was = was; !maps.Equal(was.Leaving, b.current.Leaving) {
		w.stale |= onPolicies
	}
	for _, c := range changes {
		w.affected(c)
	}
	return w.run()
}

// Rebuild builds everything from the state alone; the delta is to what there was before.
func (b *Builder) Rebuild(st *config.State) (Delta, []config.Problem) {
	w := b.begin(st)
	w.was = Policies{}
	w.listener, w.stale = true, onAnything
	clear(w.wild)
	for _, h := range st.Hosts(b.gatewayName) {
		w.noteWild(h)
	}
	clear(w.limiting)
	clear(w.allowing)
	for _, name := range st.Names(resource.KindRateLimit) {
		w.rateLimitChanged(config.Change{After: st.Get(resource.Ref{Kind: resource.KindRateLimit, Name: name})})
	}
	w.everyScope()
	for k := range b.out {
		switch k.Type {
		case TypeCluster, TypeEndpoint:
			if !IsCarrier(k.Name) {
				w.services[k.Name] = true
			}
		}
	}
	for _, name := range st.Names(resource.KindService) {
		w.services[name] = true
	}
	for name := range b.certs {
		w.certs[name] = true
	}
	for name := range b.servedBy {
		w.certs[name] = true
	}
	return w.run()
}

// Resolved builds the endpoints of names whose addresses have changed.
func (b *Builder) Resolved(st *config.State, hosts []string) Delta {
	w := b.begin(st)
	for _, h := range hosts {
		for s := range b.dns[h] {
			w.services[s] = true
		}
	}
	d, _ := w.run()
	return d
}

// Reordered builds the endpoints of services whose places have another order by what was measured.
func (b *Builder) Reordered(st *config.State, services []string) Delta {
	w := b.begin(st)
	for _, name := range services {
		if w.used(name) {
			w.services[name] = true
		}
	}
	for cluster, service := range b.sinks {
		if slices.Contains(services, service) {
			w.services[cluster] = true
		}
	}
	d, _ := w.run()
	return d
}

// Policies are those in the filter configs.
func (b *Builder) Policies() Policies { return b.current }

func (w *work) everyScope() {
	w.scopes[config.AnyHost] = true
	for _, h := range w.st.Hosts(w.gateway) {
		w.scopes[scopeHost(h)] = true
	}
	for k := range w.out {
		if k.Type == TypeScope {
			w.scopes[scopeOf(k.Name)] = true
		}
	}
}

func (w *work) affected(c config.Change) { kinds[c.Ref().Kind].changed(w, c) }

// rateLimitChanged has the filter config built again where a changed policy changes what [requestLimits] makes: the
// requests that it limits, or the addresses that others let pass because of it.
func (w *work) rateLimitChanged(c config.Change) {
	name := c.Ref().Name
	limited := w.limiting[name]
	delete(w.limiting, name)
	delete(w.allowing, name)
	was, now := resource.Spec[*configv1.RateLimitPolicy](c.Before), resource.Spec[*configv1.RateLimitPolicy](c.After)
	if config.LimitsGateway(now, w.gateway) {
		limited, w.limiting[name] = true, true
	}
	if len(now.GetAllow()) > 0 {
		w.allowing[name] = true
	}
	allows := len(w.limiting) > 0 && !slices.Equal(was.GetAllow(), now.GetAllow())
	if limited || allows {
		w.stale |= onLimits
	}
}

func (w *work) run() (Delta, []config.Problem) {
	w.name()
	w.listeners()
	w.everyTable(slices.Collect(maps.Keys(w.scopes)))
	w.filterConfigs()
	w.collect()
	for name := range w.services {
		w.service(name)
	}
	if w.remeasured && w.gw != nil {
		r := runtimeLayer(w.gateway, w.gw, w.measured)
		w.put(r.Key, r)
	}
	for name := range w.certs {
		w.certificate(name)
	}
	var d Delta
	for k, was := range w.before {
		now := w.out[k]
		switch {
		case now == nil && was != nil:
			d.Removes = append(d.Removes, k)
		case now != nil && !now.Same(was):
			d.Upserts = append(d.Upserts, now)
		}
	}
	slices.SortFunc(d.Upserts, func(a, b *Resource) int { return compareKeys(a.Key, b.Key) })
	slices.SortFunc(d.Removes, compareKeys)
	return d, w.problems
}

// put replaces a resource, or removes it (nil), and keeps count of the services in use.
func (w *work) put(k Key, r *Resource) {
	old := w.out[k]
	if _, seen := w.before[k]; !seen {
		w.before[k] = old
	}
	if r != nil {
		for _, c := range r.Clusters {
			if w.uses[c]++; w.uses[c] == 1 {
				w.services[c] = true
			}
		}
		w.out[k] = r
	} else {
		delete(w.out, k)
	}
	if old != nil {
		for _, c := range old.Clusters {
			if w.uses[c]--; w.uses[c] == 0 {
				delete(w.uses, c)
				w.services[c] = true
			}
		}
	}
}

// filterConfigs builds the config of those of the gateway's filters that may have another.
func (w *work) filterConfigs() {
	if w.gw == nil {
		for _, f := range everyFilter {
			w.put(Key{TypeExtension, f.name}, nil)
		}
		w.put(Key{TypeRuntime, bootstrap.RuntimeLayer}, nil)
		return
	}
	if w.stale == 0 && len(w.turned) == 0 {
		return
	}
	if w.stale&onGateway != 0 {
		r := runtimeLayer(w.gateway, w.gw, w.measured)
		w.put(r.Key, r)
	}
	c := &chain{view: &w.view, asked: func(name string) bool { return len(w.asked[name]) > 0 }}
	if w.stale&onLimits != 0 && len(w.limiting) > 0 {
		names := maps.Clone(w.allowing)
		maps.Copy(names, w.limiting)
		c.limits = slices.Sorted(maps.Keys(names))
	}
	if w.stale&onPolicies != 0 {
		w.current = w.was.then(w.policiesOf(w.policies))
		var problems []config.Problem
		c.policies, problems = w.policyFilters(w.current, len(w.policies) > 0)
		w.problems = append(w.problems, problems...)
		w.parts.only(c.policies.used())
	}
	for _, f := range everyFilter {
		if f.on&w.stale != 0 || w.turned[f.name] {
			r := f.content(c)
			w.put(r.Key, r)
		}
	}
}
