package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector reads the figures when they are asked for: the kernel counts, the agent keeps nothing.
type collector struct{ a *agent }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("marchproxy_agent_"+name, help, labels, nil)
}

var (
	descAttached = desc("xdp_attached", "1 where the interface is guarded in the mode that was asked for (XDP_MODE); "+
		"mode is the one that it is "+
		"guarded in, empty where it is not.", "interface", "mode", "asked")
	descRevision = desc("revision", "The revision up to which the policies are applied.")
	descPackets  = desc("packets_total", "Packets by what became of them and why.", "verdict", "reason")
	descPolicy   = desc("policy_packets_total", "Packets by policy, below and above its limit.", "policy", "limit")
	descUnsaved  = desc("unsaved", "1 while the last good policies cannot be written to disk.")
	descUnread   = desc("unread", "What the agent has still to read of the policies' events, or to take over, where it "+
		"has been behind for five seconds.")
	descMismatch = desc("hash_mismatch", "1 while the policies that were read have not their commit's hash, and "+
		"are not enforced.")
	descNATS   = desc("nats_connected", "1 while the agent is connected to NATS.")
	descExpiry = desc("identity_expiry_timestamp_seconds", "When the agent's own certificate ends, in seconds since "+
		"1970; +Inf without one.")
	descUp       = desc("envoy_up", "1 where Envoy serves.")
	descRestarts = desc("envoy_restarts_total", "How often Envoy ended by itself.")
	descSeen     = desc("envoy_seen_timestamp_seconds", "When Envoy last answered what it has counted; 0 before that.")
	descSick     = desc("unhealthy_endpoints", "Endpoints that Envoy sends no requests to because they fail.")
)

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descAttached, descRevision, descPackets, descPolicy, descUnsaved, descUnread,
		descMismatch, descNATS, descExpiry, descUp, descRestarts, descSeen, descSick,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	truth := map[bool]float64{true: 1}
	gauge(descExpiry, c.a.identity.Expiry())
	if c.a.enforcer != nil {
		c.a.enforcer.Sample()
		s := c.a.enforcer.Status(time.Now())
		if s.Interface != "" { // otherwise nothing is guarded, on purpose
			gauge(descAttached, truth[s.Mode == c.a.cfg.Mode], s.Interface, s.Mode, c.a.cfg.Mode)
		}
		gauge(descRevision, float64(s.Revision))
		gauge(descUnsaved, truth[s.Unsaved != ""])
		unread := int64(0)
		if b := c.a.behind.Load(); b != nil {
			unread = max(1, b.Total-b.Done)
		}
		gauge(descUnread, float64(unread))
		gauge(descMismatch, truth[c.a.mismatch.Load()])
		gauge(descNATS, truth[c.a.nats.IsConnected()])
		for reason, n := range s.Passed {
			count(descPackets, n, "passed", reason)
		}
		for reason, n := range s.Dropped {
			count(descPackets, n, "dropped", reason)
		}
		for _, p := range s.Policies {
			count(descPolicy, p.Passed, p.Name, "below")
			count(descPolicy, p.Limited, p.Name, "above")
		}
	}
	if c.a.envoy != nil {
		s := c.a.envoy.State()
		gauge(descUp, truth[s.Ready])
		count(descRestarts, int64(s.Restarts))
		seen, sick := 0.0, 0.0
		if r := c.a.observer.Report(); r != nil {
			if at, err := time.Parse(time.RFC3339, r.At); err == nil {
				seen = float64(at.UnixMilli()) / 1000
			}
			sick = float64(len(r.Unhealthy) + int(r.UnhealthyMore))
		}
		gauge(descSeen, seen)
		gauge(descSick, sick)
	}
}
