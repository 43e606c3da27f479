package server

import (
	"github.com/prometheus/client_golang/prometheus"
)

// collector reads the figures when they are asked for.
type collector struct{ d *discover }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("marchproxy_discover_"+name, help, labels, nil)
}

var (
	descUp        = desc("source_up", "1 where a source could be read last.", "source")
	descFound     = desc("source_workloads", "Workloads that a source has found.", "source")
	descWorkloads = desc("workloads", "Workloads that are known.")
	descPending   = desc("pending", "Workloads whose newest form is not written.")
	descProblems  = desc("problems", "Workloads of which something is not served as their labels say.")
	descApplies   = desc("applies_total", "Writes that the api was asked for.")
	descFailures  = desc("failures_total", "Writes that the api did not answer, or refused.")
)

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descUp, descFound, descWorkloads, descPending, descProblems, descApplies,
		descFailures,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	metric := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	for name, s := range c.d.state().Sources {
		up := 0.0
		if s.Up {
			up = 1
		}
		metric(descUp, prometheus.GaugeValue, up, name)
		metric(descFound, prometheus.GaugeValue, float64(s.Workloads), name)
	}
	s := c.d.rec.Status()
	metric(descWorkloads, prometheus.GaugeValue, float64(s.Workloads))
	metric(descPending, prometheus.GaugeValue, float64(s.Pending))
	metric(descProblems, prometheus.GaugeValue, float64(len(s.Problems)))
	metric(descApplies, prometheus.CounterValue, float64(s.Applies))
	metric(descFailures, prometheus.CounterValue, float64(s.Failures))
}
