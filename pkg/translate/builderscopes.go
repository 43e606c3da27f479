package translate

import (
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
)

// manyHosts are how many hosts are built by several cores at once, and then entered.
const manyHosts = 1024

// everyTable builds the scopes of hosts. What a table is depends on the configuration alone, so that many of them, a
// server's first for instance, are built by all cores.
func (w *work) everyTable(hosts []string) {
	tables := make([][]builtTable, min(len(hosts), manyHosts))
	for some := range slices.Chunk(hosts, manyHosts) {
		cores := max(1, min(runtime.GOMAXPROCS(0), len(some)/16))
		each := func(from int) {
			for i := from; i < len(some); i += cores {
				tables[i] = w.tables(some[i])
			}
		}
		var others sync.WaitGroup
		for c := 1; c < cores; c++ {
			others.Go(func() { each(c) })
		}
		each(0)
		others.Wait()
		for i, host := range some {
			w.scope(host, tables[i])
		}
	}
}

// scope enters the scopes of a host.
func (w *work) scope(host string, tables []builtTable) {
	for _, b := range tables {
		k := Key{TypeScope, scopeName(b.t.listener.GetName(), host)}
		w.usePolicies(k, b.t.policies)
		w.useFilters(k, b.t.asks)
		maps.Copy(w.traits, b.t.learned)
		w.put(k, b.r)
	}
	for _, listener := range w.closed {
		k := Key{TypeScope, scopeName(listener, host)}
		w.usePolicies(k, nil)
		w.useFilters(k, nil)
		w.put(k, nil)
	}
}

// noteWild notes that a wildcard host has routes, or has none any more.
func (w *work) noteWild(host string) {
	switch {
	case scopeHost(host) != wildcardScope:
	case w.st.Serves(config.HostKey{Gateway: w.gateway, Host: host}):
		w.wild[host] = true
	default:
		delete(w.wild, host)
	}
}

// usePolicies replaces what a scope's routes name; [config.NoPolicy] is a name, too. Call it before the scope itself
// is replaced, which says what they named so far.
func (w *work) usePolicies(scope Key, policies map[string]bool) {
	if old := w.out[scope]; old != nil {
		for _, name := range old.Policies {
			if policies[name] {
				continue
			}
			users := w.policies[name]
			if delete(users, scope); len(users) == 0 {
				delete(w.policies, name)
				w.stale |= onPolicies
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(policies)) {
		if w.policies[name] == nil {
			w.policies[name] = map[Key]bool{}
			w.stale |= onPolicies
		}
		w.policies[name][scope] = true
	}
}

// useFilters replaces what a scope's routes ask for.
func (w *work) useFilters(scope Key, asks map[string]bool) {
	for _, f := range filters {
		if f.on&onRoutes == 0 {
			continue
		}
		was := len(w.asked[f.name]) > 0
		if asks[f.name] {
			if !was {
				w.asked[f.name] = map[Key]bool{}
			}
			w.asked[f.name][scope] = true
		} else {
			delete(w.asked[f.name], scope)
		}
		if was != (len(w.asked[f.name]) > 0) {
			if w.turned == nil {
				w.turned = map[string]bool{}
			}
			w.turned[f.name] = true
		}
	}
}

// reguard has the tables built again of hosts that demand another client certificate than before, or none.
func (w *work) reguard(before, after *configv1.Gateway) {
	below := guard{} // wildcards; the hosts below them have to be looked for
	changed := false
	for i, l := range after.GetListeners() {
		was, is := guardOf(before.GetListeners()[i]), w.guards[l.GetName()]
		for _, g := range []guard{was, is} {
			for h := range g {
				switch {
				case was[h] == is[h]:
					continue
				case strings.HasPrefix(h, "*"):
					below[h] = h
				default:
					w.scopes[h] = true
				}
				changed = true
			}
		}
	}
	if !changed {
		return
	}
	w.scopes[wildcardScope] = true
	if len(below) == 0 {
		return
	}
	for _, h := range w.st.Hosts(w.gateway) {
		if below.of(h) != "" {
			w.scopes[scopeHost(h)] = true
		}
	}
}
