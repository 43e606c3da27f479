package status

import (
	"time"

	"github.com/marchproxy/marchproxy/pkg/locality"
)

// TrafficInterval is how long an interval of an [EnvoyReport] is, where the Envoy answers.
const TrafficInterval = 10 * time.Second

// MaxLatencies is how many places of services an [EnvoyReport] has latencies of.
const MaxLatencies = 300

// MaxUnhealthy is how many endpoints an [EnvoyReport] names.
const MaxUnhealthy = 200

// TimeBounds are the bounds, in milliseconds, by which a [Traffic] counts how long requests took: below the first one,
// from it to the second, and so on; the last count is of those from the last bound on.
var TimeBounds = []float64{
	1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 300, 500, 800, 1200, 2000, 3000, 5000, 8000, 12000, 20000, 30000, 60000,
}

// EnvoyReport is what somebody sees of the Envoy that it runs: an agent, or `marchproxy dev`.
type EnvoyReport struct {
	// At is when the Envoy answered last, RFC 3339.
	At string `json:"at"`
	// Since when it is looked at: to a process that was started again, intervals are counted from 1.
	Since string `json:"since"`
	// Intervals are the last three, the newest last: a report that is lost leaves no gap.
	Intervals []Traffic `json:"intervals,omitempty"`
	// Unhealthy are the endpoints that get no requests because they fail, in order, [MaxUnhealthy] at most; UnhealthyMore
	// counts the others.
	Unhealthy     []UnhealthyEndpoint `json:"unhealthy,omitempty"`
	UnhealthyMore int32               `json:"unhealthy_more,omitempty"`
	// Cloud, Region and Zone are where the Envoy is.
	Cloud  string `json:"cloud,omitempty"`
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
	// Latencies are those of places of services that are ordered by them, in order, [MaxLatencies] at most.
	Latencies []PlaceLatency `json:"latencies,omitempty"`
}

// Place is where the Envoy is.
func (r *EnvoyReport) Place() locality.Place {
	return locality.Place{Cloud: r.Cloud, Region: r.Region, Zone: r.Zone}
}

// Steady are the latencies that places are ordered by, by service.
func (r *EnvoyReport) Steady() map[string]locality.Latencies {
	out := map[string]locality.Latencies{}
	for _, l := range r.Latencies[:min(len(r.Latencies), MaxLatencies)] {
		if out[l.Service] == nil {
			out[l.Service] = locality.Latencies{}
		}
		out[l.Service][l.Place()] = l.Steady
	}
	return out
}

// PlaceLatency is how soon the endpoints of a service at a place answer.
type PlaceLatency struct {
	Service string `json:"service"`
	Cloud   string `json:"cloud,omitempty"`
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	// Milliseconds is the median of the last measurements, and Steady what it was when it last changed for good: places
	// are ordered by that.
	Milliseconds float64 `json:"ms"`
	Steady       float64 `json:"steady_ms"`
}

// Place is where the endpoints are.
func (l PlaceLatency) Place() locality.Place {
	return locality.Place{Cloud: l.Cloud, Region: l.Region, Zone: l.Zone}
}

// AgentEnvoy is what an [AgentStatus] says of an Envoy, for who reads nothing else of it.
type AgentEnvoy struct {
	ID          string       `json:"id"`
	EnvoyReport *EnvoyReport `json:"envoy_report"`
}

func (AgentEnvoy) prefix() string { return agentPrefix }
func (s AgentEnvoy) id() string   { return s.ID }

// Traffic is what an Envoy did within some seconds.
type Traffic struct {
	// Number counts the intervals, from 1.
	Number  int64   `json:"number"`
	Seconds float64 `json:"seconds"`
	// Requests that began, on all listeners.
	Requests int64 `json:"requests"`
	// Answers by class: 1xx, 2xx, 3xx, 4xx, 5xx.
	Answers []int64 `json:"answers,omitempty"`
	// Times counts the answered requests by how long they took, by [TimeBounds]; nil where there were none.
	Times []int64 `json:"times,omitempty"`
}

// UnhealthyEndpoint is an endpoint that an Envoy sends no requests to.
type UnhealthyEndpoint struct {
	Service string `json:"service"`
	// Address with its port, and the name that it was found by; "" where the service has the address itself.
	Address string `json:"address"`
	Host    string `json:"host,omitempty"`
	// Reason is health_check, health_check_timeout, not_checked_yet or ejected.
	Reason string `json:"reason"`
}
