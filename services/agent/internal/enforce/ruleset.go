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

// policy is one that selects this node, its networks parsed and its lists in order: a ruleset is put together at
// every change of any of them.
type policy struct {
	object             *resource.Object
	spec               *configv1.RateLimitPolicy
	cidrs, allow, deny []netip.Prefix
}

func parse(o *resource.Object) *policy {
	p := o.Message().(*configv1.RateLimitPolicy)
	return &policy{
		o, p, config.ParseCIDRs(p.GetCidrs()), inOrder(config.ParseCIDRs(p.GetAllow())),
		inOrder(config.ParseCIDRs(p.GetDeny())),
	}
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
	allow, deny := [][]netip.Prefix{hosts(peers)}, [][]netip.Prefix(nil)
	ports := map[uint16]bool{}
	for _, name := range names {
		p := policies[name]
		allow, deny = append(allow, p.allow), append(deny, p.deny)
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
	r.Allow, r.Deny = merge(allow), merge(deny)
	denies := func(x netip.Prefix) string {
		return names[slices.IndexFunc(names, func(name string) bool {
			_, found := slices.BinarySearchFunc(policies[name].deny, x, netip.Prefix.Compare)
			return found
		})]
	}
	for _, x := range r.Deny {
		for _, ip := range peers {
			if x.Contains(ip) {
				warnings = append(warnings, fmt.Sprintf("policy %q denies %s, which holds this node's peer %s; the peer is let "+
					"in all the same", denies(x), x, ip))
			}
		}
	}
	if both := common(r.Allow, r.Deny); len(both) > 0 {
		for _, x := range both {
			warnings = append(warnings, fmt.Sprintf("policy %q denies %s, which is allowed as well; it is let in", denies(x), x))
		}
		r.Deny = slices.DeleteFunc(slices.Clone(r.Deny), func(x netip.Prefix) bool {
			_, allowed := slices.BinarySearchFunc(both, x, netip.Prefix.Compare)
			return allowed
		})
	}
	r.Filters.AmplificationPorts = slices.Sorted(maps.Keys(ports))
	slices.Sort(warnings)
	return r, slices.Compact(warnings)
}

func hosts(ips []netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, ip := range ips {
		out = append(out, netip.PrefixFrom(ip, ip.BitLen()))
	}
	return inOrder(out)
}

func inOrder(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list)
}

// merge makes one list in order of several, each network once. A list that is alone is the result itself, by which
// the kernel's side knows it again.
func merge(lists [][]netip.Prefix) []netip.Prefix {
	lists = slices.DeleteFunc(lists, func(l []netip.Prefix) bool { return len(l) == 0 })
	switch len(lists) {
	case 0:
		return nil
	case 1:
		return lists[0]
	}
	half := len(lists) / 2
	a, b := merge(lists[:half]), merge(lists[half:])
	out := make([]netip.Prefix, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch order := a[0].Compare(b[0]); {
		case order < 0:
			out, a = append(out, a[0]), a[1:]
		case order > 0:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// common is what two lists in order share.
func common(a, b []netip.Prefix) (out []netip.Prefix) {
	if len(b) < len(a) {
		a, b = b, a
	}
	for _, x := range a {
		if _, found := slices.BinarySearchFunc(b, x, netip.Prefix.Compare); found {
			out = append(out, x)
		}
	}
	return out
}

func limitOf(name string, id uint32, p *policy) bpf.Policy {
	out := bpf.Policy{
		ID: id, Name: name, CIDRs: p.cidrs, Rate: uint64(p.spec.GetPacketsPerSecond()),
		Burst: uint64(p.spec.GetBurst()),
	}
	if out.Burst == 0 {
		out.Burst = out.Rate
	}
	if p.spec.GetAction() == configv1.RateLimitPolicy_observe {
		out.Action = bpf.Pass
	}
	return out
}
