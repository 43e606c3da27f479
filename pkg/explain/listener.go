package explain

import (
	"fmt"
	"strings"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// choose finds the listener that a request is for: the one that it names, or else of those that speak its scheme the
// one with its port, or the first.
func choose(g *configv1.Gateway, r *Request) (*configv1.Listener, resource.Violations) {
	wrong := func(path, rule, format string, args ...any) resource.Violations {
		return resource.Violations{{Path: path, Rule: rule, Message: fmt.Sprintf(format, args...)}}
	}
	port := uint32(0)
	if at := portAt(r.Host); at >= 0 {
		port, _ = portOf(r.Host[at+1:])
	}
	var first *configv1.Listener
	for _, l := range g.GetListeners() {
		scheme := schemeOf(l)
		switch {
		case r.Listener == l.GetName() && r.Scheme != "" && r.Scheme != scheme:
			return nil, wrong("$.scheme", "explain.scheme", "is %s, and listener %q speaks %s", r.Scheme, l.GetName(), scheme)
		case r.Listener == l.GetName():
			r.Scheme = scheme
			return l, nil
		case r.Listener != "" || (r.Scheme != "" && r.Scheme != scheme):
		case first == nil || (l.GetPort() == port && first.GetPort() != port):
			first = l
		}
	}
	switch {
	case first != nil:
		r.Listener, r.Scheme = first.GetName(), schemeOf(first)
		return first, nil
	case r.Listener != "":
		return nil, wrong("$.listener", "explain.listener", "is no listener of gateway %q", r.Gateway)
	}
	return nil, wrong("$.scheme", "explain.scheme", "is %s, which no listener of gateway %q speaks", r.Scheme, r.Gateway)
}

func schemeOf(l *configv1.Listener) string {
	if l.GetProtocol() == configv1.Listener_https {
		return "https"
	}
	return "http"
}

// chainOf is the filter chain that a connection of a client comes through, by the server name that it names.
func chainOf(l *listenerv3.Listener, serverName string) *listenerv3.FilterChain {
	if l.GetFilterChainMatcher() == nil {
		return l.GetFilterChains()[0]
	}
	var name wrapperspb.StringValue
	if on := chosen(l.GetFilterChainMatcher(), serverName); on == nil ||
		on.GetAction().GetTypedConfig().UnmarshalTo(&name) != nil {
		return nil
	}
	for _, c := range l.GetFilterChains() {
		if c.GetName() == name.GetValue() {
			return c
		}
	}
	return nil
}

// chosen follows a matcher of one text: a map of whole ones, or a list of suffixes and expressions. Texts are compared
// as they are.
func chosen(m *xdsmatcherv3.Matcher, text string) *xdsmatcherv3.Matcher_OnMatch {
	then := m.GetOnNoMatch()
	if on := m.GetMatcherTree().GetExactMatchMap().GetMap()[text]; on != nil {
		then = on
	}
	for _, f := range m.GetMatcherList().GetMatchers() {
		v := f.GetPredicate().GetSinglePredicate().GetValueMatch()
		if (v.GetSuffix() != "" && strings.HasSuffix(text, v.GetSuffix())) ||
			(v.GetSafeRegex() != nil && matchAll(v.GetSafeRegex().GetRegex(), text)) {
			then = f.GetOnMatch()
			break
		}
	}
	if next := then.GetMatcher(); next != nil {
		return chosen(next, text)
	}
	return then
}

// connection is what a filter chain notes of its connections: the authority whose certificates it demands, and what it
// does with requests.
func connection(c *listenerv3.FilterChain) (clientCA string, manager *hcmv3.HttpConnectionManager, err error) {
	for _, f := range c.GetFilters() {
		if f.GetTypedConfig() == nil {
			continue // a place among the network filters, which look at connections alone
		}
		m, err := f.GetTypedConfig().UnmarshalNew()
		if err != nil {
			return "", nil, err
		}
		switch m := m.(type) {
		case *statev3.Config:
			for _, v := range m.GetOnNewConnection() {
				if v.GetObjectKey() == translate.ClientCA {
					clientCA = v.GetFormatString().GetTextFormatSource().GetInlineString()
				}
			}
		case *hcmv3.HttpConnectionManager:
			manager = m
		}
	}
	return clientCA, manager, nil
}
