package enforce

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/bpf"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// policy is one that selects this node, its networks parsed: a ruleset is put together at every change of
// any of them.
type policy struct {
	object             *resource.Object
	spec               *configv1.RateLimitPolicy
	cidrs, allow, deny []netip.Prefix
}

func parse(o *resource.Object) *policy {
	p := o.Message().(*configv1.RateLimitPolicy)
	return &policy{o, p, config.ParseCIDRs(p.GetCidrs()), config.ParseCIDRs(p.GetAllow()), config.ParseCIDRs(p.GetDeny())}
}

// ids gives each policy a number that stays its own while it exists: the kernel counts by it.
type ids map[string]uint32

// assign keeps the numbers of those that are there, frees those of the others, and numbers new ones.
func (m ids) assign(names []string) {
	there := make(map[string]bool, len(names))
	for _, n := range names {
		there[n] = true
	}
	maps.DeleteFunc(m, func(name string, _ uint32) bool { return !there[name] })
	used := make(map[uint32]bool, len(m))
	for _, id := range m {
		used[id] = true
	}
	next := uint32(0)
	for _, n := range names {
		if _, ok := m[n]; ok {
			continue
		}
		for used[next] {
			next++
		}
		m[n], used[next] = next, true
	}
}

// combine makes one ruleset of the policies. Peers are always allowed: a policy must not cut the node off
// from what could take the policy back. The warnings are for the operator.
func combine(policies map[string]*policy, numbers ids, peers []netip.Addr) (bpf.Ruleset, []string) {
	var r bpf.Ruleset
	var warnings []string
	names := slices.Sorted(maps.Keys(policies))
	allow, deny := map[netip.Prefix]bool{}, map[netip.Prefix]string{}
	ports := map[uint16]bool{}
	for _, name := range names {
		p := policies[name]
		for _, x := range p.allow {
			allow[x] = true
		}
		for _, x := range p.deny {
			deny[x] = name
		}
		f := p.spec.GetFilters()
		r.Filters.TCPFlags = r.Filters.TCPFlags || f.GetTcpFlags()
		r.Filters.Land = r.Filters.Land || f.GetLand()
		r.Filters.Malformed = r.Filters.Malformed || f.GetBadLengths()
		r.Filters.TinyFragment = r.Filters.Malformed
		r.Filters.Fragments = r.Filters.Fragments || f.GetFragments()
		for _, port := range f.GetAmplificationPorts() {
			ports[uint16(port)] = true
		}
		r.SYNCookies = r.SYNCookies || p.spec.GetSynCookies()
		if n := p.spec.GetIpv6PrefixLength(); n > 0 {
			r.IPv6PrefixLen = uint8(n)
		}
		if p.spec.GetPacketsPerSecond() == 0 {
			continue
		}
		limit := limitOf(name, numbers[name], p)
		if len(p.cidrs) == 0 {
			r.Default = &limit
		} else {
			r.Policies = append(r.Policies, limit)
		}
	}
	for _, ip := range peers {
		host := netip.PrefixFrom(ip, ip.BitLen())
		for x, name := range deny {
			if x.Contains(ip) {
				warnings = append(warnings, fmt.Sprintf("policy %q denies %s, which holds this node's peer %s; the peer is let in all the same", name, x, ip))
			}
		}
		allow[host] = true
	}
	for x := range allow {
		if name, both := deny[x]; both {
			warnings = append(warnings, fmt.Sprintf("policy %q denies %s, which is allowed as well; it is let in", name, x))
			delete(deny, x)
		}
	}
	r.Allow, r.Deny = sorted(maps.Keys(allow)), sorted(maps.Keys(deny))
	r.Filters.AmplificationPorts = slices.Sorted(maps.Keys(ports))
	slices.Sort(warnings)
	return r, slices.Compact(warnings)
}

func sorted(in func(func(netip.Prefix) bool)) []netip.Prefix {
	return slices.SortedFunc(in, netip.Prefix.Compare)
}

func limitOf(name string, id uint32, p *policy) bpf.Policy {
	out := bpf.Policy{ID: id, Name: name, CIDRs: p.cidrs, Rate: uint64(p.spec.GetPacketsPerSecond()), Burst: uint64(p.spec.GetBurst())}
	if out.Burst == 0 {
		out.Burst = out.Rate
	}
	if p.spec.GetAction() == configv1.RateLimitPolicy_observe {
		out.Action = bpf.Pass
	}
	return out
}
