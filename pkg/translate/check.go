package translate

import (
	"fmt"
	"math/big"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

// Check says what Envoy would refuse in the objects that changes, already applied to the state, have
// made: Envoy's own schema rules on what would be built of them, and the rules that Envoy has beyond its
// schema. It costs what the change costs.
func Check(st *config.State, changes []config.Change) []config.Problem {
	return CheckIn(st, changes, CheckAlone)
}

// CheckIn is [Check] where somebody has looked at the objects by themselves: alone says what [CheckAlone] has found
// in one.
func CheckIn(
	st *config.State, changes []config.Change, alone func(*resource.Object) []config.Problem,
) []config.Problem {
	var out []config.Problem
	for _, c := range changes {
		if c.After == nil {
			continue
		}
		found := alone(c.After)
		k := &checker{o: c.After.Ref()}
		if m, is := c.After.Message().(*configv1.Route); is && len(found) == 0 && dependent(st, m) {
			k.built(st, c.After.Name, m) // what is wrong with it alone would be said twice
		}
		out = append(append(out, found...), k.found...)
	}
	return append(out, room(st, changes)...)
}

// CheckAlone is the part of [Check] for which an object is all that has to be known.
func CheckAlone(o *resource.Object) []config.Problem {
	k := &checker{o: o.Ref()}
	kinds[o.Kind].alone(k, o)
	return k.found
}

// dependent says whether what is built of a route depends on other objects' content.
func dependent(st *config.State, r *configv1.Route) bool {
	return r.GetAuthPolicy() != "" || slices.ContainsFunc(r.GetBackends(), func(b *configv1.Backend) bool {
		o := st.Get(resource.Ref{Kind: resource.KindService, Name: b.GetService()})
		return o != nil && traitsOf(o.Message().(*configv1.Service)) != ""
	})
}

type checker struct {
	o     resource.Ref
	found []config.Problem
}

func (k *checker) add(path, rule, message string, args ...any) {
	k.found = append(k.found, config.Problem{Object: k.o, Violation: resource.Violation{
		Path:    path,
		Message: fmt.Sprintf(message, args...), Rule: rule,
	}})
}

// emptyState has no objects, and nobody changes it.
var emptyState = config.New()

// built looks at what becomes of a route beside the other objects of a state.
func (k *checker) built(st *config.State, name string, r *configv1.Route) {
	v := look(st, "", Options{}, newParts())
	t := tableBuilder{view: &v, clusters: map[string]bool{}, policies: map[string]bool{}, listener: &configv1.Listener{}}
	for _, built := range t.route(name, r) {
		if err := built.ValidateAll(); err != nil {
			k.add("$", "envoy.schema", "would be refused by Envoy: %v", err)
		}
	}
}

func (k *checker) route(name string, r *configv1.Route) {
	k.built(emptyState, name, r)
	for i, h := range r.GetHosts() {
		if msg := checkAddressHost(h); msg != "" {
			k.add(fmt.Sprintf("$.hosts[%d]", i), "route.host", "%s", msg)
		}
	}
	if p, ok := r.GetPath().GetMatch().(*configv1.PathMatch_Regex); ok {
		k.regex("$.path.regex", p.Regex)
	}
	k.matches("$.headers", r.GetHeaders())
	k.matches("$.query", r.GetQuery())
	k.headers("$.request_headers", r.GetRequestHeaders())
	k.headers("$.response_headers", r.GetResponseHeaders())
	total := uint64(0)
	for i, backend := range r.GetBackends() {
		k.headers(fmt.Sprintf("$.backends[%d].request_headers", i), backend.GetRequestHeaders())
		if backend.Weight == nil {
			total++
		} else {
			total += uint64(backend.GetWeight())
		}
	}
	if len(r.GetBackends()) > 0 && total == 0 {
		k.add("$.backends", "route.weights", "have no weight at all; give at least one a weight above 0")
	}
	k.rewrite(r)
	k.redirect(r)
	for i, o := range r.GetCors().GetAllowOrigins() {
		k.regex(fmt.Sprintf("$.cors.allow_origins[%d].regex", i), o.GetRegex())
		if _, ok := o.GetMatch().(*configv1.StringMatch_Present); ok {
			k.add(fmt.Sprintf("$.cors.allow_origins[%d]", i), "route.cors", "must be exact, prefix, suffix or regex")
		}
	}
	if d := r.GetDirectResponse(); d.GetBody() != "" && (d.GetStatus() == 204 || d.GetStatus() == 205 ||
		d.GetStatus() == 304) {
		k.add("$.direct_response.body", "route.body", "is not empty, and a response of status %d has no body (RFC 9110); "+
			"leave it out, or choose another status", d.GetStatus())
	}
	k.timeouts(r)
	if b := r.GetRetry().GetBackoff(); b != nil && 10*b.AsDuration() < b.AsDuration() {
		k.add("$.retry.backoff", "route.retry", "is too long")
	}
}

func (k *checker) timeouts(r *configv1.Route) {
	own := r.GetResponseHeadersTimeout()
	if own == nil {
		return
	}
	if r.GetRetry().GetPerTryTimeout() != nil {
		k.add("$.response_headers_timeout", "route.timeouts", "is the same as retry.per_try_timeout, which is "+
			"given too; keep one")
	}
	if t := r.GetTimeout().AsDuration(); t > 0 && own.AsDuration() >= t {
		k.add("$.response_headers_timeout", "route.timeouts", "is not shorter than timeout, which ends the request first; "+
			"make it shorter or leave it out")
	}
}

// checkAddressHost says what is wrong with a host that is an IPv6 address, or returns "". Hosts are compared byte by
// byte, with what clients send: RFC 5952's form, and for addresses that hold an IPv4 one browsers' hexadecimal one
// as well.
func checkAddressHost(host string) string {
	text, bracketed := strings.CutPrefix(host, "[")
	if !bracketed {
		return ""
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(text, "]"))
	if err != nil || !ip.Is6() {
		return "is no IPv6 address, such as [2001:db8::1]"
	}
	b := ip.As16()
	hexadecimal := fmt.Sprintf("[::ffff:%x:%x]", uint16(b[12])<<8|uint16(b[13]), uint16(b[14])<<8|uint16(b[15]))
	if canonical := "[" + ip.String() + "]"; host != canonical && (!ip.Is4In6() || host != hexadecimal) {
		return "is not how clients write this address; write " + canonical
	}
	return ""
}

func (k *checker) rewrite(r *configv1.Route) {
	w := r.GetRewrite()
	if w == nil {
		return
	}
	if len(r.GetBackends()) == 0 {
		k.add("$.rewrite", "route.rewrite", "has no effect without backends")
	}
	if w.GetPrefix() != "" && w.GetRegex() != nil {
		k.add("$.rewrite", "route.rewrite", "has both prefix and regex; keep one")
	}
	if _, ok := r.GetPath().GetMatch().(*configv1.PathMatch_Regex); ok && w.GetPrefix() != "" {
		k.add("$.rewrite.prefix", "route.rewrite", "needs a path matched by prefix or exact; use rewrite.regex "+
			"with a path regex")
	}
	if p := r.GetPath().GetPrefix(); w.GetPrefix() == "/" && regexSize(stripPrefix(p)) > maxRegex {
		k.add("$.rewrite.prefix", "route.rewrite", "needs a shorter path.prefix, of at most %d bytes", maxRegex-10)
	}
	if x := w.GetRegex(); x != nil {
		k.regex("$.rewrite.regex.pattern", x.GetPattern())
		k.substitution(x)
	}
}

var group = regexp.MustCompile(`\\(.?)`)

func (k *checker) substitution(x *configv1.RegexRewrite) {
	re, err := regexp.Compile(x.GetPattern())
	if err != nil {
		return // said already
	}
	for _, m := range group.FindAllStringSubmatch(x.GetSubstitution(), -1) {
		switch {
		case m[1] == `\`:
		case len(m[1]) != 1 || m[1][0] < '0' || m[1][0] > '9':
			k.add("$.rewrite.regex.substitution", "regex.substitution", `has a \ that is not followed by a digit or by \`)
		case int(m[1][0]-'0') > re.NumSubexp():
			k.add("$.rewrite.regex.substitution", "regex.substitution", `names group \%s, but the pattern has %d`, m[1],
				re.NumSubexp())
		}
	}
}

func (k *checker) redirect(r *configv1.Route) {
	d := r.GetRedirect()
	if d.GetPath() != "" && d.GetPrefix() != "" {
		k.add("$.redirect", "route.redirect", "has both path and prefix; keep one")
	}
	if d.GetPrefix() != "" && r.GetPath().GetPrefix() == "" && r.GetPath() != nil {
		k.add("$.redirect.prefix", "route.redirect", "needs a path matched by prefix")
	}
}

func (k *checker) matches(path string, in []*configv1.NamedMatch) {
	for i, m := range in {
		k.regex(fmt.Sprintf("%s[%d].value.regex", path, i), m.GetValue().GetRegex())
		if path == "$.headers" && strings.ContainsAny(m.GetName(), " \t\r\n\x00") {
			k.add(fmt.Sprintf("%s[%d].name", path, i), "header.name", "is not an HTTP field name")
		}
		if path == "$.query" && m.GetInvert() {
			if _, ok := m.GetValue().GetMatch().(*configv1.StringMatch_Present); !ok {
				k.add(fmt.Sprintf("%s[%d].invert", path, i), "query.invert", "works with present only")
			}
		}
	}
}

func (k *checker) regex(path, re string) {
	if msg := checkRegex(re); msg != "" {
		k.add(path, "regex", "%s", msg)
	}
}

// IsFraming says whether a header frames a message or is of one connection alone (RFC 9110, 7.6.1): a wrong one has the
// next server find another message in it than Envoy did (request smuggling).
func IsFraming(name string) bool {
	switch strings.ToLower(name) {
	case "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "keep-alive", "proxy-connection",
		"http2-settings":
		return true
	}
	return false
}

func (k *checker) headers(path string, c *configv1.HeaderChanges) {
	name := func(at, n string) {
		if strings.HasPrefix(n, ":") || strings.EqualFold(n, "host") {
			k.add(at, "header.protected", "is %q, which Envoy does not let anybody change; use rewrite.host", n)
		}
		if strings.EqualFold(n, ScopeHeader) {
			k.add(at, "header.protected", "is used by MarchProxy itself")
		}
		if IsFraming(n) {
			k.add(at, "header.protected", "is %q, which says how a message is carried on one connection and is "+
				"Envoy's to set", n)
		}
	}
	for what, list := range map[string][]*configv1.HeaderValue{"set": c.GetSet(), "add": c.GetAdd()} {
		for i, h := range list {
			name(fmt.Sprintf("%s.%s[%d].name", path, what, i), h.GetName())
			if msg := checkFormat(h.GetValue()); msg != "" {
				k.add(fmt.Sprintf("%s.%s[%d].value", path, what, i), "header.format", "%s", msg)
			}
		}
	}
	for i, n := range c.GetRemove() {
		name(fmt.Sprintf("%s.remove[%d]", path, i), n)
	}
}

func (k *checker) service(name string, s *configv1.Service) {
	c := cluster(name, s)
	if err := c.ValidateAll(); err != nil {
		k.add("$", "envoy.schema", "would be refused by Envoy: %v", err)
	}
	if s.GetHealthCheck().GetGrpc() != nil && !isHTTP2(s) {
		k.add("$.health_check.grpc", "health_check.grpc", "needs a service of protocol grpc or http2")
	}
	seen := map[string]int{}
	priorities := map[uint32]bool{0: true}
	top := uint32(0)
	for i, e := range s.GetEndpoints() {
		k.address(seen, i, e.GetHost(), e.GetPort())
		priorities[e.GetPriority()] = true
		top = max(top, e.GetPriority())
	}
	for p := range top {
		if !priorities[p] || (p == 0 && !anyFirst(s)) {
			k.add("$.endpoints", "endpoint.priority", "have no endpoint of priority %d but some of %d; number them from 0 "+
				"without a gap", p, top)
			break
		}
	}
	k.locality(s)
	lb := s.GetLoadBalancing()
	if n := lb.GetTableSize(); n > 0 && !big.NewInt(int64(n)).ProbablyPrime(0) {
		k.add("$.load_balancing.table_size", "load_balancing.prime", "must be a prime number")
	}
	if n := lb.GetChoiceCount(); n == 1 {
		k.add("$.load_balancing.choice_count", "load_balancing.choices", "must be at least 2")
	}
	for i, h := range lb.GetHashOn() {
		if strings.HasPrefix(h.GetHeader(), ":") && h.GetHeader() != ":path" && h.GetHeader() != ":authority" &&
			h.GetHeader() != ":method" {
			k.add(fmt.Sprintf("$.load_balancing.hash_on[%d].header", i), "header.name", "is not a header of requests")
		}
	}
}

// address looks at the address of an endpoint beside those that were seen before it.
func (k *checker) address(seen map[string]int, i int, host string, port uint32) {
	at := fmt.Sprintf("%s:%d", strings.ToLower(host), port)
	if ip, err := netip.ParseAddr(host); err == nil {
		at = netip.AddrPortFrom(ip.Unmap(), uint16(port)).String()
		if ip.Zone() != "" {
			k.add(fmt.Sprintf("$.endpoints[%d].host", i), "endpoint.host", "has an IPv6 zone, which Envoy does not take")
		}
	}
	if j, twice := seen[at]; twice {
		k.add(fmt.Sprintf("$.endpoints[%d]", i), "endpoint.duplicate", "is the same address as endpoint %d; give it more "+
			"weight instead", j)
	}
	seen[at] = i
}

func anyFirst(s *configv1.Service) bool {
	for _, e := range s.GetEndpoints() {
		if e.GetPriority() == 0 {
			return true
		}
	}
	return false
}

func (k *checker) certificate(c *configv1.Certificate) {
	if c.GetPrivateKey() == "" {
		return // only trusted
	}
	leaf, err := certificate.Leaf(c.GetChain())
	if err == nil {
		err = certificate.Presentable(leaf)
	}
	if err != nil {
		k.add("$.chain", "certificate", "%s", err.Error())
	}
}

func (k *checker) limit(name string, p *configv1.RateLimitPolicy) {
	if p.GetRequestsPerSecond() > 0 {
		if err := localLimit(name, p).ValidateAll(); err != nil {
			k.add("$", "envoy.schema", "would be refused by Envoy: %v", err)
		}
	}
}

func (k *checker) gateway(name string, g *configv1.Gateway) {
	for i, l := range g.GetListeners() {
		if a := l.GetAddress(); a != "" {
			if _, err := netip.ParseAddr(a); err != nil {
				k.add(fmt.Sprintf("$.listeners[%d].address", i), "gateway.address", "must be an IP address")
				continue
			}
		}
		var s *serving
		if l.GetProtocol() == configv1.Listener_https {
			// Without the names, which are no matter here, and with one certificate of many.
			few := &configv1.Listener{
				Name:         l.GetName(),
				Protocol:     l.GetProtocol(),
				ClientAuth:   l.GetClientAuth(),
				Certificates: l.GetCertificates()[:min(1, len(l.GetCertificates()))],
			}
			x := servername.New(name, func(string) *servername.Certificate { return nil })
			x.SetGateway(&configv1.Gateway{Listeners: []*configv1.Listener{few}})
			s = serve(x, l.GetName())
		}
		if err := listener(name, g, l, s, true).ValidateAll(); err != nil {
			k.add(fmt.Sprintf("$.listeners[%d]", i), "envoy.schema", "would be refused by Envoy: %v", err)
		}
		hosts := map[string]bool{}
		for j, a := range l.GetClientAuth() {
			for m, h := range a.GetHosts() {
				if hosts[h] {
					k.add(fmt.Sprintf("$.listeners[%d].client_auth[%d].hosts[%d]", i, j, m), "gateway.client_auth",
						"stands in two entries")
				}
				hosts[h] = true
			}
		}
	}
	for field, op := range g.GetAccessLog().GetFields() {
		if msg := checkFormat(op); msg != "" {
			k.add(fmt.Sprintf("$.access_log.fields[%q]", field), "header.format", "%s", msg)
		}
	}
}
