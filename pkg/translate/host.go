package translate

import (
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	headersv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	inputsv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// How a request finds its scope. Envoy compares a scope's key with a header byte for byte, so:
//
//  1. Envoy takes the port and one final dot off the authority;
//  2. an early mutation sets an internal header to "listener|authority", over whatever the client sent;
//  3. the scope key is that header: an exact host in lower case has found its table, and passes no filter for it;
//  4. where nothing was found, the host filter looks at what is left. What is not a host is refused; a host in lower
//     case has "listener|*" looked up, the table of all wildcards and of the default; one with capitals is tried in
//     lower case first.
//
// So no request reaches the wildcards and the default by a spelling of its host. Where the host filter fails, nothing
// is found, which is answered with 404.
//
// Every table removes the header again and ends in a route of its own, so that a path that is not known
// never falls through to another table.

// What a host is, once port and final dot are gone: labels of letters, digits, hyphens and underscores, or an IPv6
// address in brackets. canonicalHost is one as routes write it, anyHost one in any case.
const (
	canonicalHost = `[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]`
	anyHost       = `[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]`
)

// ScopeHeader is the header by which Envoy finds the scope of a request, the route table of its listener and host.
const ScopeHeader = "x-marchproxy-scope"

// metadataListener is where a listener's name stands in its metadata.
const metadataListener = "listener"

// ScopeKey is what that header says; the host is [config.AnyHost] for the wildcards.
func ScopeKey(listener, host string) string { return listener + "|" + host }

// scopeMutation sets the header that the scope is found by.
func scopeMutation(value format) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{Append: replace(ScopeHeader, value)}}
}

func earlyMutation(listener string) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{
		Name: "envoy.http.early_header_mutation.header_mutation",
		TypedConfig: pack(&earlyv3.HeaderMutation{
			Mutations: []*mutationv3.HeaderMutation{
				scopeMutation(literal(ScopeKey(listener, "")).then(own("%REQ(:authority)%"))),
			},
		}),
	}
}

// listenerMetadata tells the host filter, which is the same in all of a gateway's listeners, in which one it is.
func listenerMetadata(listener string) *corev3.Metadata {
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{metadataSpace: {Fields: map[string]*structpb.Value{
		metadataListener: structpb.NewStringValue(listener),
	}}}}
}

func scopedRoutes() *hcmv3.HttpConnectionManager_ScopedRoutes {
	return &hcmv3.HttpConnectionManager_ScopedRoutes{ScopedRoutes: &hcmv3.ScopedRoutes{
		Name: "marchproxy",
		ScopeKeyBuilder: &hcmv3.ScopedRoutes_ScopeKeyBuilder{Fragments: []*hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder{
			{
				Type: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_{
					HeaderValueExtractor: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor{
						Name: ScopeHeader, ExtractType: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Index{
							Index: 0,
						},
					},
				},
			},
		}},
		RdsConfigSource: ads(),
		ConfigSpecifier: &hcmv3.ScopedRoutes_ScopedRds{ScopedRds: &hcmv3.ScopedRds{ScopedRdsConfigSource: ads()}},
	}}
}

func hostFilter() proto.Message {
	authority := matching("authority", &inputsv3.HttpRequestHeaderMatchInput{HeaderName: ":authority"})
	rule := func(host string, then *xdsmatcherv3.Matcher_OnMatch) *xdsmatcherv3.Matcher_MatcherList_FieldMatcher {
		return &xdsmatcherv3.Matcher_MatcherList_FieldMatcher{
			Predicate: &xdsmatcherv3.Matcher_MatcherList_Predicate{
				MatchType: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
					SinglePredicate: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
						Input: authority,
						Matcher: &xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{
							ValueMatch: &xdsmatcherv3.StringMatcher{
								MatchPattern: &xdsmatcherv3.StringMatcher_SafeRegex{SafeRegex: &xdsmatcherv3.RegexMatcher{
									Regex: host, EngineType: &xdsmatcherv3.RegexMatcher_GoogleRe2{
										GoogleRe2: &xdsmatcherv3.RegexMatcher_GoogleRE2{},
									},
								}},
							},
						},
					},
				},
			},
			OnMatch: then,
		}
	}
	toWildcards := &headersv3.HeaderMutation{
		Mutations: &headersv3.Mutations{RequestMutations: []*mutationv3.HeaderMutation{
			scopeMutation(own("%METADATA(LISTENER:" + metadataSpace + ":" + metadataListener + ")%").
				then(literal(ScopeKey("", wildcardScope)))),
		}},
	}
	// It sets nothing, and is here for what it does then.
	again := &statev3.Config{ClearRouteCache: true}
	// Envoy looks for the route when the next filter asks for it. The filters in WASM read the name of what was found
	// last, so one that asks must come before them: this one asks whether the route has headers for it.
	look := &headersv3.HeaderMutation{}
	return &compositev3.Composite{Matcher: &xdsmatcherv3.Matcher{
		MatcherType: &xdsmatcherv3.Matcher_MatcherList_{MatcherList: &xdsmatcherv3.Matcher_MatcherList{
			Matchers: []*xdsmatcherv3.Matcher_MatcherList_FieldMatcher{
				rule(canonicalHost, run(toWildcards, again, look)),
				rule(anyHost, run(&luav3.Lua{DefaultSourceCode: inline(hostScript)}, look)),
			},
		}},
		OnNoMatch: run(&faultv3.HTTPFault{Abort: &faultv3.FaultAbort{
			ErrorType:  &faultv3.FaultAbort_HttpStatus{HttpStatus: 400},
			Percentage: &typev3.FractionalPercent{Numerator: 100, Denominator: typev3.FractionalPercent_HUNDRED},
		}}),
	}}
}

// run has a request pass through filters.
func run(filters ...proto.Message) *xdsmatcherv3.Matcher_OnMatch {
	var chain []*corev3.TypedExtensionConfig
	for _, f := range filters {
		chain = append(chain, &corev3.TypedExtensionConfig{
			Name:        string(f.ProtoReflect().Descriptor().FullName()),
			TypedConfig: pack(f),
		})
	}
	return execute(&compositev3.ExecuteFilterAction{FilterChain: &compositev3.FilterChainConfiguration{
		TypedConfig: chain,
	}})
}

// hostScript is for hosts with capitals, which Envoy has no other means to write in lower case. A host without a
// table of its own goes to the wildcards.
const hostScript = `function envoy_on_request(handle)
  local headers = handle:headers()
  local listener = string.match(headers:get("` + ScopeHeader + `") or "", "^[^|]*|") or ""
  headers:replace("` + ScopeHeader + `", listener .. string.lower(headers:get(":authority") or ""))
  handle:clearRouteCache()
  handle:metadata() -- has Envoy look for the route
  if handle:streamInfo():routeName() ~= "" then return end
  headers:replace("` + ScopeHeader + `", listener .. "*")
  handle:clearRouteCache()
end
`

// earlierScript is the host filter of listeners from before it was made of Envoy's own filters. They are there as
// long as their connections drain, and take nothing but a script. It can look for a route once a request, so a host
// with capitals that has no table of its own is asked to make a new connection (421).
const earlierScript = `function envoy_on_request(handle)
  local info, headers = handle:streamInfo(), handle:headers()
  local listener = string.match(headers:get("` + ScopeHeader + `") or "", "^[^|]*|") or ""
  local authority = headers:get(":authority") or ""
  local host = string.lower(authority)
  local labels = "." .. host
  if not string.match(host, "^%[[0-9a-f:.]+%]$") and
    (string.find(labels, "[^a-z0-9._-]") or string.find(labels, "..", 1, true) or string.find(labels, "%.$")) then
    handle:respond({[":status"] = "400"}, "")
    return
  end
  headers:replace("` + ScopeHeader + `", listener .. (host == authority and "*" or host))
  handle:clearRouteCache()
  handle:metadata() -- has Envoy look for the route
  if host ~= authority and info:routeName() == "" then handle:respond({[":status"] = "421"}, "") end
end
`

const (
	nameHost = "marchproxy.authority"
	// nameHostEarlier is the place of the host filter in listeners from before nameHost, whose connections may drain.
	nameHostEarlier = "marchproxy.host"
)

// filterHost is step 4. It is the same everywhere, in its place by ECDS so that another one drains nobody.
var filterHost = &filter{
	name: nameHost, holds: []proto.Message{&compositev3.Composite{}}, before: unavailable(),
	on:      onGateway,
	content: func(c *chain) *Resource { return extension(nameHost, hostFilter(), nil, c.ref()) },
}

// filterHostEarlier is the same for listeners from before.
var filterHostEarlier = &filter{
	name: nameHostEarlier, before: unavailable(), on: onGateway,
	content: func(c *chain) *Resource {
		return extension(nameHostEarlier, &luav3.Lua{DefaultSourceCode: inline(earlierScript)}, nil, c.ref())
	},
}

// hostFilterOff is the same in every table of an exact host, and made once.
var hostFilterOff = map[string]*anypb.Any{
	nameHost: pack(&routev3.FilterConfig{Disabled: true}), nameHostEarlier: pack(&routev3.FilterConfig{Disabled: true}),
}
