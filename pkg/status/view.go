package status

import (
	"cmp"
	"slices"
)

// View is one xDS server as its reports and pages show it. It is for one goroutine.
type View struct {
	// Head is its last report.
	Head XdsStatus

	started string
	pages   map[int32]XdsPage // those that are not empty
	seqs    map[int32]int64   // of all of them
	sum     uint64
	at      map[string]int32 // the pages of the Envoys, by key
	counts  map[string]Count // of Envoys, by gateway
	refused map[ObjectRef][]Refused
	names   map[string]int32 // the pages of names without an address
	hosts   map[string]int   // Envoys by gateway, node id and host
	sorted  []RejectedResource
	whole   bool
	fresh   bool
}

// Count counts a gateway's Envoys, and those of them without a seat.
type Count struct{ Proxies, OverLimit int32 }

// Refused is what is refused of an object.
type Refused struct {
	// Gateway whose Envoys refused it, the Envoy resource and the reason.
	Gateway, Resource, Reason string
	// Revision of the object that was refused.
	Revision int64
	page     int32
}

// NewView returns a view of a server that nobody has heard of.
func NewView() *View {
	return &View{
		pages: map[int32]XdsPage{}, seqs: map[int32]int64{}, at: map[string]int32{}, counts: map[string]Count{},
		refused: map[ObjectRef][]Refused{},
		names:   map[string]int32{}, hosts: map[string]int{},
	}
}

func (p ProxyStatus) place() string { return p.Gateway + "\x00" + p.ID + "\x00" + Host(p) }

// Key tells one connection of an Envoy to a server from others.
func (p ProxyStatus) Key() string {
	return p.Gateway + "\x00" + p.ID + "\x00" + p.Address + "\x00" + p.ConnectedAt
}

// Difference is what a report or a page has changed.
type Difference struct {
	// Anew says that the server was started anew: what it had before is in Went.
	Anew bool
	// Came and Went are Envoys that are connected now and were not, or the other way round, and Changed those that are
	// described otherwise.
	Came, Went, Changed []ProxyStatus
	// Absent are Envoys that the server says are gone.
	Absent []AbsentProxy
}

// Moved says whether there is another Envoy, or one that is described otherwise.
func (d Difference) Moved() bool { return len(d.Came)+len(d.Went)+len(d.Changed) > 0 }

func (d *Difference) add(o Difference) {
	d.Anew = d.Anew || o.Anew
	d.Came, d.Went, d.Changed = append(d.Came, o.Came...), append(d.Went, o.Went...), append(d.Changed, o.Changed...)
	d.Absent = append(d.Absent, o.Absent...)
}

// Report takes a report. Fresh says that it comes as it is sent; others, which were kept, do not count where a fresh
// one is known. Not ok says that it was not taken.
func (v *View) Report(s XdsStatus, fresh bool) (d Difference, ok bool) {
	if (v.fresh && !fresh) || (s.StartedAt == v.started && s.Number < v.Head.Number) {
		return d, false
	}
	v.fresh = fresh
	d.add(v.begin(s.StartedAt))
	if v.Head = s; s.Pages == "" && !s.Stopping {
		// A server of an older version says everything at once: that is one page.
		d.add(v.put(XdsPage{
			StartedAt: s.StartedAt, Seq: v.seqs[0] + 1, Proxies: s.Proxies, Rejected: s.Rejected, Absent: s.Absent,
			Unresolved: s.Unresolved,
		}))
	}
	v.Head.Proxies, v.Head.Rejected, v.Head.Absent, v.Head.Unresolved = nil, nil, nil, nil
	v.whole = s.Pages == "" || s.Pages == digest(v.sum)
	return d, true
}

// Page takes a page; not ok says that it was not taken, because it is known, or older than what is, or of another life
// of the server, which only a fresh one can begin: its pages come before its report.
func (v *View) Page(p XdsPage, fresh bool) (d Difference, ok bool) {
	if p.StartedAt != v.started && !fresh || p.StartedAt == v.started && p.Seq <= v.seqs[p.Page] {
		return d, false
	}
	d = v.begin(p.StartedAt)
	d.add(v.put(p))
	v.whole = v.whole || v.Head.Pages == digest(v.sum)
	return d, true
}

// Prune takes out the pages that the status stream has not got, where that makes the view whole: the message that
// emptied them was lost.
func (v *View) Prune(there map[int32]bool) (d Difference) {
	sum := v.sum
	for n, p := range v.pages {
		if !there[n] {
			sum -= mark(n, p.Seq)
		}
	}
	if v.whole || digest(sum) != v.Head.Pages {
		return d
	}
	for n, p := range v.pages {
		if !there[n] {
			d.add(v.put(XdsPage{StartedAt: p.StartedAt, Page: n, Seq: p.Seq + 1}))
		}
	}
	v.whole = true
	return d
}

// begin forgets what another process of the server had.
func (v *View) begin(started string) (d Difference) {
	if started == v.started {
		return d
	}
	d.Anew = v.started != ""
	for p := range v.Proxies {
		p.AppliedRevision = v.Applied(p)
		d.Went = append(d.Went, p)
	}
	head, fresh := v.Head, v.fresh
	*v = *NewView()
	v.started, v.Head, v.fresh = started, head, fresh
	v.Head.Number = 0
	return d
}

// put replaces a page.
func (v *View) put(p XdsPage) (d Difference) {
	was, had := v.pages[p.Page]
	if had {
		v.sum -= mark(p.Page, was.Seq)
		v.unindex(was)
	}
	now := map[string]ProxyStatus{}
	for _, x := range p.Proxies {
		now[x.Key()] = x
	}
	before := map[string]ProxyStatus{}
	for _, x := range was.Proxies {
		k := x.Key()
		if v.at[k] != p.Page {
			continue // it has moved to another page
		}
		if before[k] = x; now[k].ID != x.ID || now[k].Gateway != x.Gateway {
			delete(v.at, k)
			v.count(x, -1)
			x.AppliedRevision = v.Applied(x)
			d.Went = append(d.Went, x)
		}
	}
	for _, x := range p.Proxies {
		k := x.Key()
		old, here := before[k]
		elsewhere, known := v.at[k]
		switch {
		case here:
			v.count(old, -1)
			if x != old {
				d.Changed = append(d.Changed, x)
			}
		case known:
			if elsewhere == p.Page {
				continue // twice in one page
			}
			for _, o := range v.pages[elsewhere].Proxies {
				if o.Key() == k {
					v.count(o, -1)
				}
			}
			d.Changed = append(d.Changed, x)
		default:
			d.Came = append(d.Came, x)
		}
		delete(before, k)
		v.at[k] = p.Page
		v.count(x, 1)
	}
	v.seqs[p.Page] = p.Seq
	if delete(v.pages, p.Page); !p.empty() {
		v.pages[p.Page] = p
		v.sum += mark(p.Page, p.Seq)
		v.index(p)
	}
	d.Absent = p.Absent
	return d
}

func (v *View) count(p ProxyStatus, by int32) {
	place := p.place()
	if v.hosts[place] += int(by); v.hosts[place] == 0 {
		delete(v.hosts, place)
	}
	c := v.counts[p.Gateway]
	if c.Proxies += by; p.OverLimit {
		c.OverLimit += by
	}
	if v.counts[p.Gateway] = c; c.Proxies == 0 {
		delete(v.counts, p.Gateway)
	}
}

func (v *View) index(p XdsPage) {
	if len(p.Rejected) > 0 {
		v.sorted = nil
	}
	for _, r := range p.Rejected {
		for _, o := range r.Objects {
			k := ObjectRef{Kind: o.Kind, Name: o.Name}
			v.refused[k] = append(v.refused[k], Refused{r.Gateway, r.Resource, r.Reason, o.Revision, p.Page})
		}
	}
	for _, n := range p.Unresolved {
		v.names[n] = p.Page
	}
}

func (v *View) unindex(p XdsPage) {
	if len(p.Rejected) > 0 {
		v.sorted = nil
	}
	for _, r := range p.Rejected {
		for _, o := range r.Objects {
			k := ObjectRef{Kind: o.Kind, Name: o.Name}
			// A copy: what was handed out stays.
			left := slices.DeleteFunc(slices.Clone(v.refused[k]), func(x Refused) bool { return x.page == p.Page })
			if v.refused[k] = left; len(left) == 0 {
				delete(v.refused, k)
			}
		}
	}
	for _, n := range p.Unresolved {
		if v.names[n] == p.Page {
			delete(v.names, n)
		}
	}
}

// Whole says whether all pages of the last report are there.
func (v *View) Whole() bool { return v.whole }

// Proxies yields the connected Envoys, in no order.
func (v *View) Proxies(yield func(ProxyStatus) bool) {
	for n, p := range v.pages {
		for _, x := range p.Proxies {
			if v.at[x.Key()] == n && !yield(x) {
				return
			}
		}
	}
}

// Absent yields the Envoys that the server says are gone.
func (v *View) Absent(yield func(AbsentProxy) bool) {
	for _, p := range v.pages {
		for _, x := range p.Absent {
			if !yield(x) {
				return
			}
		}
	}
}

// Rejected lists what is refused, by gateway and resource; the list is not to be changed.
func (v *View) Rejected() []RejectedResource {
	if v.sorted != nil {
		return v.sorted
	}
	for _, p := range v.pages {
		v.sorted = append(v.sorted, p.Rejected...)
	}
	slices.SortFunc(v.sorted, func(a, b RejectedResource) int {
		var x, y ObjectRef
		if len(a.Objects) > 0 {
			x = a.Objects[0]
		}
		if len(b.Objects) > 0 {
			y = b.Objects[0]
		}
		return cmp.Or(cmp.Compare(a.Gateway, b.Gateway), cmp.Compare(a.Resource, b.Resource), cmp.Compare(x.Kind, y.Kind),
			cmp.Compare(x.Name, y.Name))
	})
	// A resource of many objects comes in parts.
	v.sorted = slices.CompactFunc(v.sorted, func(a, b RejectedResource) bool {
		return a.Gateway == b.Gateway && a.Resource == b.Resource && a.Resource != "" && a.Reason == b.Reason
	})
	return v.sorted
}

// Has says whether an Envoy of this gateway, node id and host is connected.
func (v *View) Has(p ProxyStatus) bool { return v.hosts[p.place()] > 0 }

// Refused is what is refused of an object; Objects counts the objects of which something is.
func (v *View) Refused(kind, name string) []Refused {
	if len(v.refused) == 0 {
		return nil
	}
	return v.refused[ObjectRef{Kind: kind, Name: name}]
}

// Objects counts the objects of which something is refused.
func (v *View) Objects() int { return len(v.refused) }

// Unresolved says whether a name has no address yet.
func (v *View) Unresolved(name string) bool {
	_, waits := v.names[name]
	return waits
}

// Counts counts the Envoys by gateway, as the pages have them; it is not to be changed.
func (v *View) Counts() map[string]Count { return v.counts }

// Connected counts a gateway's Envoys, as the last report says.
func (v *View) Connected(gateway string) int32 {
	if v.Head.Pages == "" {
		return v.counts[gateway].Proxies
	}
	return v.Head.Connected[gateway]
}

// Applied is the revision that an Envoy of this server serves in full.
func (v *View) Applied(p ProxyStatus) int64 {
	if v.Head.Pages == "" {
		return p.AppliedRevision
	}
	return v.Head.Applied(p)
}

// Lags is what an Envoy lacks, where the last report names it.
func (v *View) Lags(p ProxyStatus) (LaggingEnvoy, bool) { return v.Head.Lags(p) }
