package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"
)

// Reporter is what this server reports: pages that say who is connected and what is rejected, of which a change touches
// those that it concerns, and a report with what changes all the time, which is the same size whatever there is.
type Reporter struct {
	f   *Fleet
	opt ReportOptions

	mu     sync.Mutex
	pages  *status.Pages
	absent status.Absences
	now    status.XdsStatus // as it is, and as it was said last
	said   status.XdsStatus
	number int64
	last   *closing
	// gateways are the reported gateways, by name.
	gateways map[string]*reported
	names    []string
	looked   time.Time // at who lags
	lagging  bool      // somebody lacks something
	slow     map[uint64]ads.Laggard
}

// closing is the last report, when the fleet has been closed, with the pages that go with it until they are said.
type closing struct {
	pages  []status.Message
	report status.XdsStatus
	err    error
}

// reported is a gateway as it is reported: its Envoys by number, and the keys of what they reject.
type reported struct {
	gateway  *ads.Gateway
	proxies  map[uint64]status.ProxyStatus
	rejected map[string]struct{}
}

// ReportOptions are what a report has from elsewhere.
type ReportOptions struct {
	// Unsaved is why the last good state cannot be written down; "" where it can, or where it is not given.
	Unsaved func() string
	// Behind is what the server is busy with that is behind the event stream; nil where it is not, or where it is not
	// given.
	Behind func() *status.Behind
	// Document is the last document at POST /v1/config; nil where there is none, or where it is not given.
	Document func() *status.Document
}

// Reporter returns what the fleet has to report; last is what was reported before a restart, nil where nobody knows.
func (f *Fleet) Reporter(last *status.View, opt ReportOptions) *Reporter {
	if opt.Unsaved == nil {
		opt.Unsaved = func() string { return "" }
	}
	if opt.Behind == nil {
		opt.Behind = func() *status.Behind { return nil }
	}
	if opt.Document == nil {
		opt.Document = func() *status.Document { return nil }
	}
	r := &Reporter{
		f: f, opt: opt, pages: status.NewPages(f.opt.ID, resource.Time(f.started)), gateways: map[string]*reported{},
		slow: map[uint64]ads.Laggard{},
	}
	if last != nil {
		r.absent.Remember(last, time.Now())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look(time.Now())
	f.mu.Lock()
	f.reporter = r
	f.mu.Unlock()
	return r
}

// Look brings everything up to date.
func (r *Reporter) Look(now time.Time) (status.News, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := r.look(now)
	if r.lagging {
		return news, status.Noticed
	}
	return news, 0
}

func (r *Reporter) look(now time.Time) status.News {
	if r.last != nil {
		return status.Nothing
	}
	commit, gateways := r.f.view()
	s := status.XdsStatus{
		ID: r.f.opt.ID, Epoch: commit.Epoch, Revision: commit.Revision, State: commit.digest,
		StartedAt: resource.Time(r.f.started),
		Live:      map[string]int64{}, Connected: map[string]int32{}, Unsaved: r.opt.Unsaved(), Behind: r.opt.Behind(),
		Document: r.opt.Document(),
		Lagging:  r.now.Lagging, LaggingProxies: r.now.LaggingProxies, Rest: r.now.Rest,
	}
	rejected, behind := false, false
	for name, g := range gateways {
		// The live revision is read before the rejections: a rejection lets a revision be live without the resource, so in
		// the other order a report could call a revision live without the rejection that made it so.
		head := g.Revision()
		s.Live[name] = g.Live()
		behind = behind || s.Live[name] < head
		r.proxies(name, g, now)
		if n := g.Count(); n > 0 {
			s.Connected[name] = int32(n)
		}
		rejected = r.rejections(name) || rejected
	}
	for name, p := range r.gateways {
		if gateways[name] != p.gateway {
			r.drop(name, now)
			rejected = true
		}
	}
	named := r.unresolved()
	r.absent.Write(r.pages, now)
	if r.lagging || behind {
		r.lag(&s, gateways, now, behind)
	}
	r.now = s
	switch {
	case s.Epoch != r.said.Epoch,
		s.Revision == r.said.Revision && s.State != r.said.State,
		rejected,
		named,
		!maps.Equal(s.Live, r.said.Live),
		!maps.Equal(s.Connected, r.said.Connected):
		return status.Urgent
	case s.Revision != r.said.Revision, r.pages.Changed(), s.Unsaved != r.said.Unsaved, s.Behind != r.said.Behind,
		s.Document != r.said.Document,
		!slices.Equal(s.Lagging, r.said.Lagging), !maps.Equal(s.Rest, r.said.Rest):
		return status.Some
	default:
		return status.Nothing
	}
}

// view is the fleet's commit and its gateways, by name.
func (f *Fleet) view() (commit, map[string]*ads.Gateway) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	out := make(map[string]*ads.Gateway, len(f.members))
	for name, m := range f.members {
		out[name] = m.gateway
	}
	return f.commit, out
}

// proxies takes the Envoys that have come, gone or another seat.
func (r *Reporter) proxies(name string, g *ads.Gateway, now time.Time) {
	p := r.gateways[name]
	if p != nil && p.gateway != g {
		r.drop(name, now)
		p = nil
	}
	if p == nil {
		p = &reported{g, map[uint64]status.ProxyStatus{}, map[string]struct{}{}}
		r.gateways[name] = p
	}
	changed, gone := g.ProxyChanges()
	for _, x := range changed {
		s := status.ProxyStatus{
			ID: x.ID, Gateway: name, Address: x.Address, Version: x.Version, ConnectedAt: resource.Time(x.ConnectedAt),
			OverLimit: x.OverLimit, Since: resource.Time(x.Since), DrainTimeSeconds: int32(x.Drain / time.Second),
		}
		if _, known := p.proxies[x.Number]; !known {
			r.absent.Came(s)
		}
		p.proxies[x.Number] = s
		r.pages.Put(proxyKey(x.Number), s)
	}
	for _, number := range gone {
		if s, known := p.proxies[number]; known {
			r.remember(s, now)
			delete(p.proxies, number)
			r.pages.Delete(proxyKey(number))
		}
	}
}

func proxyKey(number uint64) string { return "proxy\x00" + strconv.FormatUint(number, 10) }

// remember keeps an Envoy that has gone, with what it served last.
func (r *Reporter) remember(s status.ProxyStatus, now time.Time) {
	s.AppliedRevision = r.now.Applied(s)
	r.absent.Went(s, now)
}

// drop takes a gateway out that is not served any more.
func (r *Reporter) drop(name string, now time.Time) {
	p := r.gateways[name]
	for number, s := range p.proxies {
		r.remember(s, now)
		r.pages.Delete(proxyKey(number))
	}
	for key := range p.rejected {
		r.pages.Delete(key)
	}
	delete(r.gateways, name)
}

// rejections takes what a gateway's Envoys reject, and says whether that is something else than before.
func (r *Reporter) rejections(name string) (changed bool) {
	p := r.gateways[name]
	list := r.f.rejectedBy(name)
	if len(list)+len(p.rejected) == 0 {
		return false
	}
	before := p.rejected
	p.rejected = make(map[string]struct{}, len(list))
	for _, x := range list {
		// A rejection that concerns many objects is reported as several items, so that each is small.
		for part := 0; part == 0 || len(x.Objects) > 0; part++ {
			item := x
			item.Objects = x.Objects[:min(len(x.Objects), maxObjects)]
			x.Objects = x.Objects[len(item.Objects):]
			key := fmt.Sprintf("refused\x00%s\x00%s\x00%d", name, x.Resource, part)
			if x.Resource == "" { // what could not be translated: its object is its name
				key = fmt.Sprintf("refused\x00%s\x00\x00%v", name, item.Objects)
			}
			changed = r.pages.Put(key, item) || changed
			p.rejected[key] = struct{}{}
			delete(before, key)
		}
	}
	for key := range before {
		r.pages.Delete(key)
		changed = true
	}
	return changed
}

// maxObjects is how many objects one item of a page names.
const maxObjects = 100

// unresolved takes the names without an address, and says whether they are others than before.
func (r *Reporter) unresolved() bool {
	now := r.f.resolver.Unresolved()
	if len(now) == len(r.names) && (len(now) == 0 || &now[0] == &r.names[0]) {
		return false // the resolver's list is made anew where it changes
	}
	before := map[string]struct{}{}
	for _, name := range r.names {
		before[name] = struct{}{}
	}
	changed := false
	for _, name := range now {
		changed = r.pages.Put("name\x00"+name, name) || changed
		delete(before, name)
	}
	for name := range before {
		r.pages.Delete("name\x00" + name)
	}
	r.names = now
	return changed || len(before) > 0
}

// lag looks at who lacks something, now and then.
func (r *Reporter) lag(s *status.XdsStatus, gateways map[string]*ads.Gateway, now time.Time, behind bool) {
	if behind && now.Sub(r.looked) < status.Noticed {
		r.lagging = true
		return
	}
	r.looked, r.lagging = now, false
	s.Lagging, s.LaggingProxies, s.Rest = nil, 0, nil
	slow := map[uint64]ads.Laggard{}
	for _, name := range slices.Sorted(maps.Keys(gateways)) {
		l := gateways[name].Lag(now, status.Noticed, status.MaxLagging)
		r.lagging = r.lagging || l.Any
		s.LaggingProxies += int32(l.Count)
		for _, x := range l.Worst {
			e := status.LaggingEnvoy{
				ID: x.ID, Gateway: name, Address: x.Address, ConnectedAt: resource.Time(x.ConnectedAt), AppliedRevision: x.Applied,
				Since: resource.Time(x.Behind), Sent: x.Sent,
			}
			if x.Lacks.Name != "" {
				e.Resource = ads.ShortType(x.Lacks.Type) + " " + x.Lacks.Name
			}
			s.Lagging = append(s.Lagging, e)
			if now.Sub(x.Behind) > status.Long {
				slow[x.Number] = x
			}
		}
		if len(l.Worst) > 0 && l.Rest != s.Live[name] {
			if s.Rest == nil {
				s.Rest = map[string]int64{}
			}
			s.Rest[name] = l.Rest
		}
	}
	slices.SortStableFunc(s.Lagging, func(a, b status.LaggingEnvoy) int { return cmp.Compare(a.Since, b.Since) })
	for _, x := range s.Lagging[min(len(s.Lagging), status.MaxLagging):] {
		if rest, differs := s.Rest[x.Gateway]; differs {
			s.Rest[x.Gateway] = min(rest, x.AppliedRevision)
		}
	}
	s.Lagging = s.Lagging[:min(len(s.Lagging), status.MaxLagging)]
	r.logLagging(slow, now)
}

// logLagging logs who has begun, or ceased, to lag for long.
func (r *Reporter) logLagging(slow map[uint64]ads.Laggard, now time.Time) {
	for number, x := range slow {
		if _, known := r.slow[number]; !known {
			r.f.opt.Log.Warn("an envoy lags", zap.String("envoy", x.ID), zap.String("address", x.Address), zap.Int64("serves",
				x.Applied),
				zap.String("lacks", ads.ShortType(x.Lacks.Type)+" "+x.Lacks.Name), zap.Bool("sent", x.Sent),
				zap.Duration("for", now.Sub(x.Behind)))
		}
	}
	for number, x := range r.slow {
		if _, still := slow[number]; !still {
			r.f.opt.Log.Info("an envoy lags no more, or has gone", zap.String("envoy", x.ID), zap.String("address", x.Address),
				zap.Duration("after", now.Sub(x.Behind)))
		}
	}
	r.slow = slow
}

// Say returns the pages that have changed since they were said, and the report that goes with them.
func (r *Reporter) Say(now time.Time) ([]status.Message, status.XdsStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		return r.say(now)
	}
	pages := r.last.pages
	r.last.pages = nil
	return pages, r.last.report, r.last.err
}

func (r *Reporter) say(now time.Time) ([]status.Message, status.XdsStatus, error) {
	pages, err := r.pages.Say()
	r.said = r.now
	r.number++
	s := r.now
	s.At, s.Pages, s.Number = resource.Time(now), r.pages.Digest(), r.number
	return pages, s, err
}

// Again returns some pages as they were said last, others at each call.
func (r *Reporter) Again(calls int) []status.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pages.Again(calls)
}

// close has the report stay what it is: the next process of this server learns from it how senior the Envoys are.
func (r *Reporter) close(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.look(now)
	pages, s, err := r.say(now)
	r.last = &closing{pages, s, err}
}

// Lagging are the Envoys that lack something, the longest first, some of them; count counts those that have for long.
func (f *Fleet) Lagging() (worst []status.LaggingEnvoy, count int) {
	f.mu.RLock()
	r := f.reporter
	f.mu.RUnlock()
	if r == nil {
		return nil, 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now.Lagging, int(r.now.LaggingProxies)
}
