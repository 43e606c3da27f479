package translate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	"google.golang.org/protobuf/types/known/anypb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

// How a request finds its scope. Envoy compares a scope's key with a header byte for byte, so:
//
//  1. an early mutation sets an internal header to "listener|authority", over whatever the client sent;
//  2. the scope key is that header: an exact host in lower case has found its table;
//  3. where nothing was found, the host filter tries the host in lower case and without a final dot, and
//     then "listener|*", the table of all wildcards and of the default.
//
// Every table removes the header again and ends in a route of its own, so that a path that is not known
// never falls through to another table.

const (
	scopeHeader = "x-marchproxy-scope"
	filterHost  = "marchproxy.host"
)

func scopeKey(listener, host string) string { return listener + "|" + host }

func earlyMutation(listener string) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{Name: "envoy.http.early_header_mutation.header_mutation", TypedConfig: pack(&earlyv3.HeaderMutation{
		Mutations: []*mutationv3.HeaderMutation{{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: scopeHeader, Value: scopeKey(listener, "%REQ(:authority)%")},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}}}},
	})}
}

func scopedRoutes() *hcmv3.HttpConnectionManager_ScopedRoutes {
	return &hcmv3.HttpConnectionManager_ScopedRoutes{ScopedRoutes: &hcmv3.ScopedRoutes{
		Name: "marchproxy",
		ScopeKeyBuilder: &hcmv3.ScopedRoutes_ScopeKeyBuilder{Fragments: []*hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder{{
			Type: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_{HeaderValueExtractor: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor{
				Name: scopeHeader, ExtractType: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Index{Index: 0},
			}},
		}}},
		RdsConfigSource: ads(),
		ConfigSpecifier: &hcmv3.ScopedRoutes_ScopedRds{ScopedRds: &hcmv3.ScopedRds{ScopedRdsConfigSource: ads()}},
	}}
}

// hostScript is step 3, and the guard of hosts that demand a client certificate: their table is shared
// with every connection, so a request for one that came in under another server name is sent away (421)
// to make a connection of its own.
func hostScript(l *configv1.Listener) string {
	var b strings.Builder
	fmt.Fprintf(&b, `local listener = %s
`, luaString(l.GetName()+"|"))
	if lean(l) == "" {
		b.WriteString("local exact, suffix = {}, {}\n")
		for i, a := range l.GetClientAuth() {
			for _, h := range slices.Sorted(slices.Values(a.GetHosts())) {
				if rest, ok := strings.CutPrefix(h, "*"); ok {
					fmt.Fprintf(&b, "suffix[%s] = %d\n", luaString(rest), i+1)
				} else {
					fmt.Fprintf(&b, "exact[%s] = %d\n", luaString(h), i+1)
				}
			}
		}
		b.WriteString(`local function chain(name)
  if exact[name] then return exact[name] end
  local dot = string.find(name, ".", 1, true)
  while dot do
    local found = suffix[string.sub(name, dot)]
    if found then return found end
    dot = string.find(name, ".", dot + 1, true)
  end
  return 0
end
`)
	}
	b.WriteString(`function envoy_on_request(handle)
  local info = handle:streamInfo()
  local headers = handle:headers()
  local host = string.lower(headers:get(":authority") or "")
  if string.sub(host, -1) == "." then host = string.sub(host, 1, -2) end
`)
	if lean(l) == "" {
		b.WriteString(`  local wanted = chain(host)
  if wanted ~= 0 and chain(string.lower(info:requestedServerName() or "")) ~= wanted then
    handle:respond({[":status"] = "421", ["content-type"] = "text/plain"}, "this host needs a connection of its own\n")
    return
  end
`)
	}
	b.WriteString(`  if info:routeName() ~= "" then return end
  headers:replace("` + scopeHeader + `", listener .. host)
  handle:clearRouteCache()
  handle:metadata()
  if info:routeName() ~= "" then return end
  headers:replace("` + scopeHeader + `", listener .. "*")
  handle:clearRouteCache()
end
`)
	return b.String()
}

func luaString(s string) string { return strconv.QuoteToASCII(s) }

func hostFilter(l *configv1.Listener) *hcmv3.HttpFilter {
	return filter(filterHost, &luav3.Lua{DefaultSourceCode: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: hostScript(l)}}})
}

// lean is not empty where a request that has found its table needs the host filter no more.
func lean(l *configv1.Listener) string {
	if len(l.GetClientAuth()) == 0 {
		return "+"
	}
	return ""
}

func hostFilterOff() map[string]*anypb.Any {
	return map[string]*anypb.Any{filterHost: pack(&routev3.FilterConfig{Disabled: true})}
}
