// Package fleet is the xDS server's view of the whole configuration: it takes the updates that the
// event stream's replay delivers, keeps one translator and one set of Envoys a gateway, and says what
// they have applied.
package fleet

import (
	"cmp"
	"context"
	"crypto/x509"
	"maps"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/zap"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/pkg/tracing"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"
	"github.com/marchproxy/marchproxy/services/xds/internal/resolver"
	"github.com/marchproxy/marchproxy/services/xds/internal/seats"
)

// Options tune a fleet.
type Options struct {
	// ID names this server in its status.
	ID string
	// Open lets any Envoy in where the gateway has no keys, which is closed otherwise. For development.
	Open bool
	// Unseal opens sealed private keys.
	Unseal func(r resource.Ref, field, sealed string) (string, error)
	// Module is the file of one of our filters, where the Envoys are.
	Module func(filter string) string
	// ADS tunes the gateways; its OnChange is set here.
	ADS ads.Options
	// Resolver tunes the resolver; its Troubled is set here.
	Resolver resolver.Options
	// Reordered is called when [Fleet.Latencies] give another order, before it is served.
	Reordered func()
	Log       *zap.Logger
}

// member is one gateway.
type member struct {
	builder  *translate.Builder
	gateway  *ads.Gateway
	keys     map[string]bool
	problems map[resource.Ref]config.Problem
}

// Fleet is safe for concurrent use.
type Fleet struct {
	opt      Options
	seats    *seats.Seats
	resolver *resolver.Resolver
	// changed is signalled when the status may be another, quarantined when [Fleet.Quarantine] may be, and troubled when
	// [Fleet.Names] may be.
	changed, quarantined, troubled chan struct{}
	started                        time.Time

	// build is held by who changes the configuration or builds something of it, which may take seconds. Nobody else
	// uses the members' builders, or writes what the other locks guard: who holds it reads that without them. Where
	// several are held they are taken in this order.
	build sync.Mutex
	// mu is held for moments only: neither an Envoy that connects nor a report waits for a build.
	mu      sync.RWMutex
	commit  commit // of what has been built
	ready   bool
	members map[string]*member
	// data is held for as long as it takes to enter what has changed.
	data  sync.RWMutex
	state *config.State
	// hosts are the objects whose endpoints have a DNS name, each with its service, by name.
	hosts map[string]map[resource.Ref]string
	// reporter is told when it is closed.
	reporter *Reporter
	// latencies are what Envoys measure; what is in force of them is guarded by build.
	latencies *latencies
}

// commit is a commit with the digest of its state, which every report says.
type commit struct {
	resource.Commit
	digest string
}

// New returns a fleet without configuration.
func New(opt Options) *Fleet {
	f := &Fleet{
		opt: opt, started: time.Now(), changed: make(chan struct{}, 1), quarantined: make(chan struct{}, 1),
		troubled: make(chan struct{}, 1),
		state:    config.New(), members: map[string]*member{}, hosts: map[string]map[resource.Ref]string{},
		seats: seats.New(opt.ID), latencies: newLatencies(),
	}
	f.opt.ADS.Log, f.opt.ADS.Seats = opt.Log, f.seats
	f.opt.ADS.OnChange = f.signal
	f.opt.Resolver.Log = opt.Log
	f.opt.Resolver.Troubled = func() {
		f.signal()
		raise(f.troubled)
	}
	f.resolver = resolver.New(f.opt.Resolver, f.resolved)
	return f
}

// Signal says that there may be something new to report.
func (f *Fleet) Signal() { f.signal() }

func (f *Fleet) signal() {
	raise(f.changed)
	raise(f.quarantined)
}

func raise(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Changed is signalled when there may be something new to report.
func (f *Fleet) Changed() <-chan struct{} { return f.changed }

// QuarantineChanged is signalled when [Fleet.Quarantine] may have another answer.
func (f *Fleet) QuarantineChanged() <-chan struct{} { return f.quarantined }

// Run follows DNS names until the context ends.
func (f *Fleet) Run(ctx context.Context) error { return f.resolver.Run(ctx) }

// Close ends every Envoy's stream; the Envoys keep what they have. The status stays what it was before: the
// next process of this server learns from its last report how senior the Envoys are.
func (f *Fleet) Close() {
	f.build.Lock()
	defer f.build.Unlock()
	f.mu.RLock()
	r := f.reporter
	f.mu.RUnlock()
	if r != nil {
		r.close(time.Now())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		m.gateway.Close()
	}
}

// Apply takes an update of the event stream. Until it is built and handed to the gateways, readers see the commit
// before: an Envoy that connects meanwhile is served that, and what is new as soon as it is there.
func (f *Fleet) Apply(u resource.Update) {
	f.build.Lock()
	defer f.build.Unlock()
	f.data.Lock()
	changes, _ := f.state.Apply(u.Changed)
	f.follow(changes)
	f.data.Unlock()
	fresh := f.manage(changes)
	f.review(changes)
	f.configureSeats(changes)
	f.latencies.forget(changes)
	problems := map[*member][]config.Problem{}
	for _, m := range f.members {
		began := tracing.Now()
		var delta translate.Delta
		delta, problems[m] = m.builder.Update(f.state, changes, m.builder.Policies())
		f.serve(m, u.Commit, began, delta)
	}
	for _, m := range fresh {
		began := tracing.Now()
		var delta translate.Delta
		delta, problems[m] = m.builder.Rebuild(f.state)
		f.serve(m, u.Commit, began, delta)
	}
	built := commit{u.Commit, resource.Digest(u.Commit.State)}
	f.mu.Lock()
	f.commit, f.ready = built, true
	maps.Copy(f.members, fresh)
	for m, p := range problems {
		m.note(changes, p)
	}
	f.mu.Unlock()
	f.signal()
}

// serve hands what was built of a commit, since a time, to a gateway.
func (f *Fleet) serve(m *member, c resource.Commit, began time.Time, delta translate.Delta) {
	if tracing.On() {
		whole := tracing.Parent(c.Traceparent)
		tracing.Span(whole, "build", began, time.Now(), nil, attribute.String("marchproxy.gateway", m.gateway.Name()),
			attribute.Int64("marchproxy.revision", c.Revision))
		m.gateway.Trace(c.Revision, whole)
	}
	m.gateway.Apply(c.Revision, delta)
	if len(m.builder.Policies().Leaving) > 0 {
		time.AfterFunc(f.retireAfter(), func() { f.retire(m) })
	}
}

// retireAfter is how long a policy outlives its last route, and a cluster its own.
func (f *Fleet) retireAfter() time.Duration { return cmp.Or(f.opt.ADS.Linger, ads.DefaultLinger) }

// retire takes the policies that no route names any more from the Envoys. Those stay that routes name which are served
// in place of rejected ones: the next update asks again.
func (f *Fleet) retire(m *member) {
	f.build.Lock()
	defer f.build.Unlock()
	policies := m.builder.Policies()
	if len(policies.Leaving) == 0 {
		return
	}
	stay := m.gateway.Policies()
	policies.Leaving = maps.Clone(policies.Leaving)
	maps.DeleteFunc(policies.Leaving, func(name string, _ *configv1.AuthPolicy) bool { return !stay[name] })
	f.buildPolicies(m, policies)
	f.signal()
}

// buildPolicies builds a gateway's ECDS filter configs with other policies that are leaving.
func (f *Fleet) buildPolicies(m *member, policies translate.Policies) {
	delta, _ := m.builder.Update(f.state, nil, policies)
	m.gateway.Apply(f.commit.Revision, delta)
}

// manage ends gateways, reads the keys of those that are there, and begins new ones, which nobody finds before they are
// built: an Envoy would be served their beginnings.
func (f *Fleet) manage(changes []config.Change) (fresh map[string]*member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh = map[string]*member{}
	for _, c := range changes {
		if c.Ref().Kind != resource.KindGateway {
			continue
		}
		name := c.Ref().Name
		m := f.members[name]
		if c.After == nil {
			if m != nil {
				m.gateway.Close()
				delete(f.members, name)
			}
			continue
		}
		if m == nil {
			m = &member{
				builder: translate.NewBuilder(name, translate.Options{
					Resolve: f.resolver.Resolve, Refused: f.refusedAddr, Open: f.opt.Unseal, Module: f.opt.Module,
					Measured: f.latencies.of,
				}),
				gateway:  ads.NewGateway(name, f.opt.ADS),
				problems: map[resource.Ref]config.Problem{},
			}
			fresh[name] = m
		}
		m.keys = map[string]bool{}
		for _, k := range c.After.Message().(*configv1.Gateway).GetApiKeys() {
			m.keys[k.GetSha256()] = true
		}
	}
	return fresh
}

// configureSeats tells the seats of the gateways' licenses, where changes concern one. It goes before the new variants
// of a license's filter config are sent: an Envoy over the limit would serve for a while otherwise.
func (f *Fleet) configureSeats(changes []config.Change) {
	if !slices.ContainsFunc(changes, func(c config.Change) bool {
		return c.Ref().Kind == resource.KindGateway || c.Ref().Kind == resource.KindLicense
	}) {
		return
	}
	license, limits := map[string]string{}, map[string]int{}
	for _, name := range f.state.Names(resource.KindGateway) {
		g := f.state.Get(resource.Ref{Kind: resource.KindGateway, Name: name}).Message().(*configv1.Gateway)
		if g.GetLicense() == "" {
			continue
		}
		license[name] = g.GetLicense()
		if l := f.state.Get(resource.Ref{Kind: resource.KindLicense, Name: license[name]}); l != nil {
			if n := l.Message().(*configv1.License).GetMaxProxies(); n > 0 {
				limits[license[name]] = int(n)
			}
		}
	}
	f.seats.Configure(license, limits)
}

// note keeps what could not be translated: the api checks it before it commits, so that this is a
// server older than the api, or a defect.
func (m *member) note(changes []config.Change, problems []config.Problem) {
	for _, c := range changes {
		delete(m.problems, c.Ref())
	}
	for _, p := range problems {
		m.problems[p.Object] = p
	}
}

// Gateway finds a gateway.
func (f *Fleet) Gateway(name string) (*ads.Gateway, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if m := f.members[name]; m != nil {
		return m.gateway, f.ready
	}
	return nil, f.ready
}

// Admit says whether a key opens a gateway.
func (f *Fleet) Admit(gateway, sum string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	m := f.members[gateway]
	switch {
	case m == nil:
		return false
	case len(m.keys) > 0:
		return m.keys[sum]
	default:
		return f.opt.Open
	}
}

// review ends the streams of gateways whose keys may be others: those of keys that are not there any more.
func (f *Fleet) review(changes []config.Change) {
	for _, c := range changes {
		if c.Ref().Kind != resource.KindGateway || c.Before == nil || c.After == nil {
			continue
		}
		if g, _ := f.Gateway(c.Ref().Name); g != nil {
			g.Review(func(sum string) bool { return f.Admit(c.Ref().Name, sum) })
		}
	}
}

// ReviewPeers ends the connections whose certificates are not good any more.
func (f *Fleet) ReviewPeers(check func(chain []*x509.Certificate) error) {
	_, gateways := f.view()
	for _, g := range gateways {
		g.ReviewPeers(check)
	}
}

// Known says whether a key opens some gateway.
func (f *Fleet) Known(sum string) bool {
	f.mu.RLock()
	names := slices.Collect(maps.Keys(f.members))
	f.mu.RUnlock()
	return slices.ContainsFunc(names, func(gateway string) bool { return f.Admit(gateway, sum) })
}

// Head is the last commit applied; not ok before the first.
func (f *Fleet) Head() (resource.Commit, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.commit.Commit, f.ready
}

// Objects lists the configuration, in no order.
func (f *Fleet) Objects() []*resource.Object {
	f.data.RLock()
	defer f.data.RUnlock()
	return slices.Collect(f.state.All)
}

// Object finds one object; nil where there is none.
func (f *Fleet) Object(r resource.Ref) *resource.Object {
	f.data.RLock()
	defer f.data.RUnlock()
	return f.state.Get(r)
}

// Live is the revision that every connected Envoy serves.
func (f *Fleet) Live() int64 {
	c, gateways := f.view()
	live := c.Revision
	for _, g := range gateways {
		live = min(live, g.Live())
	}
	return live
}

// Proxies counts the connected Envoys.
func (f *Fleet) Proxies() int {
	n := 0
	_, gateways := f.view()
	for _, g := range gateways {
		n += g.Count()
	}
	return n
}

// Unresolved lists the names of services' endpoints that have no address yet, in order; the list is not to be changed.
func (f *Fleet) Unresolved() []string { return f.resolver.Unresolved() }

// Rejected lists what the Envoys reject, and what could not be translated.
func (f *Fleet) Rejected() (out []status.RejectedResource) {
	_, gateways := f.view()
	for _, name := range slices.Sorted(maps.Keys(gateways)) {
		out = append(out, f.rejectedBy(name)...)
	}
	return out
}

// rejectedBy is what the Envoys of one gateway reject, and what of it could not be translated.
func (f *Fleet) rejectedBy(name string) (out []status.RejectedResource) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	m := f.members[name]
	if m == nil {
		return nil
	}
	for _, r := range m.gateway.Rejections() {
		out = append(out, f.rejected(name, r))
	}
	for _, r := range slices.SortedFunc(maps.Keys(m.problems), resource.Ref.Compare) {
		p := m.problems[r]
		out = append(out, status.RejectedResource{
			Gateway: name, Reason: "not translated: " + p.Path + ": " + p.Message, Objects: []status.ObjectRef{f.objectRef(r)},
		})
	}
	return out
}

func (f *Fleet) rejected(gateway string, r ads.Rejection) status.RejectedResource {
	out := status.RejectedResource{
		Gateway: gateway, Resource: ads.ShortType(r.Resource.Type) + " " + r.Resource.Name,
		Reason: r.Reason,
	}
	if len(r.Closed) > 0 {
		out.Reason += "; until it is corrected, every request under this policy is refused"
		for _, name := range r.Closed {
			out.Objects = append(out.Objects, f.objectRef(resource.Ref{Kind: resource.KindAuthPolicy, Name: name}))
		}
		return out
	}
	for _, o := range r.Resource.Objects {
		if ref := f.objectRef(o); ref.Revision > r.GoodUntil {
			out.Objects = append(out.Objects, ref)
		}
	}
	if len(out.Objects) == 0 && len(r.Resource.Objects) > 0 { // something was taken away
		out.Objects = append(out.Objects, f.objectRef(r.Resource.Objects[0]))
	}
	return out
}

func (f *Fleet) objectRef(r resource.Ref) status.ObjectRef {
	ref := status.ObjectRef{Kind: r.Kind, Name: r.Name}
	if o := f.Object(r); o != nil {
		ref.Revision = o.Revision
	}
	return ref
}

// Summary is the count and hash of the state, by kind.
func (f *Fleet) Summary() map[string]resource.KindState {
	f.data.RLock()
	defer f.data.RUnlock()
	return f.state.Summary()
}
