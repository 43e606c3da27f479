// Package nomad finds services of Nomad's own catalog (provider = "nomad"). Their tags are the labels.
//
// A registration says nothing of health: Nomad takes one out when its allocation ends or its checks ask for a restart.
// While an allocation stops, its registration goes before its task is told to end (shutdown_delay), which is what
// drains it.
package nomad

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/url"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/labels"
	"github.com/marchproxy/marchproxy/services/discover/internal/catalog"
	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// Options are where Nomad is.
type Options struct {
	// Address is a URL, Token that of an ACL policy with read-job in Namespace; "*" for all.
	Address, Token, Namespace string
	// Wait is how long a question is held back at most; everything is read again then.
	Wait time.Duration
	Log  *zap.Logger
}

// Nomad is a [source.Source].
type Nomad struct {
	opt Options
	api catalog.Client
}

var _ source.Source = (*Nomad)(nil)

// New makes one; nobody is asked yet.
func New(opt Options) *Nomad {
	return &Nomad{opt, catalog.Client{
		Address: opt.Address, Header: "X-Nomad-Token", Token: opt.Token,
		IndexHeader: "X-Nomad-Index", Wait: opt.Wait,
	}}
}

// Name implements [source.Source].
func (*Nomad) Name() string { return "nomad" }

// listed is a namespace of the list of services.
type listed struct {
	Namespace string
	Services  []struct {
		ServiceName string
		Tags        []string
	}
}

// registration is one instance.
type registration struct {
	ID, ServiceName, Namespace, Datacenter, JobID, AllocID string
	Tags                                                   []string
	Address                                                string
	Port                                                   uint32
	CreateIndex                                            uint64
}

// Run implements [source.Source].
func (n *Nomad) Run(ctx context.Context, found func([]source.Workload), health func(error)) error {
	var index uint64
	source.Retry(ctx, 5*time.Second, func(ctx context.Context) error {
		var list []listed
		next, err := n.api.Get(ctx, "/v1/services", url.Values{"namespace": {n.opt.Namespace}}, index, &list)
		if err != nil {
			return err
		}
		all, err := n.read(ctx, list)
		if err != nil {
			return err
		}
		health(nil)
		found(all)
		index = next
		return nil
	}, func(err error) {
		index = 0
		health(err)
		n.opt.Log.Warn("Nomad cannot be followed; what it had is kept", zap.String("nomad", n.opt.Address), zap.Error(err))
	})
	return nil
}

// read reads the registrations of the services whose tags ask for it, a few at a time. All of them, or an error: part
// of a list would take away what is there.
func (n *Nomad) read(ctx context.Context, list []listed) ([]source.Workload, error) {
	var mu sync.Mutex
	var failed error
	var out []source.Workload
	var asking sync.WaitGroup
	turns := make(chan struct{}, 8)
	for _, ns := range list {
		for _, s := range ns.Services {
			if !labels.ReadBasics(catalog.Labels(s.Tags)).Enabled {
				continue
			}
			turns <- struct{}{}
			asking.Go(func() {
				defer func() { <-turns }()
				var all []registration
				_, err := n.api.Get(ctx, "/v1/service/"+url.PathEscape(s.ServiceName), url.Values{"namespace": {ns.Namespace}},
					0, &all)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed = errors.Join(failed, err)
					return
				}
				out = append(out, workload(ns.Namespace, s.ServiceName, s.Tags, all))
			})
		}
	}
	asking.Wait()
	slices.SortFunc(out, func(a, b source.Workload) int { return cmp.Compare(a.Key, b.Key) })
	return out, failed
}

func workload(namespace, name string, tags []string, all []registration) source.Workload {
	w := source.Workload{Key: namespace + "/" + name, Name: name, Labels: catalog.Labels(tags)}
	if namespace != "default" {
		w.Name = namespace + "-" + name
	}
	// The newest says what is wanted: a deployment has both versions there for a while.
	slices.SortFunc(all, func(a, b registration) int {
		return cmp.Or(cmp.Compare(b.CreateIndex, a.CreateIndex), cmp.Compare(a.ID, b.ID))
	})
	if len(all) > 0 {
		w.Labels = catalog.Labels(all[0].Tags)
	}
	at := map[source.Endpoint]bool{}
	for _, r := range all {
		s := labels.ReadBasics(catalog.Labels(r.Tags))
		e := source.Endpoint{
			Host: r.Address, Port: r.Port, Weight: s.Weight, Zone: cmp.Or(s.Zone, r.Datacenter),
			Cloud: s.Cloud, Region: s.Region, State: source.Ready,
		}
		if r.Address == "" || r.Port == 0 {
			w.Problems = append(w.Problems, "allocation "+r.AllocID+": its registration has no address or port")
			continue
		}
		at[e] = true
	}
	w.Endpoints = slices.SortedFunc(maps.Keys(at), func(a, b source.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
	})
	return w
}
