package status

import (
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
	proxies []ProxyStatus
	seen    time.Time
	absent  []absence // the last one first
}

type absence struct {
	ProxyStatus
	seen, until time.Time // until when it is expected back
}

// Remember takes this server's last report before it was restarted: its Envoys are expected back.
func (a *Absences) Remember(last XdsStatus, now time.Time) {
	for _, x := range slices.Backward(last.Absent) {
		if seen, err := time.Parse(time.RFC3339, x.LastSeenAt); err == nil {
			a.absent = slices.Insert(a.absent, 0, absence{x.Proxy, seen, time.Time{}})
		}
	}
	seen, err := time.Parse(time.RFC3339, last.At)
	if err != nil {
		seen = now
	}
	for _, p := range last.Proxies {
		a.absent = slices.Insert(a.absent, 0, absence{p, seen, now.Add(Return)})
	}
}

// Follow takes the Envoys that are connected now, and lists those that are not any more.
func (a *Absences) Follow(now time.Time, proxies []ProxyStatus) []AbsentProxy {
	for _, p := range Gone(a.proxies, proxies) {
		a.absent = slices.Insert(a.absent, 0, absence{p, a.seen, time.Time{}})
	}
	for _, p := range Gone(proxies, a.proxies) { // those that came
		if i := Returned(len(a.absent), func(i int) ProxyStatus { return a.absent[i].ProxyStatus }, p); i >= 0 {
			a.absent = slices.Delete(a.absent, i, i+1)
		}
	}
	a.proxies, a.seen = proxies, now
	a.absent = slices.DeleteFunc(a.absent, func(x absence) bool { return now.Sub(x.seen) > absentFor })
	a.absent = a.absent[:min(len(a.absent), maxAbsent)]
	var out []AbsentProxy
	for _, x := range a.absent {
		out = append(out, AbsentProxy{Proxy: x.ProxyStatus, LastSeenAt: resource.Time(x.seen), Awaited: now.Before(x.until)})
	}
	return out
}

// Gone lists the connections that were and are not any more.
func Gone(was, now []ProxyStatus) []ProxyStatus {
	var out []ProxyStatus
	for _, p := range was {
		if !slices.ContainsFunc(now, func(o ProxyStatus) bool {
			return o.Gateway == p.Gateway && o.ID == p.ID && o.Address == p.Address && o.ConnectedAt == p.ConnectedAt
		}) {
			out = append(out, p)
		}
	}
	return out
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
