package translate

import (
	"fmt"
	"net/netip"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	limitcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	networkinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// defaultClients is how many clients' buckets an Envoy keeps for one policy. Envoy's own default is 20,
// and what is forgotten starts with a full bucket.
const defaultClients = 65536

const nameRequests = "marchproxy.requests"

// filterRequests counts requests by client address. The client's address picks the policy, the longest network that
// holds it first, as the kernel does; Envoy's local rate limit cannot do that by itself, so that each policy's filter
// stands behind a match on the address. Within it a wildcard descriptor has a bucket for each client.
//
// Envoy makes all of it anew when some of it changes, and forgets what the clients have used. Filters that
// come by ECDS of their own within the filter config, one a policy, would keep the others' counts, but Envoy 1.40
// subscribes to such only while a listener starts.
//
// It is open before its content has come, and where Envoy refuses it: a limit shares out what there is, and no
// service at all is no fair share. A listener waits for its filter configs before it opens.
var filterRequests = &filter{
	name: nameRequests, holds: []proto.Message{&compositev3.Composite{}, passThrough(), asleep()}, before: passThrough(),
	on:      onLimits,
	content: requestLimits,
}

func requestLimits(c *chain) *Resource {
	var objects []resource.Ref
	var ranges []*xdsmatcherv3.IPMatcher_IPRangeMatcher
	var everyone *xdsmatcherv3.Matcher_OnMatch
	var allowed []netip.Prefix
	for _, name := range c.limits {
		ref := resource.Ref{Kind: resource.KindRateLimit, Name: name}
		p := c.st.Get(ref).Message().(*configv1.RateLimitPolicy)
		allowed = append(allowed, config.ParseCIDRs(p.GetAllow())...)
		if !config.LimitsGateway(p, c.gateway) {
			continue
		}
		objects = append(objects, ref)
		action := execute(
			&compositev3.ExecuteFilterAction{TypedConfig: &corev3.TypedExtensionConfig{
				Name: "envoy.filters.http.local_ratelimit", TypedConfig: pack(localLimit(name, p)),
			}},
		)
		if len(p.GetCidrs()) == 0 {
			everyone = action
		} else {
			ranges = append(ranges, &xdsmatcherv3.IPMatcher_IPRangeMatcher{
				Ranges:  cidrRanges(config.ParseCIDRs(p.GetCidrs())),
				OnMatch: action,
			})
		}
	}
	if len(objects) == 0 {
		return sleeping(nameRequests, passThrough(), c.ref())
	}
	limits := bySource(ranges, everyone)
	if len(allowed) > 0 {
		limits = bySource(
			[]*xdsmatcherv3.IPMatcher_IPRangeMatcher{{Ranges: cidrRanges(allowed), OnMatch: nothing()}},
			&xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Matcher{Matcher: limits}},
		)
	}
	return extension(nameRequests, &compositev3.Composite{Matcher: limits}, nil,
		append(newestFirst(c.st, objects), c.ref())...)
}

// bySource matches the client's address; otherwise stands for addresses in none of the ranges.
func bySource(
	ranges []*xdsmatcherv3.IPMatcher_IPRangeMatcher, otherwise *xdsmatcherv3.Matcher_OnMatch,
) *xdsmatcherv3.Matcher {
	m := &xdsmatcherv3.Matcher{OnNoMatch: otherwise}
	if len(ranges) > 0 {
		m.MatcherType = &xdsmatcherv3.Matcher_MatcherTree_{MatcherTree: &xdsmatcherv3.Matcher_MatcherTree{
			Input: matching("envoy.matching.inputs.source_ip", &networkinputsv3.SourceIPInput{}),
			TreeType: &xdsmatcherv3.Matcher_MatcherTree_CustomMatch{
				CustomMatch: matching("envoy.matching.custom_matchers.trie_matcher",
					&xdsmatcherv3.IPMatcher{RangeMatchers: ranges}),
			},
		}}
	}
	return m
}

func matching(name string, config proto.Message) *xdscorev3.TypedExtensionConfig {
	return &xdscorev3.TypedExtensionConfig{Name: name, TypedConfig: pack(config)}
}

func cidrRanges(in []netip.Prefix) []*xdscorev3.CidrRange {
	out := make([]*xdscorev3.CidrRange, len(in))
	for i, p := range in {
		out[i] = &xdscorev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))}
	}
	return out
}

func execute(a *compositev3.ExecuteFilterAction) *xdsmatcherv3.Matcher_OnMatch {
	return &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{
		Action: matching("composite-action", a),
	}}
}

// nothing lets a request pass: a filter chain that is not there is skipped.
func nothing() *xdsmatcherv3.Matcher_OnMatch {
	return execute(&compositev3.ExecuteFilterAction{FilterChainName: "none"})
}

// localLimit has one bucket for each client address; of IPv6 for each of its networks, as in the kernel.
func localLimit(name string, p *configv1.RateLimitPolicy) *limitv3.LocalRateLimit {
	const entry = "masked_remote_address" // what the action below calls it
	on := &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{
		Numerator:   100,
		Denominator: typev3.FractionalPercent_HUNDRED,
	}}
	rate, second := p.GetRequestsPerSecond(), durationpb.New(1e9)
	burst := orNumber(p.GetRequestsBurst(), rate)
	bucket := &typev3.TokenBucket{MaxTokens: burst, TokensPerFill: wrapperspb.UInt32(rate), FillInterval: second}
	return &limitv3.LocalRateLimit{
		StatPrefix: "policy." + name, FilterEnabled: on, FilterEnforced: on,
		RateLimits: []*routev3.RateLimit{
			{Actions: []*routev3.RateLimit_Action{{ActionSpecifier: &routev3.RateLimit_Action_MaskedRemoteAddress_{
				MaskedRemoteAddress: &routev3.RateLimit_Action_MaskedRemoteAddress{
					V6PrefixMaskLen: wrapperspb.UInt32(orNumber(p.GetIpv6PrefixLength(), 64)),
				},
			}}}},
		},
		Descriptors: []*limitcommonv3.LocalRateLimitDescriptor{
			{Entries: []*limitcommonv3.RateLimitDescriptor_Entry{{Key: entry}}, TokenBucket: bucket},
		},
		MaxDynamicDescriptors: wrapperspb.UInt32(orNumber(p.GetMaxClients(), defaultClients)),
		// Envoy wants a bucket for requests that no descriptor fits. There are none.
		TokenBucket:                     bucket,
		AlwaysConsumeDefaultTokenBucket: wrapperspb.Bool(false),
		EnableXRatelimitHeaders:         limitcommonv3.XRateLimitHeadersRFCVersion_DRAFT_VERSION_03,
		EnableRetryAfterHeader:          true,
		RateLimitedAsResourceExhausted:  true,
		// Envoy knows the headers of the draft's version 03 only; these are of its later ones, for the
		// answers that are refused: nothing remains, and a token comes within a second.
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{
			replace("RateLimit-Policy", literal(fmt.Sprintf(`"%s";q=%d;w=1`, name, rate))),
			replace("RateLimit", literal(fmt.Sprintf(`"%s";r=0;t=1`, name))),
		},
	}
}
