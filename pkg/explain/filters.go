package explain

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	httpwasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/filterconfig"
)

// filter is what a filter makes of the request. Those that look at answers alone, and those that are asleep, make
// nothing of it.
func (q *request) filter(name string, content proto.Message) error {
	told, err := q.perRoute(name)
	if err != nil {
		return err
	}
	switch content := content.(type) {
	case *corsv3.Cors:
		if policy, is := told.(*corsv3.CorsPolicy); is {
			q.cors(policy)
		}
	case *compositev3.Composite:
		return q.bySource(content.GetMatcher())
	case *limitv3.LocalRateLimit:
		if own, is := told.(*limitv3.LocalRateLimit); is {
			content = own
		}
		q.limit(content)
	case *httpwasmv3.Wasm:
		return q.wasm(content)
	case *jwtv3.JwtAuthentication:
		q.jwt(content, told)
	case *faultv3.HTTPFault:
		status := int(content.GetAbort().GetHttpStatus())
		q.refuse(status, "unavailable", "filter %s has no configuration", name)
	}
	return nil
}

// hostKind is what the host filter makes of a host.
type hostKind int

const (
	noHost hostKind = iota
	plainHost
	capitals
)

// hostIs asks the host filter, and says with which status it refuses what is no host.
func hostIs(filter proto.Message, host string) (kind hostKind, status int) {
	composite, is := filter.(*compositev3.Composite)
	if !is {
		return noHost, 503
	}
	first := chosen(composite.GetMatcher(), host)
	var action compositev3.ExecuteFilterAction
	if first.GetAction().GetTypedConfig().UnmarshalTo(&action) != nil {
		return noHost, 503
	}
	for _, f := range action.GetFilterChain().GetTypedConfig() {
		m, err := f.GetTypedConfig().UnmarshalNew()
		if err != nil {
			return noHost, 503
		}
		switch m := m.(type) {
		case *faultv3.HTTPFault:
			return noHost, int(m.GetAbort().GetHttpStatus())
		case *luav3.Lua:
			return capitals, 0
		}
	}
	return plainHost, 0
}

// cors answers a preflight, before anybody asks for credentials. Envoy's filter lets routes alone that answer by
// themselves.
func (q *request) cors(p *corsv3.CorsPolicy) {
	origin, _ := q.headers.get("origin")
	if origin == "" || q.route.GetRoute() == nil {
		return
	}
	allowed := false
	for _, m := range p.GetAllowOriginStringMatch() {
		allowed = allowed || matchString(m, "*") || matchString(m, origin)
	}
	asks, _ := q.headers.get("access-control-request-method")
	switch {
	case !allowed:
		q.step("cors", "the origin is none of those that the route allows, and nothing is said to the browser")
	case q.Method != http.MethodOptions || asks == "":
		q.step("cors", "the origin is allowed, and the browser is told so")
	default:
		q.step("cors", "the origin is allowed, and its preflight is answered at once")
		q.plain(Answered, 200, "preflight", "a preflight of an origin that route %s allows", q.out.Route)
	}
}

// bySource finds the limit for the client's address.
func (q *request) bySource(m *xdsmatcherv3.Matcher) error {
	if !q.Source.IsValid() {
		q.step("limits", "depend on the client's address, which was not given")
		return nil
	}
	var action compositev3.ExecuteFilterAction
	on := ofAddress(m, q.Source)
	if on == nil {
		return nil
	}
	if err := on.GetAction().GetTypedConfig().UnmarshalTo(&action); err != nil {
		return err
	}
	if action.GetTypedConfig() == nil {
		q.step("limits", "no policy: the address is allowed as much as it likes")
		return nil
	}
	limit := &limitv3.LocalRateLimit{}
	if err := action.GetTypedConfig().GetTypedConfig().UnmarshalTo(limit); err != nil {
		return err
	}
	q.limit(limit)
	return nil
}

// ofAddress follows a matcher of addresses: the longest network that has it.
func ofAddress(m *xdsmatcherv3.Matcher, source netip.Addr) *xdsmatcherv3.Matcher_OnMatch {
	then := m.GetOnNoMatch()
	longest := -1
	var trie xdsmatcherv3.IPMatcher
	if c := m.GetMatcherTree().GetCustomMatch(); c != nil && c.GetTypedConfig().UnmarshalTo(&trie) == nil {
		for _, r := range trie.GetRangeMatchers() {
			for _, n := range r.GetRanges() {
				a, err := netip.ParseAddr(n.GetAddressPrefix())
				bits := int(n.GetPrefixLen().GetValue())
				if err == nil && bits > longest && netip.PrefixFrom(a, bits).Masked().Contains(source) {
					then, longest = r.GetOnMatch(), bits
				}
			}
		}
	}
	if next := then.GetMatcher(); next != nil {
		return ofAddress(next, source)
	}
	return then
}

// limit notes a limit that the request is counted by.
func (q *request) limit(l *limitv3.LocalRateLimit) {
	b := l.GetTokenBucket()
	if b == nil {
		return // a place for routes' own ones, and this route has none
	}
	out := api.ExplainedLimit{Kind: "listener", Name: q.Listener, Counted: "all requests of the listener"}
	switch {
	case strings.HasPrefix(l.GetStatPrefix(), "policy."):
		out.Kind, out.Name = "policy", strings.TrimPrefix(l.GetStatPrefix(), "policy.")
		for _, r := range l.GetRateLimits() {
			for _, a := range r.GetActions() {
				masked := a.GetMaskedRemoteAddress()
				bits := int(masked.GetV6PrefixMaskLen().GetValue())
				if q.Source.Is4() {
					bits = 32
				}
				if n, err := q.Source.Prefix(bits); masked != nil && err == nil {
					out.Counted = "requests of " + n.String()
				}
			}
		}
		if len(l.GetDescriptors()) > 0 {
			b = l.GetDescriptors()[0].GetTokenBucket()
		}
	case strings.HasPrefix(l.GetStatPrefix(), "route_"):
		out.Kind, out.Name, out.Counted = "route", q.out.Route, "all requests of the route"
	}
	out.Requests, out.Burst = int64(b.GetTokensPerFill().GetValue()), int64(b.GetMaxTokens())
	out.Per = b.GetFillInterval().AsDuration().String()
	q.out.Limits = append(q.out.Limits, out)
	q.step("limits", "%s %s: %d in %s, %d at once, of %s; 429 beyond",
		out.Kind, out.Name, out.Requests, out.Per, out.Burst, out.Counted)
}

// wasm has one of our filters decide.
func (q *request) wasm(w *httpwasmv3.Wasm) error {
	filter := strings.TrimPrefix(w.GetConfig().GetName(), "marchproxy.")
	if filter == "metrics" { // it counts
		return nil
	}
	text := &wrapperspb.StringValue{}
	if err := w.GetConfig().GetConfiguration().UnmarshalTo(text); err != nil {
		return err
	}
	refusal, goesOn, err := filterconfig.Decide(q.ctx, filter, []byte(text.GetValue()), filterconfig.Request{
		Headers: append([]filterconfig.Header(nil), q.headers...), Route: q.route.GetName(), Now: q.Now,
	})
	if err != nil {
		return err
	}
	who := ""
	if filter == "license" {
		if q.out.License = q.built.Gateway().GetLicense(); q.out.License != "" {
			who = "license " + q.out.License
		}
	} else {
		policy, err := q.policy([]byte(text.GetValue()))
		if err != nil {
			return err
		}
		if policy != "" {
			q.out.AuthPolicy, who = policy, "policy "+policy
		}
	}
	if refusal == nil {
		if q.headers = goesOn; who != "" {
			q.step(filter, "%s lets it pass", who)
		}
		return nil
	}
	if who == "" {
		who = "the gateway has no license, which"
	}
	reason := strings.TrimPrefix(refusal.Details, "marchproxy_")
	q.step(filter, "%s refuses it: %s", who, reason)
	q.out.Body = refusal.Body
	q.refuse(refusal.Status, reason, "%s refuses it (%s)", who, reason)
	return nil
}

// policy is the policy that our filter asks: the route's, or the default one of its configuration; "" for none.
func (q *request) policy(text []byte) (string, error) {
	parts := strings.Split(q.route.GetName(), "|") // see translate.RouteName
	if len(parts) >= 3 && parts[2] != "" {
		return strings.TrimPrefix(parts[2], "-"), nil // none is "-"
	}
	var c struct {
		DefaultPolicy string `json:"default_policy"`
	}
	err := json.Unmarshal(text, &c)
	return c.DefaultPolicy, err
}

// jwt is Envoy's own filter for tokens: what there is to be said without the keys.
func (q *request) jwt(c *jwtv3.JwtAuthentication, told proto.Message) {
	policy := ""
	if own, is := told.(*jwtv3.PerRouteConfig); is {
		if policy = own.GetRequirementName(); policy == "" {
			return
		}
	} else {
		for _, r := range c.GetRules() {
			if q.mismatch(r.GetMatch()) == "" {
				policy = r.GetRequirementName()
				break
			}
		}
		if policy == "" {
			if len(c.GetRules()) > 0 {
				q.out.AuthPolicy = q.built.Gateway().GetAuthPolicy()
				q.step("auth", "policy %s needs no credentials for this path", q.out.AuthPolicy)
			}
			return
		}
	}
	q.out.AuthPolicy = policy
	if authorization, _ := q.headers.get("authorization"); !strings.Contains(authorization, "Bearer ") {
		q.step("auth", "policy %s demands a token, and there is none", policy)
		q.out.Body = `{"error":"unauthorized","reason":"missing_credentials"}` + "\n"
		q.refuse(401, "auth_missing", "policy %s demands a token, and there is none", policy)
		return
	}
	q.step("auth", "policy %s has public keys: Envoy judges the token by them, and this is not known here", policy)
	said := fmt.Sprintf("the token is good under policy %s; 401, 403 or 503 otherwise", policy)
	if q.out.Provided != "" {
		said = q.out.Provided + "; " + said
	}
	q.out.Provided = said
}
