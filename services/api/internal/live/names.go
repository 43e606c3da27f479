package live

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// ReportNames takes a server's report of names that do not resolve.
func (b *Board) ReportNames(s status.NamesStatus, _ bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := map[string]status.NameStatus{}
	for _, n := range s.Names {
		now[n.Host] = n
	}
	if reflect.DeepEqual(now, b.names[s.ID]) {
		return // nothing that anybody who waits has not seen
	}
	b.names[s.ID] = now
	if s.Stopping {
		delete(b.names, s.ID)
	}
	b.tell()
}

// waits says for which of the names a server still waits, "" for none. Only what it says together with the revisions
// of its Envoys decides that; the words come on their own.
func (b *Board) waits(t Target, s *server) string {
	if len(t.Names) == 0 {
		return ""
	}
	var waiting []string
	for host := range t.Names {
		if s.Unresolved(host) {
			waiting = append(waiting, host)
		}
	}
	if len(waiting) == 0 {
		return ""
	}
	host := slices.Min(waiting)
	n, said := b.names[s.id][host]
	if !said {
		n = status.NameStatus{Host: host, Reason: "has not been answered by DNS yet", Problem: status.NamePending}
	}
	out := fmt.Sprintf("service %s waits for a name, and keeps the endpoints that it had: %s", t.Names[host], n)
	if more := len(waiting) - 1; more > 0 {
		out += fmt.Sprintf(" (and %d more)", more)
	}
	return out
}

// kept says which of the names are served with their last addresses, "" where all of them resolve.
func (b *Board) kept(t Target, servers []*server) string {
	var out []string
	for _, host := range slices.Sorted(maps.Keys(t.Names)) {
		for _, s := range servers {
			if n, troubled := b.names[s.id][host]; troubled && n.Addresses > 0 {
				out = append(out, n.String())
				break
			}
		}
	}
	if len(out) > 3 {
		out = append(out[:3], fmt.Sprintf("and %d more", len(out)-3))
	}
	return strings.Join(out, "; ")
}

func join(sentences ...string) string {
	return strings.Join(slices.DeleteFunc(sentences, func(s string) bool { return s == "" }), "; ")
}

// Names lists the names that do not resolve, at most so many, and counts them: each as the server says that has the
// fewest addresses of it.
func (b *Board) Names(most int) (list []api.UnresolvedName, count int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	worst := map[string]api.UnresolvedName{}
	for _, s := range b.fresh() {
		for host, n := range b.names[s.id] {
			if w, there := worst[host]; !there || n.Addresses < w.Addresses {
				worst[host] = api.UnresolvedName{
					Host: host, Services: n.Services, Problem: string(n.Problem), Reason: n.Reason, Addresses: n.Addresses,
					Since: n.Since, Xds: s.id,
				}
			}
		}
	}
	hosts := slices.Sorted(maps.Keys(worst))
	for _, host := range hosts[:min(len(hosts), most)] {
		list = append(list, worst[host])
	}
	return list, len(hosts)
}
