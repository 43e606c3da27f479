package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

var rateLimitKind = Kind{
	Name:    resource.KindRateLimit,
	Example: `{"spec": {"cidrs": ["192.0.2.0/24"], "packets_per_second": 1000, "action": "observe"}}`,
	references: func(o *resource.Object, r *refs) {
		for i, g := range rateLimitOf(o).GetGateways() {
			r.add(resource.KindGateway, g, "$.gateways[%d]", i)
		}
	},
	index: func(s *State, o *resource.Object, by int) {
		for _, p := range prefixesOf(rateLimitOf(o)) {
			put(s.cidrs, p, o, by)
		}
	},
	check:    func(s *State, c Change) []Problem { return s.checkRateLimit(c.After, rateLimitOf(c.After)) },
	Concerns: limited,
	Nodes:    func(o *resource.Object) map[string]string { return rateLimitOf(o).GetNodeSelector() },
	// Its packets are counted by nodes, and a node does not tell a gateway's packets from another's.
	Reach: func(*resource.Object) Reach {
		return Reach{
			EveryGateway: &Why{"$", "holds for nodes, whatever gateways are on them"},
			EveryHost:    &Why{"$", "holds for every host"},
		}
	},
}

func rateLimitOf(o *resource.Object) *configv1.RateLimitPolicy {
	return resource.Spec[*configv1.RateLimitPolicy](o)
}

// ParseCIDR reads a network or an address, as a policy lists them. The error says what is wrong in words
// that go after the field's name.
func ParseCIDR(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("is %q, which is neither an IP address nor a network such as 203.0.113.0/24", s)
		}
		s = fmt.Sprintf("%s/%d", s, ip.BitLen())
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("is %q, which is neither an IP address nor a network such as 203.0.113.0/24", s)
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("is %q, an IPv4 address written as IPv6; write it as IPv4", s)
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("is %q, which has bits beyond its length; write %s", s, p.Masked())
	}
	return p, nil
}

// ParseCIDRs reads a list whose members have been checked.
func ParseCIDRs(list []string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		if p, err := ParseCIDR(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// Selects says whether a node's labels are those that a selector asks for.
func Selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if has, ok := labels[k]; !ok || has != v {
			return false
		}
	}
	return true
}

// meet says whether a node can have labels that both selectors ask for.
func meet(a, b map[string]string) bool {
	for k, v := range a {
		if other, ok := b[k]; ok && other != v {
			return false
		}
	}
	return true
}

// LimitsGateway says whether a policy limits the requests of a gateway.
func LimitsGateway(p *configv1.RateLimitPolicy, gateway string) bool {
	return p.GetRequestsPerSecond() > 0 && (len(p.GetGateways()) == 0 || slices.Contains(p.GetGateways(), gateway))
}

// limited are the gateways whose Envoys may count other requests after a policy's change.
func limited(c Change) (gateways []string, all bool) {
	for o := range c.Objects {
		p := rateLimitOf(o)
		limits := p.GetRequestsPerSecond() > 0
		if limits && len(p.GetGateways()) == 0 || len(p.GetAllow()) > 0 { // whom one allows none counts
			return nil, true
		}
		if limits {
			gateways = append(gateways, p.GetGateways()...)
		}
	}
	return gateways, false
}

// everyone is the key of the policies without CIDRs.
var everyone = []netip.Prefix{{}}

func prefixesOf(p *configv1.RateLimitPolicy) []netip.Prefix {
	if len(p.GetCidrs()) == 0 {
		return everyone
	}
	return ParseCIDRs(p.GetCidrs())
}

func (s *State) checkRateLimit(o *resource.Object, p *configv1.RateLimitPolicy) []Problem {
	c := limitCheck{o: o}
	c.list("cidrs", p.GetCidrs())
	allowed := c.list("allow", p.GetAllow())
	for prefix, i := range c.list("deny", p.GetDeny()) {
		at := fmt.Sprintf("$.deny[%d]", i)
		if prefix.Bits() == 0 {
			c.add(at, "is everyone: no client could reach the nodes any more; name the networks to deny, or give a policy "+
				"without cidrs a low packets_per_second")
		}
		if _, both := allowed[prefix]; both {
			c.add(at, "stands under allow as well; keep one")
		}
	}
	c.effects(p)
	if len(c.found) > 0 {
		return c.found // what does not parse cannot be compared
	}
	for i, prefix := range prefixesOf(p) {
		for rival := range s.cidrs[prefix].all() {
			r := rateLimitOf(rival)
			if rival.Name == o.Name || !rivals(p, r) {
				continue
			}
			if len(p.GetCidrs()) == 0 {
				c.add(
					"$.cidrs",
					"are empty, and so are those of policy %q: which of the two limits everyone else would be chance; give one of "+
						"them cidrs, or node selectors that exclude each other",
					rival.Name,
				)
			} else {
				c.add(
					fmt.Sprintf("$.cidrs[%d]", i),
					"%s is already limited by policy %q; remove it from one of them, or give them node selectors that "+
						"exclude each other",
					prefix,
					rival.Name,
				)
			}
			break
		}
		if len(c.found) > 20 {
			break
		}
	}
	if p.GetIpv6PrefixLength() > 0 {
		for _, name := range s.Names(resource.KindRateLimit) {
			r := rateLimitOf(s.Get(resource.Ref{Kind: resource.KindRateLimit, Name: name}))
			if r.GetIpv6PrefixLength() > 0 && r.GetIpv6PrefixLength() != p.GetIpv6PrefixLength() &&
				meet(p.GetNodeSelector(), r.GetNodeSelector()) {
				c.add(
					"$.ipv6_prefix_length",
					"is %d, but policy %q, which can select the same nodes, states %d; a node has one length",
					p.GetIpv6PrefixLength(),
					name,
					r.GetIpv6PrefixLength(),
				)
			}
		}
	}
	return c.found
}

// rivals says whether two policies would limit the same thing of a source: its packets on a node, or its
// requests on a gateway.
func rivals(a, b *configv1.RateLimitPolicy) bool {
	if a.GetPacketsPerSecond() > 0 && b.GetPacketsPerSecond() > 0 && meet(a.GetNodeSelector(), b.GetNodeSelector()) {
		return true
	}
	return a.GetRequestsPerSecond() > 0 && b.GetRequestsPerSecond() > 0 && (len(a.GetGateways()) == 0 ||
		len(b.GetGateways()) == 0 ||
		slices.ContainsFunc(a.GetGateways(), func(g string) bool { return slices.Contains(b.GetGateways(), g) }))
}

type limitCheck struct {
	o     *resource.Object
	found []Problem
}

func (c *limitCheck) add(path, format string, args ...any) {
	c.found = append(c.found, problem(c.o, path, "rate_limit", format, args...))
}

// list checks a list of networks and returns where each stands.
func (c *limitCheck) list(field string, list []string) map[netip.Prefix]int {
	at := make(map[netip.Prefix]int, len(list))
	for i, s := range list {
		if len(c.found) > 20 {
			break
		}
		p, err := ParseCIDR(s)
		if err != nil {
			c.found = append(c.found, problem(c.o, fmt.Sprintf("$.%s[%d]", field, i), "cidr", "%s", err.Error()))
			continue
		}
		if j, twice := at[p]; twice {
			c.add(fmt.Sprintf("$.%s[%d]", field, i), "is the same network as %s[%d]", field, j)
		}
		at[p] = i
	}
	return at
}

// effects refuses what would change nothing, which is a mistake more often than not.
func (c *limitCheck) effects(p *configv1.RateLimitPolicy) {
	packets, requests := p.GetPacketsPerSecond() > 0, p.GetRequestsPerSecond() > 0
	f := p.GetFilters()
	filters := f.GetTcpFlags() || f.GetLand() || f.GetBadLengths() || f.GetFragments() ||
		len(f.GetAmplificationPorts()) > 0
	if !packets && !requests && !filters && !p.GetSynCookies() && len(p.GetAllow()) == 0 && len(p.GetDeny()) == 0 {
		c.add("$", "does nothing; state packets_per_second, requests_per_second, allow, deny, filters or syn_cookies")
		return
	}
	if len(p.GetCidrs()) > 0 && !packets && !requests {
		c.add("$.cidrs", "have no effect without packets_per_second or requests_per_second")
	}
	if p.GetBurst() > 0 && !packets {
		c.add("$.burst", "has no effect without packets_per_second")
	}
	if day := uint64(p.GetPacketsPerSecond()) * 86400; packets && uint64(p.GetBurst()) > day {
		c.add("$.burst", "is more than a day's worth of packets_per_second; at most %d", day)
	}
	if !requests {
		if p.GetRequestsBurst() > 0 {
			c.add("$.requests_burst", "has no effect without requests_per_second")
		}
		if len(p.GetGateways()) > 0 {
			c.add("$.gateways", "have no effect without requests_per_second")
		}
		if p.GetMaxClients() > 0 {
			c.add("$.max_clients", "has no effect without requests_per_second")
		}
	}
}
