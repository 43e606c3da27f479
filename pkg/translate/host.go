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
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

// How a request finds its scope. Envoy compares a scope's key with a header byte for byte, so:
//
//  1. an early mutation sets an internal header to "listener|authority", over whatever the client sent;
//  2. the scope key is that header: an exact host in lower case has found its table;
//  3. where nothing was found, the host filter tries the host in lower case, and then "listener|*", the
//     table of all wildcards and of the default.
//
// Port and final dot are gone before the first step.
//
// Every table removes the header again and ends in a route of its own, so that a path that is not known
// never falls through to another table.

const scopeHeader = "x-marchproxy-scope"

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
// with every connection, so a request for one on a connection without a client certificate, or made for a server name
// that demands none of the same authority, is sent away (421) to make a connection of its own. What it cannot see is a
// connection from before its host changed authorities: that one goes on until it ends. The script is the same for all of a gateway's listeners and comes
// by ECDS, so that a host which is to demand a certificate drains nobody else's connections.
func hostScript(g *configv1.Gateway) string {
	var b strings.Builder
	b.WriteString("local exact, suffix = {}, {}\n")
	guards := false
	for _, l := range g.GetListeners() {
		if len(l.GetClientAuth()) == 0 {
			continue
		}
		guards = true
		name := luaString(l.GetName() + "|")
		fmt.Fprintf(&b, "exact[%s], suffix[%s] = {}, {}\n", name, name)
		for _, a := range l.GetClientAuth() {
			authority := luaString(a.GetCaCertificate())
			for _, h := range slices.Sorted(slices.Values(a.GetHosts())) {
				if rest, ok := strings.CutPrefix(h, "*"); ok {
					fmt.Fprintf(&b, "suffix[%s][%s] = %s\n", name, luaString(rest), authority)
				} else {
					fmt.Fprintf(&b, "exact[%s][%s] = %s\n", name, luaString(h), authority)
				}
			}
		}
	}
	if guards {
		b.WriteString(`local function authority(listener, name)
  local e, s = exact[listener], suffix[listener]
  if not e then return nil end
  if e[name] then return e[name] end
  local dot = string.find(name, ".", 1, true)
  while dot do
    local found = s[string.sub(name, dot)]
    if found then return found end
    dot = string.find(name, ".", dot + 1, true)
  end
  return nil
end
`)
	}
	b.WriteString(`function envoy_on_request(handle)
  local info = handle:streamInfo()
  local headers = handle:headers()
  local listener = string.match(headers:get("` + scopeHeader + `") or "", "^[^|]*|") or ""
  local host = string.lower(headers:get(":authority") or "")
`)
	if guards {
		b.WriteString(`  local wanted = authority(listener, host)
  if wanted then
    local ssl = handle:connection():ssl()
    local name = string.lower(info:requestedServerName() or "")
    if not ssl or not ssl:peerCertificatePresented() or authority(listener, name) ~= wanted then
      handle:respond({[":status"] = "421", ["content-type"] = "text/plain"}, "this host needs a connection of its own\n")
      return
    end
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

// hostFilter is the content of the slot of the host filter.
func hostFilter(g *configv1.Gateway) proto.Message {
	return &luav3.Lua{DefaultSourceCode: inline(hostScript(g))}
}

func slotOfHost() *hcmv3.HttpFilter { return slot(slotHost, &luav3.Lua{}) }

// guard are the hosts of a listener that demand a client certificate, wildcards as they are written. Only
// requests for them need the host filter once they have found their table.
type guard map[string]bool

func guardOf(l *configv1.Listener) guard {
	g := guard{}
	for _, a := range l.GetClientAuth() {
		for _, h := range a.GetHosts() {
			g[h] = true
		}
	}
	return g
}

// has finds a host as the script does, and Envoy with its filter chains.
func (g guard) has(host string) bool {
	if len(g) == 0 || g[host] {
		return g[host]
	}
	for rest := host; ; {
		_, after, ok := strings.Cut(rest, ".")
		if !ok {
			return false
		}
		if rest = after; g["*."+rest] {
			return true
		}
	}
}

// guard is that of a listener, made once.
func (w *work) guard(l *configv1.Listener) guard {
	g, ok := w.guards[l.GetName()]
	if !ok {
		g = guardOf(l)
		w.guards[l.GetName()] = g
	}
	return g
}

// reguard has the tables built again of hosts that begin or cease to demand a client certificate.
func (w *work) reguard(before, after *configv1.Gateway) {
	below := guard{} // wildcards; the hosts below them have to be looked for
	for i, l := range after.GetListeners() {
		was, is := guardOf(before.GetListeners()[i]), w.guard(l)
		for _, g := range []guard{was, is} {
			for h := range g {
				switch {
				case was[h] && is[h]:
				case strings.HasPrefix(h, "*"):
					below[h] = true
				default:
					w.scopes[h] = true
				}
			}
		}
	}
	if len(below) == 0 {
		return
	}
	for _, h := range w.st.Hosts(w.gateway) {
		if below.has(h) {
			w.scopes[scopeHost(h)] = true
		}
	}
}

// hostFilterOff is the same in every table, and made once.
var hostFilterOff = map[string]*anypb.Any{slotHost: pack(&routev3.FilterConfig{Disabled: true})}
