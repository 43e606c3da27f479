package servername

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

// Chain is a filter chain: the server names that lead to it, and what it presents.
type Chain struct {
	Name         string
	Names, Certs []string
	CA           string // that clients' certificates must come from; none where empty
}

// chain is one with its names while they come and go.
type chain struct {
	Chain
	names map[string]int // how often each is given
}

// Listener is an https listener.
type Listener struct {
	index *Index
	name  string
	// list are the certificates that it lists itself, listed the same, and place where each stands, made when needed.
	list   []string
	listed map[string]bool
	place  map[string]int
	// naming are those that name it.
	naming byAge
	// certs are the certificates of a name, in no order; contested the names that have several.
	certs     map[string][]string
	contested map[string]struct{}
	// first are the certificates for clients that send no name.
	first    []string
	auth     []*entry
	demand   map[string]*entry   // by host, wildcards as they are
	siblings map[string][]*entry // of exact hosts, by the wildcard just above each
	chains   map[string]*chain
	shared   bool // the map of chains was handed out
	// version is another one whenever what the listener is made of is.
	version uint64
}

// entry is one of client_auth.
type entry struct {
	hosts   []string
	present []string // what it lists; the listener's own are looked for where it lists none
	ca      string
	chain   string // its name
}

func newListener(x *Index, l *configv1.Listener) *Listener {
	return &Listener{
		index: x, name: l.GetName(), listed: map[string]bool{}, naming: byAge{at: map[string]int{}},
		certs:     map[string][]string{},
		contested: map[string]struct{}{}, demand: map[string]*entry{}, siblings: map[string][]*entry{},
		chains: map[string]*chain{},
	}
}

// First are the certificates for clients that send no name: the first of its list, or the oldest that names it, with
// the one of the other kind of key.
func (l *Listener) First() []string {
	if l == nil {
		return nil
	}
	return l.first
}

// Only says whether a certificate is the only one that the listener presents.
func (l *Listener) Only(name string) bool {
	for _, c := range l.list {
		if c != name {
			return false
		}
	}
	for _, c := range l.naming.list {
		if c.Name != name {
			return false
		}
	}
	return len(l.list)+l.naming.Len() > 0
}

// Name is the listener's.
func (l *Listener) Name() string { return l.name }

// Version is another one whenever First, Chains or their names are.
func (l *Listener) Version() uint64 { return l.version }

// Chains are the chains with certificates of their own, by name.
func (l *Listener) Chains() []Chain {
	out := make([]Chain, 0, len(l.chains))
	for _, name := range slices.Sorted(maps.Keys(l.chains)) {
		c := l.chains[name].Chain
		c.Names = slices.Sorted(maps.Keys(l.chains[name].names))
		out = append(out, c)
	}
	return out
}

// Snapshot holds the names of a listener's chains as they are now.
type Snapshot struct {
	chains map[string]*chain
	first  []string
}

// Snapshot costs nothing; the next chain that comes or goes costs a copy.
func (l *Listener) Snapshot() Snapshot {
	if l == nil {
		return Snapshot{}
	}
	l.shared = true
	return Snapshot{l.chains, l.first}
}

// First is what [Listener.First] was.
func (s Snapshot) First() []string { return s.first }

// Gone lists the chains of a snapshot that the listener has no more, in order.
func (s Snapshot) Gone(l *Listener) []string {
	var out []string
	for name := range s.chains {
		if l == nil || l.chains[name] == nil {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// presents says whether the listener presents a certificate of its gateway.
func (l *Listener) presents(c *Certificate) bool { return l.listed[c.Name] || l.naming.has(c.Name) }

// prefers orders certificates: the list, then the others by age.
func (l *Listener) prefers(a, b string) int {
	if x, y := l.listed[a], l.listed[b]; x != y {
		if x {
			return -1
		}
		return 1
	} else if !x {
		if l.index.certs[a].before(l.index.certs[b]) {
			return -1
		}
		return 1
	}
	if l.place == nil {
		l.place = make(map[string]int, len(l.list))
		for i, c := range l.list {
			l.place[c] = i
		}
	}
	return cmp.Compare(l.place[a], l.place[b])
}

// of are the certificates that present a name: the first of each kind of key.
func (l *Listener) of(name string) []string {
	all := l.certs[name]
	if len(all) < 2 {
		return all
	}
	all = slices.SortedFunc(slices.Values(all), l.prefers)
	out := all[:0]
	for _, c := range all {
		kind := l.index.certs[c].kind
		if !slices.ContainsFunc(out, func(other string) bool { return l.index.certs[other].kind == kind }) {
			out = append(out, c)
		}
	}
	return out
}

// demands says whether a name is one of hosts that demand a client certificate.
func (l *Listener) demands(name string) bool {
	if l.demand[name] != nil {
		return true
	}
	for p := range parents(name) {
		if l.demand[p] != nil {
			return true
		}
	}
	return false
}

// isBelow says whether a name is below a wildcard that the listener has a certificate for.
func (l *Listener) isBelow(name string) bool {
	for p := range parents(name) {
		if len(l.certs[p]) > 0 {
			return true
		}
	}
	return false
}

// add gives the listener a certificate's names, and drop takes them away.
func (l *Listener) add(c *Certificate, u *update) {
	for _, n := range c.names {
		l.certs[n] = append(l.certs[n], c.Name)
		if len(l.certs[n]) == 2 {
			l.contested[n] = struct{}{}
		}
		l.index.know(n, 1)
		u.touch(l, n)
	}
}

func (l *Listener) drop(c *Certificate, u *update) {
	for _, n := range c.names {
		all := l.certs[n]
		if i := slices.Index(all, c.Name); i >= 0 {
			all[i] = all[len(all)-1]
			all = all[:len(all)-1]
		}
		if l.certs[n] = all; len(all) == 0 {
			delete(l.certs, n)
		}
		if len(all) < 2 {
			delete(l.contested, n)
		}
		l.index.know(n, -1)
		u.touch(l, n)
	}
}

// relist takes another list. It costs what differs, and a comparison of the rest.
func (l *Listener) relist(list []string, u *update) {
	from, to := Common(l.list, list, Equal)
	gone, come := l.list[from:len(l.list)-to], list[from:len(list)-to]
	if len(gone)+len(come) == 0 {
		return
	}
	was := make(map[string]bool, len(gone))
	for _, c := range gone {
		was[c] = true
		delete(l.listed, c)
	}
	for _, c := range come {
		l.listed[c] = true
	}
	l.list, l.place = list, nil
	for _, c := range gone {
		if o := l.index.certs[c]; o != nil && !l.presents(o) {
			l.drop(o, u)
		}
		l.index.forget(c)
	}
	for _, c := range come {
		if o := l.index.learn(c); o != nil && !was[c] && !l.naming.has(c) {
			l.add(o, u)
		}
	}
	for n := range l.contested {
		u.touch(l, n)
	}
	for _, e := range l.auth {
		u.again(l, e)
	}
}

// Common counts what two lists begin and end with that is equal: a long list that changes in one place costs a
// comparison.
func Common[T any](a, b []T, equal func(a, b T) bool) (begin, end int) {
	n := min(len(a), len(b))
	for begin < n && equal(a[begin], b[begin]) {
		begin++
	}
	for end < n-begin && equal(a[len(a)-1-end], b[len(b)-1-end]) {
		end++
	}
	return begin, end
}

// Equal is for [Common].
func Equal(a, b string) bool { return a == b }

// authenticate takes other hosts that demand a client certificate.
func (l *Listener) authenticate(auth []*configv1.ClientAuth, u *update) {
	for _, e := range l.auth {
		l.leave(e.chain, e.hosts...)
		u.below(l, e.hosts)
	}
	l.auth = nil
	clear(l.demand)
	clear(l.siblings)
	for _, a := range auth {
		e := &entry{hosts: a.GetHosts(), present: a.GetCertificates(), ca: a.GetCaCertificate()}
		l.auth = append(l.auth, e)
		for _, h := range e.hosts {
			l.demand[h] = e
			if _, rest, found := strings.Cut(h, "."); found && !isWildcard(h) {
				l.siblings["*."+rest] = append(l.siblings["*."+rest], e)
			}
		}
		u.below(l, e.hosts)
		u.again(l, e)
	}
}

// concerned yields the entries of client_auth that present a certificate for a name.
func (l *Listener) concerned(name string, yield func(*entry)) {
	if len(l.auth) == 0 {
		return
	}
	if e := l.demand[name]; e != nil {
		yield(e)
	}
	for p := range parents(name) {
		if e := l.demand[p]; e != nil {
			yield(e)
		}
	}
	for _, e := range l.siblings[name] {
		yield(e)
	}
}

// settle finds an entry's chain. What it presents where it lists nothing are the listener's certificates that have a
// name of its hosts, so that another one which comes is no matter for its connections.
func (l *Listener) settle(e *entry) {
	present := e.present
	if len(present) == 0 {
		fits := map[string]bool{}
		note := func(name string) {
			for _, c := range l.of(name) {
				fits[c] = true
			}
		}
		for _, h := range e.hosts {
			note(h)
			if isWildcard(h) {
				for n := range l.index.below[h] {
					note(n)
				}
			} else if _, rest, found := strings.Cut(h, "."); found {
				note("*." + rest)
			}
		}
		if present = slices.SortedFunc(maps.Keys(fits), l.prefers); len(present) == 0 {
			present = l.first
		}
	}
	if name := chainName(present, e.ca); name != e.chain {
		l.leave(e.chain, e.hosts...)
		e.chain = name
		l.join(name, present, e.ca, e.hosts...)
	}
}

// chainName does not depend on other chains, for one that changes its name is another one, whose connections drain.
func chainName(certs []string, ca string) string {
	if ca != "" {
		return "client-auth/" + ca + "/" + strings.Join(certs, "+")
	}
	return "certificates/" + strings.Join(certs, "+")
}

// own has the map of chains be changed.
func (l *Listener) own() {
	l.changed()
	if l.shared {
		l.chains, l.shared = maps.Clone(l.chains), false
	}
}

func (l *Listener) changed() {
	l.index.versions++
	l.version = l.index.versions
}

// join leads names to a chain, and leave takes them from it.
func (l *Listener) join(name string, certs []string, ca string, names ...string) {
	c := l.chains[name]
	if c == nil {
		l.own()
		c = &chain{Chain{Name: name, Certs: slices.Clone(certs), CA: ca}, map[string]int{}}
		l.chains[name] = c
	}
	for _, n := range names {
		if c.names[n]++; c.names[n] == 1 {
			l.changed()
		}
	}
}

func (l *Listener) leave(name string, names ...string) {
	c := l.chains[name]
	if c == nil {
		return
	}
	for _, n := range names {
		if c.names[n]--; c.names[n] <= 0 {
			delete(c.names, n)
			l.changed()
		}
	}
	if len(c.names) == 0 {
		l.own()
		delete(l.chains, name)
	}
}
