// Package consul finds services of Consul's catalog whose health checks pass. Their tags are the labels.
package consul

import (
	"cmp"
	"context"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/labels"
	"github.com/marchproxy/marchproxy/services/discover/internal/catalog"
	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// Options are where Consul is.
type Options struct {
	// Address is a URL, or host:port; Token that of a policy with service_prefix and node_prefix "" read.
	Address, Token string
	// Wait is how long a question is held back at most; everything is read again then.
	Wait time.Duration
	Log  *zap.Logger
}

// Consul is a [source.Source].
type Consul struct {
	opt Options
	api catalog.Client
}

var _ source.Source = (*Consul)(nil)

// New makes one; nobody is asked yet.
func New(opt Options) *Consul {
	if !strings.Contains(opt.Address, "://") {
		opt.Address = "http://" + opt.Address
	}
	return &Consul{opt, catalog.Client{
		Address: opt.Address, Header: "X-Consul-Token", Token: opt.Token,
		IndexHeader: "X-Consul-Index", Wait: opt.Wait,
	}}
}

// Name implements [source.Source].
func (*Consul) Name() string { return "consul" }

// entry is an instance with its checks.
type entry struct {
	Node struct{ Address, Datacenter string }
	// Service has an address of its own, or the node's.
	Service struct {
		ID, Service, Address string
		Tags                 []string
		Port                 uint32
		Weights              struct{ Passing uint32 }
		CreateIndex          uint64
	}
	Checks []struct{ CheckID, Status string }
}

// passes says whether an instance takes requests, and drains whether somebody has put it, or its node, into
// maintenance: it finishes what it has.
func (e entry) passes() (takes, drains bool) {
	takes = true
	for _, c := range e.Checks {
		switch {
		case c.CheckID == "_node_maintenance" || strings.HasPrefix(c.CheckID, "_service_maintenance"):
			drains = true
		case c.Status == "critical":
			takes = false
		}
	}
	return takes, drains
}

// answer is what a service's own question has brought.
type answer struct {
	name    string
	entries []entry
	err     error
}

// Run implements [source.Source].
func (c *Consul) Run(ctx context.Context, found func([]source.Workload), health func(error)) error {
	source.Retry(ctx, 5*time.Second, func(ctx context.Context) error {
		return c.follow(ctx, found, health)
	}, func(err error) {
		health(err)
		c.opt.Log.Warn("Consul cannot be followed; what it had is kept", zap.String("consul", c.opt.Address), zap.Error(err))
	})
	return nil
}

// follow asks for the list of services, and for each that its tags enable with a question of its own, all of which are
// held back until there is something else. It ends with the first failure.
func (c *Consul) follow(ctx context.Context, found func([]source.Workload), health func(error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lists, answers := make(chan map[string][]string), make(chan answer)
	failed := make(chan error, 1)
	go func() { failed <- c.list(ctx, lists) }()
	watched := map[string]context.CancelFunc{}
	known := map[string][]entry{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case list := <-lists:
			for name, tags := range list {
				if watched[name] == nil && labels.ReadBasics(catalog.Labels(tags)).Enabled {
					own, stop := context.WithCancel(ctx)
					watched[name] = stop
					go c.watch(own, name, answers)
				}
			}
			for name, stop := range watched {
				if tags, there := list[name]; !there || !labels.ReadBasics(catalog.Labels(tags)).Enabled {
					stop()
					delete(watched, name)
					delete(known, name)
				}
			}
		case a := <-answers:
			if a.err != nil {
				return a.err
			}
			if watched[a.name] != nil {
				known[a.name] = a.entries
			}
		}
		if len(known) < len(watched) {
			continue // part of what there is would take away the rest
		}
		health(nil)
		out := []source.Workload{}
		for _, name := range slices.Sorted(maps.Keys(known)) {
			out = append(out, workload(name, known[name]))
		}
		found(out)
	}
}

// list hands over the services with all tags of their instances, at first and after each change.
func (c *Consul) list(ctx context.Context, to chan<- map[string][]string) error {
	for index := uint64(0); ; {
		var all map[string][]string
		next, err := c.api.Get(ctx, "/v1/catalog/services", nil, index, &all)
		if err != nil {
			return err
		}
		index = next
		select {
		case to <- all:
		case <-ctx.Done():
			return nil
		}
	}
}

// watch hands over a service's instances, at first and after each change.
func (c *Consul) watch(ctx context.Context, name string, to chan<- answer) {
	for index := uint64(0); ctx.Err() == nil; {
		a := answer{name: name}
		index, a.err = c.api.Get(ctx, "/v1/health/service/"+url.PathEscape(name), nil, index, &a.entries)
		select {
		case to <- a:
		case <-ctx.Done():
		}
		if a.err != nil {
			return
		}
	}
}

func workload(name string, all []entry) source.Workload {
	w := source.Workload{Key: name, Name: name}
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(cmp.Compare(b.Service.CreateIndex, a.Service.CreateIndex), cmp.Compare(a.Service.ID, b.Service.ID))
	})
	for _, e := range all {
		l := catalog.Labels(e.Service.Tags)
		s := labels.ReadBasics(l)
		if !s.Enabled {
			continue
		}
		if w.Labels == nil { // the newest says what is wanted
			w.Labels = l
		}
		takes, drains := e.passes()
		if !takes {
			continue
		}
		x := source.Endpoint{
			Host: cmp.Or(e.Service.Address, e.Node.Address), Port: e.Service.Port,
			Weight: cmp.Or(s.Weight, e.Service.Weights.Passing),
			Zone:   cmp.Or(s.Zone, e.Node.Datacenter), Cloud: s.Cloud, Region: s.Region, State: source.Ready,
		}
		if drains {
			x.State = source.Draining
		}
		if x.Host == "" || x.Port == 0 {
			w.Problems = append(w.Problems, "instance "+e.Service.ID+": it has no address or port")
			continue
		}
		w.Endpoints = append(w.Endpoints, x)
	}
	if w.Labels == nil {
		w.Labels = map[string]string{labels.Prefix + "enable": "true"}
	}
	slices.SortFunc(w.Endpoints, func(a, b source.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
	})
	return w
}
