package status

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

const (
	// absentFor is how long an xDS server speaks of an Envoy that is gone.
	absentFor = time.Hour
	// maxAbsent is how many of them it speaks of, the last ones.
	maxAbsent = 100
)

// Absences tells an xDS server's Envoys that were connected and are not any more. It is for one goroutine.
type Absences struct {
	absent []absence // the last one first
	number int
	said   map[string]struct{} // keys of pages
	// due is when they are to be said again, because of what happened or of what has been long enough.
	due time.Time
}

type absence struct {
	ProxyStatus
	key         string
	seen, until time.Time // until when it is expected back
}

// Remember takes what this server reported last before it was restarted: its Envoys are expected back.
func (a *Absences) Remember(last *View, now time.Time) {
	var gone []AbsentProxy
	for x := range last.Absent {
		gone = append(gone, x)
	}
	slices.SortStableFunc(gone, func(x, y AbsentProxy) int { return cmp.Compare(x.LastSeenAt, y.LastSeenAt) })
	for _, x := range gone {
		if seen, err := time.Parse(time.RFC3339, x.LastSeenAt); err == nil {
			a.add(absence{ProxyStatus: x.Proxy, seen: seen})
		}
	}
	seen, err := time.Parse(time.RFC3339, last.Head.At)
	if err != nil {
		seen = now
	}
	for p := range last.Proxies {
		p.AppliedRevision = last.Applied(p)
		a.add(absence{ProxyStatus: p, seen: seen, until: now.Add(Return)})
	}
}

func (a *Absences) add(x absence) {
	a.number++
	x.key = fmt.Sprintf("absent\x00%d", a.number)
	a.absent = slices.Insert(a.absent, 0, x)
	a.absent = a.absent[:min(len(a.absent), maxAbsent)]
	a.due = time.Time{}
}

// Went takes an Envoy that is not connected any more.
func (a *Absences) Went(p ProxyStatus, now time.Time) { a.add(absence{ProxyStatus: p, seen: now}) }

// Came takes an Envoy that has connected.
func (a *Absences) Came(p ProxyStatus) {
	if i := Returned(len(a.absent), func(i int) ProxyStatus { return a.absent[i].ProxyStatus }, p); i >= 0 {
		a.absent = slices.Delete(a.absent, i, i+1)
		a.due = time.Time{}
	}
}

// Write puts them into pages, where something has changed.
func (a *Absences) Write(pages *Pages, now time.Time) {
	if now.Before(a.due) {
		return
	}
	a.due = now.Add(absentFor)
	a.absent = slices.DeleteFunc(a.absent, func(x absence) bool { return now.Sub(x.seen) > absentFor })
	before := a.said
	a.said = map[string]struct{}{}
	for _, x := range a.absent {
		awaited := now.Before(x.until)
		if awaited && x.until.Before(a.due) {
			a.due = x.until
		}
		if end := x.seen.Add(absentFor); end.Before(a.due) {
			a.due = end
		}
		pages.Put(x.key, AbsentProxy{Proxy: x.ProxyStatus, LastSeenAt: resource.Time(x.seen), Awaited: awaited})
		a.said[x.key] = struct{}{}
		delete(before, x.key)
	}
	for key := range before {
		pages.Delete(key)
	}
}

// Returned is which of n absent Envoys one is that has connected, -1 for none: that of the same gateway and node id,
// from the same host if there is one. A container that is made anew comes from another.
func Returned(n int, absent func(int) ProxyStatus, p ProxyStatus) int {
	found := -1
	for i := range n {
		switch x := absent(i); {
		case x.Gateway != p.Gateway || x.ID != p.ID:
		case Host(x) == Host(p):
			return i
		case found < 0:
			found = i
		}
	}
	return found
}

// Host is where an Envoy is, without the port, which is another at each connection.
func Host(p ProxyStatus) string {
	if host, _, err := net.SplitHostPort(p.Address); err == nil {
		return host
	}
	return p.Address
}
