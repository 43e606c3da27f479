// Package source is what the sources of endpoints (Docker, Nomad, Consul, DNS) have in common: what they find, and how
// they hand it over.
package source

import (
	"context"
	"time"
)

// Source finds workloads. Run hands over everything that there is, at first and after each change, until the context
// ends; it goes on after every failure. A list that failed is not handed over: what is not known to be gone stays. It
// tells health whether it works, nil for yes, as often as it likes.
type Source interface {
	// Name is the source's in logs, metrics and labels: docker.
	Name() string
	Run(ctx context.Context, found func([]Workload), health func(error)) error
}

// State is what an endpoint is used for.
type State string

// States of endpoints.
const (
	Ready    State = "ready"
	Draining State = "draining"
)

// Workload is what becomes one Service: the containers of a compose service, the allocations of a Nomad service.
type Workload struct {
	// Key tells it from all others of its source: shop/web. It becomes a part of the owner of what is written.
	Key string
	// Name of the Service, unless a label says another.
	Name string
	// Labels say what becomes of it; package labels knows them.
	Labels map[string]string
	// Endpoints are those that take requests, or drain.
	Endpoints []Endpoint
	// Problems are about single endpoints, which are left out, in sentences without a subject's repetition.
	Problems []string
}

// Endpoint is one address of a workload.
type Endpoint struct {
	Host   string `json:"host"`
	Port   uint32 `json:"port"`
	Weight uint32 `json:"weight,omitempty"`
	Zone   string `json:"zone,omitempty"`
	Cloud  string `json:"cloud,omitempty"`
	Region string `json:"region,omitempty"`
	State  State  `json:"state,omitempty"`
}

// Retry calls one until the context ends, at once after it returned nil, and after a pause, which grows up to most,
// where it failed. failed is told of each failure.
func Retry(ctx context.Context, most time.Duration, one func(context.Context) error, failed func(error)) {
	pause := 100 * time.Millisecond
	for ctx.Err() == nil {
		err := one(ctx)
		if err == nil {
			pause = 100 * time.Millisecond
			continue
		}
		if ctx.Err() != nil {
			return
		}
		failed(err)
		select {
		case <-time.After(pause):
			pause = min(2*pause, most)
		case <-ctx.Done():
		}
	}
}
