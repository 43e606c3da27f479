package translate

import (
	"fmt"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// RouteTable is a listener's scopes as one RouteConfiguration, for clients that ask for a route table by the name of
// its listener. A scope that changes is read, and nothing else; the whole is put together when it is asked for. It is
// not safe for concurrent use.
type RouteTable struct {
	listener string
	prefix   string   // of the names of its scopes
	names    []string // of the scopes, in order
	scopes   map[string]tableScope
	made     *Resource // nil where something has changed since
}

// tableScope is a scope, and what it adds to the table, marshalled: messages one after the other are one that has all
// of them.
type tableScope struct {
	r   *Resource
	raw []byte
}

// NewRouteTable returns a listener's table without scopes.
func NewRouteTable(listener string) *RouteTable {
	return &RouteTable{listener: listener, prefix: scopeName(listener, ""), scopes: map[string]tableScope{}}
}

// Put replaces a scope, or takes it out where it is nil; another listener's is passed over. One that cannot be read
// leaves what there was.
func (t *RouteTable) Put(name string, scope *Resource) error {
	if !strings.HasPrefix(name, t.prefix) {
		return nil
	}
	was, there := t.scopes[name]
	if was.r == scope {
		return nil
	}
	at, _ := slices.BinarySearch(t.names, name)
	if scope == nil {
		delete(t.scopes, name)
		t.names, t.made = slices.Delete(t.names, at, at+1), nil
		return nil
	}
	raw, err := virtualHostsOf(scope)
	if err != nil {
		return fmt.Errorf("read scope %s: %w", name, err)
	}
	t.scopes[name], t.made = tableScope{scope, raw}, nil
	if !there {
		t.names = slices.Insert(t.names, at, name)
	}
	return nil
}

// Only takes out the scopes that are not among these.
func (t *RouteTable) Only(these map[string]*Resource) {
	t.names = slices.DeleteFunc(t.names, func(name string) bool {
		if these[name] != nil {
			return false
		}
		delete(t.scopes, name)
		t.made = nil
		return true
	})
}

// Resource is the table as it is sent.
func (t *RouteTable) Resource() *Resource {
	if t.made != nil {
		return t.made
	}
	head := pack(&routev3.RouteConfiguration{
		Name: t.listener, IgnorePortInHostMatching: true, ValidateClusters: unchecked,
		RequestHeadersToRemove:         internalHeaders,
		MaxDirectResponseBodySizeBytes: bodyLimit,
	})
	size := len(head.GetValue())
	for _, s := range t.scopes {
		size += len(s.raw)
	}
	raw, versions := make([]byte, 0, size), []byte{}
	for _, name := range t.names {
		s := t.scopes[name]
		raw = append(raw, s.raw...)
		versions = append(append(append(append(versions, name...), 0), s.r.Version...), 0)
	}
	t.made = &Resource{
		Key:     Key{TypeRoute, t.listener},
		Body:    &anypb.Any{TypeUrl: head.GetTypeUrl(), Value: append(raw, head.GetValue()...)},
		Version: VersionOf(append(versions, head.GetValue()...)),
	}
	return t.made
}

// virtualHostsOf are those of a scope, with the domains that they have outside of it.
func virtualHostsOf(r *Resource) ([]byte, error) {
	var scope routev3.ScopedRouteConfiguration
	if err := r.Body.UnmarshalTo(&scope); err != nil {
		return nil, err
	}
	all := scope.GetRouteConfiguration().GetVirtualHosts()
	if host := scopeOf(r.Name); host != wildcardScope {
		for _, v := range all {
			v.Domains = []string{host}
		}
	}
	return pack(&routev3.RouteConfiguration{VirtualHosts: all}).GetValue(), nil
}
