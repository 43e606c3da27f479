package translate

import (
	"slices"
	"strings"
	"time"

	xdscore "github.com/cncf/xds/go/xds/core/v3"
	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	networkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	sniv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/cert_mappers/sni/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/marchproxy/marchproxy/pkg/servername"
)

// Names of the chains that every https listener has; none with a "/" is theirs.
const (
	chainOnDemand = "on-demand"
	chainFirst    = "first"
)

// handshakeTimeout ends handshakes that wait for a secret that nobody can deliver, and those of clients that stall.
const handshakeTimeout = 15 * time.Second

// serving is what an https listener does with server names, see package servername.
type serving struct {
	chains []servername.Chain
	first  []string // the certificates for clients that send no name
}

// serve is what a listener of the gateway does with them; nil for one without TLS.
func serve(x *servername.Index, listener string) *serving {
	l := x.Listener(listener)
	if l == nil {
		return nil
	}
	return &serving{l.Chains(), l.First()}
}

// terminate gives a listener its filter chains. Which of them serves a name is said by a matcher beside them, not in
// the chains: a name that comes or goes so leaves each of them as it is, and no connection drains.
func (s *serving) terminate(out *listenerv3.Listener, filters []*listenerv3.Filter) {
	add := func(name string, socket *corev3.TransportSocket, first ...*listenerv3.Filter) {
		out.FilterChains = append(out.FilterChains, &listenerv3.FilterChain{
			Name: name, Filters: append(first, filters...), TransportSocket: socket,
			TransportSocketConnectTimeout: durationpb.New(handshakeTimeout),
		})
	}
	exact := map[string]*matcherv3.Matcher_OnMatch{}
	var wild []domain
	for _, c := range s.chains {
		if c.CA == "" {
			add(c.Name, downstreamTLS(c.Certs, ""))
		} else {
			add(c.Name, downstreamTLS(c.Certs, c.CA), clientCAFilter(c.CA))
		}
		for _, n := range c.Names {
			if suffix, is := strings.CutPrefix(n, "*"); is {
				wild = append(wild, domain{suffix, c.Name})
			} else {
				exact[n] = toChain(c.Name)
			}
		}
	}
	add(chainOnDemand, onDemandTLS())
	add(chainFirst, downstreamTLS(s.first, ""))
	out.FilterChainMatcher = notExact(wild)
	if len(exact) > 0 {
		out.FilterChainMatcher = &matcherv3.Matcher{
			MatcherType: &matcherv3.Matcher_MatcherTree_{MatcherTree: &matcherv3.Matcher_MatcherTree{
				Input: serverName(), TreeType: &matcherv3.Matcher_MatcherTree_ExactMatchMap{
					ExactMatchMap: &matcherv3.Matcher_MatcherTree_MatchMap{Map: exact},
				},
			}},
			OnNoMatch: &matcherv3.Matcher_OnMatch{OnMatch: &matcherv3.Matcher_OnMatch_Matcher{Matcher: notExact(wild)}},
		}
	}
}

// domain is a wildcard without its "*", and its chain.
type domain struct{ suffix, chain string }

// notExact tries the wildcards, the longest first, and then lets only what can be a host's name become the name of a
// secret. The rest of what a client can send is no UTF-8, which would end the xDS stream and could never be
// answered, or the name of a secret that is not for clients: those have a "/".
func notExact(wild []domain) *matcherv3.Matcher {
	slices.SortFunc(wild, func(a, b domain) int {
		return compareAll(len(b.suffix)-len(a.suffix), compare(a.suffix, b.suffix))
	})
	list := &matcherv3.Matcher_MatcherList{}
	add := func(value *matcherv3.StringMatcher, chain string) {
		list.Matchers = append(list.Matchers, &matcherv3.Matcher_MatcherList_FieldMatcher{
			Predicate: &matcherv3.Matcher_MatcherList_Predicate{
				MatchType: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
					SinglePredicate: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
						Input: serverName(), Matcher: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{
							ValueMatch: value,
						},
					},
				},
			},
			OnMatch: toChain(chain),
		})
	}
	for _, d := range wild {
		add(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: d.suffix}}, d.chain)
	}
	add(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{
		Regex: "[a-z0-9._-]+", EngineType: &matcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &matcherv3.RegexMatcher_GoogleRE2{}},
	}}}, chainOnDemand)
	return &matcherv3.Matcher{
		MatcherType: &matcherv3.Matcher_MatcherList_{MatcherList: list},
		OnNoMatch:   toChain(chainFirst),
	}
}

func serverName() *xdscore.TypedExtensionConfig {
	return &xdscore.TypedExtensionConfig{
		Name:        "envoy.matching.inputs.server_name",
		TypedConfig: pack(&networkv3.ServerNameInput{}),
	}
}

func toChain(name string) *matcherv3.Matcher_OnMatch {
	return &matcherv3.Matcher_OnMatch{OnMatch: &matcherv3.Matcher_OnMatch_Action{
		Action: &xdscore.TypedExtensionConfig{Name: "chain", TypedConfig: pack(wrapperspb.String(name))},
	}}
}

func commonTLS() *tlsv3.CommonTlsContext {
	return &tlsv3.CommonTlsContext{
		AlpnProtocols: []string{"h2", "http/1.1"},
		TlsParams:     &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2},
	}
}

// downstreamTLS presents certificates; with an authority, clients must have one of its own.
func downstreamTLS(certs []string, ca string) *corev3.TransportSocket {
	common := commonTLS()
	for _, c := range certs {
		common.TlsCertificateSdsSecretConfigs = append(common.TlsCertificateSdsSecretConfigs,
			&tlsv3.SdsSecretConfig{Name: certSecret(c), SdsConfig: sds()})
	}
	out := &tlsv3.DownstreamTlsContext{CommonTlsContext: common}
	if ca != "" {
		out.RequireClientCertificate = wrapperspb.Bool(true)
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: caSecret(ca), SdsConfig: sds()},
		}
	}
	return tlsSocket(out)
}

// onDemandTLS presents the certificate that the client's server name names. Envoy refuses it with session resumption,
// whose keys would not depend on the certificate.
func onDemandTLS() *corev3.TransportSocket {
	common := commonTLS()
	common.CustomTlsCertificateSelector = onDemand(&corev3.TypedExtensionConfig{
		Name: "envoy.tls.certificate_mappers.sni", TypedConfig: pack(&sniv3.SNI{DefaultValue: AnyName}),
	})
	return tlsSocket(&tlsv3.DownstreamTlsContext{
		CommonTlsContext: common, DisableStatefulSessionResumption: true,
		SessionTicketKeysType: &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{
			DisableStatelessSessionResumption: true,
		},
	})
}

func tlsSocket(c *tlsv3.DownstreamTlsContext) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{
		TypedConfig: pack(c),
	}}
}
