package translate

import (
	"regexp"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	prioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// route builds a user's route: one of Envoy's, after those for its paths that need no credentials.
func (t *tableBuilder) route(name string, r *configv1.Route) []*routev3.Route {
	out := &routev3.Route{
		Match:               match(r),
		RequestHeadersToAdd: headersToAdd(r.GetRequestHeaders()), RequestHeadersToRemove: r.GetRequestHeaders().GetRemove(),
		ResponseHeadersToAdd:    headersToAdd(r.GetResponseHeaders()),
		ResponseHeadersToRemove: r.GetResponseHeaders().GetRemove(),
	}
	switch {
	case r.GetRedirect() != nil:
		out.Action = &routev3.Route_Redirect{Redirect: redirect(r)}
	case r.GetDirectResponse() != nil:
		out.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
			Status: r.GetDirectResponse().GetStatus(),
			Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{
				InlineString: r.GetDirectResponse().GetBody(),
			}},
		}}
		if r.GetDirectResponse().GetBody() == "" {
			out.GetDirectResponse().Body = nil
		}
		if ct := r.GetDirectResponse().GetContentType(); ct != "" {
			out.ResponseHeadersToAdd = append(out.ResponseHeadersToAdd, replace("content-type", literal(ct)))
		}
	default:
		out.Action = &routev3.Route_Route{Route: t.forward(r)}
	}
	t.tell(out, name, r)
	for _, f := range filters {
		if f.asks != nil && f.asks(t.view, r) {
			t.ask(f.name)
		}
		if f.route == nil {
			continue
		}
		if m := f.route(t, name, r); m != nil {
			if out.TypedPerFilterConfig == nil {
				out.TypedPerFilterConfig = map[string]*anypb.Any{}
			}
			out.TypedPerFilterConfig[f.name] = pack(m)
		}
	}
	return append(t.exempt(out, r), out)
}

func match(r *configv1.Route) *routev3.RouteMatch {
	m := everything()
	switch p := r.GetPath().GetMatch().(type) {
	case *configv1.PathMatch_Exact:
		m.PathSpecifier = &routev3.RouteMatch_Path{Path: p.Exact}
	case *configv1.PathMatch_Prefix:
		if prefix := strings.TrimRight(p.Prefix, "/"); prefix != "" {
			m.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: prefix}
		}
	case *configv1.PathMatch_Regex:
		m.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex(p.Regex)}
	}
	if len(r.GetMethods()) > 0 {
		m.Headers = append(m.Headers, &routev3.HeaderMatcher{
			Name:                 ":method",
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: oneOf(r.GetMethods())},
		})
	}
	for _, h := range r.GetHeaders() {
		hm := &routev3.HeaderMatcher{Name: strings.ToLower(h.GetName()), InvertMatch: h.GetInvert()}
		if p, ok := h.GetValue().GetMatch().(*configv1.StringMatch_Present); ok {
			hm.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: p.Present}
		} else {
			hm.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: stringMatch(h.GetValue())}
		}
		m.Headers = append(m.Headers, hm)
	}
	for _, q := range r.GetQuery() {
		m.QueryParameters = append(m.QueryParameters, queryMatch(q))
	}
	return m
}

func queryMatch(q *configv1.NamedMatch) *routev3.QueryParameterMatcher {
	out := &routev3.QueryParameterMatcher{Name: q.GetName()}
	if p, ok := q.GetValue().GetMatch().(*configv1.StringMatch_Present); ok {
		out.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{
			PresentMatch: p.Present != q.GetInvert(),
		}
	} else {
		out.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: stringMatch(q.GetValue())}
	}
	return out
}

// oneOf matches any of a few plain words.
func oneOf(words []string) *matcherv3.StringMatcher {
	if len(words) == 1 {
		return exactly(words[0])
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: regex(strings.Join(words, "|")),
	}}
}

func exactly(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func regex(re string) *matcherv3.RegexMatcher { return &matcherv3.RegexMatcher{Regex: re} }

func stringMatch(m *configv1.StringMatch) *matcherv3.StringMatcher {
	out := &matcherv3.StringMatcher{}
	switch v := m.GetMatch().(type) {
	case *configv1.StringMatch_Prefix:
		out.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: v.Prefix}
	case *configv1.StringMatch_Suffix:
		out.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: v.Suffix}
	case *configv1.StringMatch_Regex:
		out.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(v.Regex)}
	default:
		return exactly(m.GetExact())
	}
	return out
}

func headersToAdd(c *configv1.HeaderChanges) []*corev3.HeaderValueOption {
	var out []*corev3.HeaderValueOption
	for _, h := range c.GetSet() {
		out = append(out, replace(h.GetName(), allowed(h.GetValue())))
	}
	for _, h := range c.GetAdd() {
		out = append(out, header(h.GetName(), allowed(h.GetValue()), corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD))
	}
	return out
}

// forward is the action of a route with backends.
func (t *tableBuilder) forward(r *configv1.Route) *routev3.RouteAction {
	a := &routev3.RouteAction{
		Timeout: orElse(r.GetTimeout(), 0), IdleTimeout: r.GetIdleTimeout(),
	}
	grpc, others, ordered := false, false, false
	seen := map[string]bool{}
	for _, b := range r.GetBackends() {
		t.clusters[b.GetService()] = true
		o := t.st.Get(resource.Ref{Kind: resource.KindService, Name: b.GetService()})
		if o == nil || seen[b.GetService()] {
			continue
		}
		seen[b.GetService()] = true
		s := o.Message().(*configv1.Service)
		t.learn(b.GetService(), traitsOf(s))
		grpc = grpc || s.GetProtocol() == configv1.Service_grpc
		others = others || several(s)
		ordered = ordered || inOrder(s)
		a.HashPolicy = append(a.HashPolicy, hashPolicies(s.GetLoadBalancing())...)
	}
	if grpc && r.GetTimeout() == nil {
		// Streams may be long; a client's own deadline holds (grpc-timeout).
		a.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{
			MaxStreamDuration:    durationpb.New(0),
			GrpcTimeoutHeaderMax: durationpb.New(0),
		}
	}
	a.RetryPolicy = retry(r.GetRetry(), answerWithin(r, grpc), others, ordered)
	target(a, r.GetBackends())
	for _, m := range r.GetMirrors() {
		t.clusters[m.GetService()] = true
		a.RequestMirrorPolicies = append(a.RequestMirrorPolicies, &routev3.RouteAction_RequestMirrorPolicy{
			Cluster: m.GetService(), RuntimeFraction: fraction(m.Percent, 100),
		})
	}
	rewrite(a, r)
	if r.GetWebsocket() {
		a.UpgradeConfigs = []*routev3.RouteAction_UpgradeConfig{{UpgradeType: "websocket"}}
	}
	return a
}

func target(a *routev3.RouteAction, backends []*configv1.Backend) {
	if len(backends) == 1 && backends[0].GetRequestHeaders() == nil {
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: backends[0].GetService()}
		return
	}
	wc := &routev3.WeightedCluster{}
	for _, b := range backends {
		weight := uint32(1)
		if b.Weight != nil {
			weight = b.GetWeight()
		}
		wc.Clusters = append(wc.Clusters, &routev3.WeightedCluster_ClusterWeight{
			Name: b.GetService(), Weight: wrapperspb.UInt32(weight),
			RequestHeadersToAdd: headersToAdd(b.GetRequestHeaders()), RequestHeadersToRemove: b.GetRequestHeaders().GetRemove(),
		})
	}
	a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: wc}
}

func hashPolicies(lb *configv1.LoadBalancing) []*routev3.RouteAction_HashPolicy {
	if p := lb.GetPolicy(); p != configv1.LoadBalancing_ring_hash && p != configv1.LoadBalancing_maglev {
		return nil
	}
	if len(lb.GetHashOn()) == 0 {
		return []*routev3.RouteAction_HashPolicy{{PolicySpecifier: sourceIP()}}
	}
	var out []*routev3.RouteAction_HashPolicy
	for _, h := range lb.GetHashOn() {
		p := &routev3.RouteAction_HashPolicy{Terminal: h.GetTerminal()}
		switch s := h.GetSource().(type) {
		case *configv1.HashOn_Header:
			p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{
				HeaderName: s.Header,
			}}
		case *configv1.HashOn_Cookie:
			p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{
				Cookie: &routev3.RouteAction_HashPolicy_Cookie{
					Name: s.Cookie.GetName(), Ttl: s.Cookie.GetTtl(),
					Path: s.Cookie.GetPath(),
				},
			}
		case *configv1.HashOn_Query:
			p.PolicySpecifier = &routev3.RouteAction_HashPolicy_QueryParameter_{
				QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: s.Query},
			}
		default:
			p.PolicySpecifier = sourceIP()
		}
		out = append(out, p)
	}
	return out
}

func sourceIP() *routev3.RouteAction_HashPolicy_ConnectionProperties_ {
	return &routev3.RouteAction_HashPolicy_ConnectionProperties_{
		ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
	}
}

// answerWithin is how long a backend may take to begin its answer; nil for any time. Envoy's timeout of a route
// ends with the answer's last byte; that of an attempt has no effect once the answer has begun.
func answerWithin(r *configv1.Route, grpc bool) *durationpb.Duration {
	switch own := r.GetRetry().GetPerTryTimeout(); {
	case own != nil:
		return own
	case r.GetResponseHeadersTimeout() != nil:
		if d := r.GetResponseHeadersTimeout(); d.AsDuration() > 0 {
			return d
		}
		return nil
	case r.GetTimeout() != nil || r.GetWebsocket() || grpc:
		return nil
	}
	return durationpb.New(15 * time.Second)
}

// triedElsewhere is how often a request that has not reached any endpoint is tried again where there may be others and
// the route says nothing: for ordered endpoints once for each step from the own zone to the region, the cloud, and all else.
const triedElsewhere = 3

// retry is what a route says of trying again. Where there may be another endpoint a request that has not reached one is
// tried again by itself (ADR 68); where the endpoints are ordered each attempt goes to the next priority (ADR 61).
func retry(r *configv1.Retry, within *durationpb.Duration, others, ordered bool) *routev3.RetryPolicy {
	switch {
	case r == nil && others:
		r = &configv1.Retry{Attempts: triedElsewhere}
	case r == nil && within == nil:
		return nil
	case r == nil:
		return &routev3.RetryPolicy{PerTryTimeout: within}
	}
	on := r.GetConditions()
	if len(on) == 0 {
		on = []string{"connect-failure", "refused-stream", "reset-before-request"}
	}
	out := &routev3.RetryPolicy{
		RetryOn: strings.Join(on, ","), NumRetries: wrapperspb.UInt32(max(r.GetAttempts(), 1)),
		PerTryTimeout: within, RetriableStatusCodes: r.GetStatuses(),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: pack(&hostsv3.PreviousHostsPredicate{}),
			},
		}},
		HostSelectionRetryMaxAttempts: 3,
	}
	if ordered {
		out.RetryPriority = &routev3.RetryPolicy_RetryPriority{
			Name: "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{
				TypedConfig: pack(&prioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 1}),
			},
		}
	}
	if b := r.GetBackoff(); b != nil {
		out.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{
			BaseInterval: b,
			MaxInterval:  durationpb.New(10 * b.AsDuration()),
		}
	}
	return out
}

func rewrite(a *routev3.RouteAction, r *configv1.Route) {
	w := r.GetRewrite()
	if w.GetHost() != "" {
		a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: w.GetHost()}
	}
	if x := w.GetRegex(); x != nil {
		a.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{Pattern: regex(x.GetPattern()), Substitution: x.GetSubstitution()}
	}
	if w.GetPrefix() == "" {
		return
	}
	prefix := strings.TrimRight(r.GetPath().GetPrefix(), "/")
	to := strings.TrimRight(w.GetPrefix(), "/")
	switch {
	case r.GetPath().GetExact() != "":
		a.PrefixRewrite = w.GetPrefix()
	case prefix == "": // everything goes below the new prefix
		a.PrefixRewrite = to + "/"
	case to == "":
		// /api and /api/x become / and /x: Envoy would make //x of a plain replacement by /.
		a.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{Pattern: regex(stripPrefix(prefix)), Substitution: "/"}
	default:
		a.PrefixRewrite = to
	}
}

// stripPrefix matches a prefix and all slashes after it.
func stripPrefix(prefix string) string { return "^" + regexp.QuoteMeta(prefix) + "/*" }

func redirect(r *configv1.Route) *routev3.RedirectAction {
	d := r.GetRedirect()
	out := &routev3.RedirectAction{HostRedirect: d.GetHost(), PortRedirect: d.GetPort(), StripQuery: d.GetStripQuery()}
	if d.GetScheme() != "" {
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: d.GetScheme()}
	}
	switch {
	case d.GetPath() != "":
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: d.GetPath()}
	case d.GetPrefix() != "":
		out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: d.GetPrefix()}
	}
	out.ResponseCode = map[uint32]routev3.RedirectAction_RedirectResponseCode{
		302: routev3.RedirectAction_FOUND, 303: routev3.RedirectAction_SEE_OTHER,
		307: routev3.RedirectAction_TEMPORARY_REDIRECT, 308: routev3.RedirectAction_PERMANENT_REDIRECT,
	}[d.GetStatus()]
	return out
}

func fraction(percent *float64, def float64) *corev3.RuntimeFractionalPercent {
	p := def
	if percent != nil {
		p = *percent
	}
	return &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{
		Numerator:   uint32(p * 10000),
		Denominator: typev3.FractionalPercent_MILLION,
	}}
}
