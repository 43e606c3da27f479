package enforce

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/bpf"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// topSources is how many sources a report names.
const topSources = 20

// Status is the report of now, with the counters of the last [Enforcer.Sample].
func (e *Enforcer) Status(now time.Time) status.AgentStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := status.AgentStatus{
		ID: e.opt.ID, Epoch: e.upTo.Epoch, Revision: e.upTo.Revision, State: resource.Digest(e.upTo.State),
		At: resource.Time(now), Labels: e.opt.Labels,
		Interface: e.opt.Interface, Mode: string(e.on.Mode), Warnings: append(slices.Clone(e.warnings),
			withoutCookies(e.policies)...),
	}
	if e.pins.Warning != "" {
		s.Warnings = append(s.Warnings, e.pins.Warning)
	}
	if e.failure != nil {
		s.Reason = e.failure.Error()
	}
	if e.unsaved != nil {
		s.Unsaved = e.unsaved.Error()
	}
	for _, name := range slices.Sorted(maps.Keys(e.applied)) {
		p := status.PolicyStatus{Name: name, Revision: e.applied[name]}
		if e.policies[name] != nil && e.policies[name].spec.GetPacketsPerSecond() > 0 {
			c := e.sample.Policies[e.numbers[name]]
			p.Passed, p.Limited = int64(c.Under), int64(c.Over)
		}
		s.Policies = append(s.Policies, p)
	}
	s.Passed, s.Dropped = map[string]int64{}, map[string]int64{}
	for reason, c := range e.sample.Reasons {
		switch {
		case c.Packets == 0:
		case reason.Drops():
			s.Dropped[string(reason)] = int64(c.Packets)
		default:
			s.Passed[string(reason)] = int64(c.Packets)
		}
	}
	s.Sources = e.sources
	return s
}

// withoutCookies tells of policies that ask for SYN cookies where the kernel makes none. It is looked at anew for each
// report: the setting is changed behind the agent's back.
func withoutCookies(policies map[string]*policy) []string {
	const setting = "net.ipv4.tcp_syncookies"
	raw, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(setting, ".", "/"))
	if err != nil || strings.TrimSpace(string(raw)) != "0" {
		return nil
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(policies)) {
		if policies[name].spec.GetSynCookies() {
			out = append(out, fmt.Sprintf("policy %q asks for SYN cookies, which %s=0 turns off on this node; sysctl -w %s=1 "+
				"turns them on", name, setting, setting))
		}
	}
	return out
}

// Sample reads the kernel's counters for the next [Enforcer.Status]. It goes through every source that the
// kernel follows and every network of the policies, which is too much to do at each change.
func (e *Enforcer) Sample() {
	e.mu.Lock()
	p, policies := e.program, maps.Clone(e.policies)
	e.mu.Unlock()
	if p == nil {
		return
	}
	stats, err := p.Stats()
	if err == nil {
		var sources []bpf.Source
		if sources, err = p.TopSources(topSources); err == nil {
			var named []status.LimitedSource
			for _, x := range sources {
				named = append(named, status.LimitedSource{
					Address: shown(x.Prefix), Policy: limiter(policies, x.Prefix),
					Limited: int64(x.Over),
				})
			}
			e.mu.Lock()
			e.sample, e.sources = stats, named
			e.mu.Unlock()
		}
	}
	if err != nil {
		e.opt.Log.Warn("the kernel's counters cannot be read", zap.Error(err))
	}
}

// shown is a source as people write it.
func shown(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// limiter is the policy that limits a source: that with the longest network around it.
func limiter(policies map[string]*policy, source netip.Prefix) string {
	found, longest := "", -1
	for name, p := range policies {
		if p.spec.GetPacketsPerSecond() == 0 {
			continue
		}
		if len(p.cidrs) == 0 && longest < 0 {
			found = name
		}
		for _, c := range p.cidrs {
			if c.Bits() > longest && c.Contains(source.Addr()) {
				found, longest = name, c.Bits()
			}
		}
	}
	return found
}

// Check compares the kernel's maps with the policies, each difference a sentence.
func (e *Enforcer) Check() ([]string, error) {
	e.work.Lock()
	defer e.work.Unlock()
	if e.program == nil {
		return nil, errors.New("the program is not loaded")
	}
	rules, _ := combine(e.policies, e.numbers, e.peers)
	return e.program.Differences(rules)
}
