// Package srv finds endpoints by DNS: SRV records (RFC 2782), whose targets are looked up as well. The records say
// nothing of routes; a Service of the name is made, to which routes are written by hand.
package srv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/resource"

	"github.com/marchproxy/marchproxy/pkg/labels"
	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// Name is a Service, and the name whose SRV records are its endpoints.
type Name struct{ Service, Record string }

// Parse reads SERVICE=NAME, several with commas between them.
func Parse(text string) (out []Name, err error) {
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		service, record, ok := strings.Cut(part, "=")
		if !ok || record == "" {
			return nil, fmt.Errorf("has %q; write SERVICE=NAME, such as web=_http._tcp.web.example.com", part)
		}
		if msg := resource.CheckName(service); msg != "" {
			return nil, fmt.Errorf("has the service %q, which %s", service, msg)
		}
		out = append(out, Name{service, record})
	}
	return out, nil
}

// Options are what is looked up.
type Options struct {
	Names []Name
	// Server is host:port of a DNS server; "" for the system's.
	Server string
	// Every is how often, 5 s where 0, whatever the records' time to live; Patience how long an answer may take, 4 s.
	Every, Patience time.Duration
	Log             *zap.Logger
}

// SRV is a [source.Source].
type SRV struct {
	opt      Options
	resolver *net.Resolver
	// last are the endpoints of each name that were found last: a name that fails keeps them.
	last map[Name][]source.Endpoint
}

var _ source.Source = (*SRV)(nil)

// New makes one; nobody is asked yet.
func New(opt Options) *SRV {
	opt.Every, opt.Patience = cmp.Or(opt.Every, 5*time.Second), cmp.Or(opt.Patience, 4*time.Second)
	s := &SRV{opt: opt, resolver: net.DefaultResolver, last: map[Name][]source.Endpoint{}}
	if opt.Server != "" {
		s.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, opt.Server)
		}}
	}
	return s
}

// Name implements [source.Source].
func (*SRV) Name() string { return "dns" }

// Run implements [source.Source].
func (s *SRV) Run(ctx context.Context, found func([]source.Workload), health func(error)) error {
	tick := time.NewTicker(s.opt.Every)
	defer tick.Stop()
	for {
		all, err := s.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		health(err)
		if err != nil {
			s.opt.Log.Warn("a name cannot be looked up; what it had is kept", zap.Error(err))
		}
		if len(all) > 0 {
			found(all)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look looks all names up. Where one fails that never was there, it is left out, and so are all: what an earlier life
// of this program found stays.
func (s *SRV) look(ctx context.Context) (out []source.Workload, failed error) {
	known := true
	for _, n := range s.opt.Names {
		some, err := s.one(ctx, n.Record)
		if err == nil {
			s.last[n] = some
		} else {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", n.Record, err))
		}
		all, was := s.last[n]
		known = known && was
		out = append(out, source.Workload{Key: n.Service, Name: n.Service, Endpoints: all, Labels: map[string]string{
			labels.Prefix + "enable": "true", labels.Prefix + "name": n.Service,
		}})
	}
	if !known {
		return nil, failed
	}
	return out, failed
}

// one are the endpoints of a name: of the records with the least priority number, as clients are to use them.
func (s *SRV) one(ctx context.Context, record string) ([]source.Endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opt.Patience)
	defer cancel()
	_, records, err := s.resolver.LookupSRV(ctx, "", "", record)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 || len(records) == 1 && records[0].Target == "." {
		return nil, errors.New("there is no such service")
	}
	out := []source.Endpoint{}
	for _, r := range records {
		if r.Priority != records[0].Priority { // they are in order
			continue
		}
		addrs, err := s.resolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(r.Target, "."))
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			out = append(out, source.Endpoint{
				Host: a.Unmap().String(), Port: uint32(r.Port),
				Weight: min(uint32(r.Weight), 10000), State: source.Ready,
			})
		}
	}
	slices.SortFunc(out, func(a, b source.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
	})
	return slices.Compact(out), nil
}
