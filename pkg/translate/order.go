package translate

import (
	"cmp"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

func compare(a, b string) int { return cmp.Compare(a, b) }

func compareKeys(a, b Key) int {
	if a.Type != b.Type {
		return compare(string(a.Type), string(b.Type))
	}
	return compare(a.Name, b.Name)
}

// compareAll is the first difference that is one.
func compareAll(in ...int) int { return cmp.Or(in...) }

// wildcardScope holds every host of a listener that has no scope of its own.
const wildcardScope = config.AnyHost

// scopeHost is the scope that serves a host: its own, or the one of all wildcards.
func scopeHost(host string) string {
	if strings.HasPrefix(host, "*") {
		return wildcardScope
	}
	return host
}

// scopeName and scopeOf: the name of a listener's scope, and the host in it.
func scopeName(listener, host string) string { return listener + "/" + host }

func scopeOf(name string) string { return name[strings.IndexByte(name, '/')+1:] }

// Precedes says whether a request that fits both routes of a host takes a.
func Precedes(a, b *resource.Object) bool { return rank(a, b) < 0 }

func listenerNames(o *resource.Object) string {
	if o == nil {
		return ""
	}
	var names []string
	for _, l := range o.Message().(*configv1.Gateway).GetListeners() {
		names = append(names, l.GetName())
	}
	return strings.Join(names, ",")
}

// rank orders the routes of a host: the most specific first. See the comment of Route in the schema.
func rank(a, b *resource.Object) int {
	ra, rb := a.Message().(*configv1.Route), b.Message().(*configv1.Route)
	return compareAll(
		pathRank(rb.GetPath())-pathRank(ra.GetPath()),
		pathLength(rb.GetPath())-pathLength(ra.GetPath()),
		min(len(rb.GetMethods()), 1)-min(len(ra.GetMethods()), 1),
		len(rb.GetHeaders())-len(ra.GetHeaders()),
		len(rb.GetQuery())-len(ra.GetQuery()),
		compare(a.Name, b.Name),
	)
}

// pathRank: exact before prefix before regex; but the prefix / matches everything, so a regex goes
// before it.
func pathRank(p *configv1.PathMatch) int {
	switch m := p.GetMatch().(type) {
	case *configv1.PathMatch_Exact:
		return 3
	case *configv1.PathMatch_Regex:
		return 1
	case *configv1.PathMatch_Prefix:
		if m.Prefix != "/" {
			return 2
		}
	}
	return 0
}

func pathLength(p *configv1.PathMatch) int {
	switch m := p.GetMatch().(type) {
	case *configv1.PathMatch_Prefix:
		return len(m.Prefix)
	case *configv1.PathMatch_Exact:
		return len(m.Exact)
	case *configv1.PathMatch_Regex:
		return len(m.Regex)
	}
	return 0
}
