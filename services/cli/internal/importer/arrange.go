package importer

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// pathKind is how the original compares paths.
type pathKind int

const (
	under    pathKind = iota // begins with the text, in the middle of a segment too; / is every path
	exact                    // is the text
	segments                 // begins with the text, by whole segments
	matching                 // RE2, the whole path
)

// entry is a route on its way. Of the entries that fit a request the first one counts, as in the original.
type entry struct {
	place Place
	name  string
	route *configv1.Route // without its path
	kind  pathKind
	path  string
	// to replaces what of the path is matched (under, segments), or all of it (exact); nil keeps the path.
	to *string
}

// shut has a route answer 503.
func (e *entry) shut() { e.route, e.to = closedRoute(e.route), nil }

// close has a route answer 503, and says why.
func (b *builder) close(e *entry, p Place, what, reason, remedy string) {
	b.note(p, what, fmt.Sprintf("%s, so that route %s is closed: it answers 503", reason, e.name), remedy)
	e.shut()
}

// closeHosts has all routes of hosts answer 503, of every host where there are none. It is for what could not even be
// made a route: its requests would go to the others.
func (b *builder) closeHosts(hosts []string, p Place, what, reason, remedy string) {
	b.note(p, what, reason+", so that all routes of the host are closed: they answer 503, since its requests would go to "+
		"them", remedy)
	b.last = append(b.last, func() {
		for _, e := range b.entries {
			if len(hosts) == 0 || sharesHost(hosts, e.route.GetHosts()) {
				e.shut()
			}
		}
	})
}

// route adds an entry, which comes after those that are there.
func (b *builder) route(p Place, e *entry, name ...string) *entry {
	e.place, e.name = p, b.name(resource.KindRoute, name...)
	b.entries = append(b.entries, e)
	return e
}

// arrange gives the entries paths by which the order in which we try routes is the original's. Where the plain form
// does not do, all that a path has in common with others become regular expressions: the longest one is tried first,
// so that each is made longer than the next one, by groups that match nothing.
func (b *builder) arrange() {
	b.shadows()
	exacts := map[string][]*entry{}
	for _, e := range b.entries {
		if e.kind == exact {
			exacts[e.path] = append(exacts[e.path], e)
		}
	}
	for _, e := range b.entries {
		// The prefix /x/ takes /x as well here: that makes no difference where /x has a route of its own on all its hosts.
		twin := slices.ContainsFunc(exacts[strings.TrimRight(e.path, "/")], func(x *entry) bool {
			return plainMatch(x.route) && sameHosts(x.route, e.route)
		})
		e.setPath(twin)
	}
	made := objectsOf(b.entries)
	groups := newGroups(len(b.entries))
	wrong := map[int]bool{}
	var conflicts [][2]int
	// An exact path that nothing but such comes before stays as it is, and so does / that nothing comes after: these are
	// tried first and last here, too.
	after, before := make([]bool, len(b.entries)), make([]bool, len(b.entries))
	for i, x := range b.entries {
		for j := i + 1; j < len(b.entries); j++ {
			y := b.entries[j]
			if !overlap(x, y) {
				continue
			}
			groups.join(i, j)
			after[j] = after[j] || x.kind != exact
			before[i] = true
			if made[i] == nil || made[j] == nil || !translate.Precedes(made[i], made[j]) {
				conflicts = append(conflicts, [2]int{i, j})
			}
		}
	}
	for _, c := range conflicts {
		wrong[groups.of(c[0])] = true
	}
	length := map[int]int{}
	for i := len(b.entries) - 1; i >= 0; i-- {
		group, e := groups.of(i), b.entries[i]
		if !wrong[group] || e.kind == exact && !after[i] || e.kind == under && e.path == "/" && !before[i] {
			continue
		}
		text := pad(e.pattern(), length[group]+1)
		length[group] = len(text)
		if len(text) > 1024 {
			b.note(e.place, "route "+e.name,
				"is tried in another order here, which cannot be put right: its expression would be "+
					"too long", "look at the order of the host's routes: marchproxy explain")
			continue
		}
		e.route.Path = &configv1.PathMatch{Match: &configv1.PathMatch_Regex{Regex: text}}
	}
	for _, e := range b.entries {
		e.setRewrite()
	}
}

// shadows takes from each route the hosts of those before it that take the same requests: it never gets any there. Two
// such routes would be refused.
func (b *builder) shadows() {
	type key struct{ match, listeners string }
	seen := map[key][]string{}
	b.entries = slices.DeleteFunc(b.entries, func(e *entry) bool {
		match, err := resource.CanonicalSpec(&configv1.Route{
			Methods: e.route.GetMethods(), Headers: e.route.GetHeaders(), Query: e.route.GetQuery(),
		})
		if err != nil {
			return false
		}
		k := key{fmt.Sprintf("%d %s %s", e.kind, e.path, match), strings.Join(e.route.GetListeners(), ",")}
		hosts := e.route.GetHosts()
		if len(hosts) == 0 {
			hosts = []string{"*"}
		}
		left := slices.DeleteFunc(slices.Clone(hosts), func(h string) bool { return slices.Contains(seen[k], h) })
		if len(left) < len(hosts) {
			e.route.Hosts = left
		}
		seen[k] = append(seen[k], left...)
		return len(left) == 0
	})
}

// pad makes an expression at least as long, without another meaning.
func pad(re string, length int) string {
	for len(re) < length {
		re += "(?:)"
	}
	return re
}

// setPath gives the plain form of a path.
func (e *entry) setPath(twin bool) {
	p := &configv1.PathMatch{}
	switch {
	case e.kind == exact:
		p.Match = &configv1.PathMatch_Exact{Exact: e.path}
	case e.kind == segments, e.kind == under && strings.HasSuffix(e.path, "/") && (e.path == "/" || twin):
		p.Match = &configv1.PathMatch_Prefix{Prefix: e.path}
	default:
		p.Match = &configv1.PathMatch_Regex{Regex: e.pattern()}
	}
	e.route.Path = p
}

// pattern is the path as an RE2 expression of the whole.
func (e *entry) pattern() string {
	switch e.kind {
	case exact:
		return regexp.QuoteMeta(e.path)
	case segments:
		if at := strings.TrimRight(e.path, "/"); at != "" {
			return regexp.QuoteMeta(at) + "(?:/.*)?"
		}
		return "/.*"
	case under:
		return regexp.QuoteMeta(e.path) + ".*"
	}
	return e.path
}

// setRewrite has the path replaced, in the form that the path's match allows.
func (e *entry) setRewrite() {
	if e.to == nil {
		return
	}
	rewrite := rewriteOf(e)
	switch prefix := e.route.GetPath().GetPrefix(); {
	case e.route.GetPath().GetExact() != "" && *e.to != "",
		strings.HasSuffix(prefix, "/") && strings.HasSuffix(*e.to, "/"):
		if *e.to != prefix {
			rewrite.Prefix = *e.to
		}
	default:
		pattern := "^" + regexp.QuoteMeta(e.path)
		if e.kind == exact {
			pattern += "$"
		}
		rewrite.Regex = &configv1.RegexRewrite{Pattern: pattern, Substitution: substitution(*e.to)}
	}
	if rewrite.GetPrefix() == "" && rewrite.GetRegex() == nil && rewrite.GetHost() == "" {
		e.route.Rewrite = nil
	}
}

// substitution is a text as what stands in place of a match.
func substitution(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }

// objectsOf are the entries' routes as [translate.Precedes] takes them, nil where one cannot be made.
func objectsOf(entries []*entry) []*resource.Object {
	out := make([]*resource.Object, len(entries))
	for i, e := range entries {
		if o, err := resource.New(resource.Ref{Kind: resource.KindRoute, Name: e.name}, e.route); err == nil {
			out[i] = o
		}
	}
	return out
}

func plainMatch(r *configv1.Route) bool {
	return len(r.GetMethods()) == 0 && len(r.GetHeaders()) == 0 && len(r.GetQuery()) == 0
}

func sameHosts(x, y *configv1.Route) bool {
	return slices.Equal(x.GetHosts(), y.GetHosts()) && slices.Equal(x.GetListeners(), y.GetListeners())
}

// overlap says whether a request may fit both.
func overlap(x, y *entry) bool {
	rx, ry := x.route, y.route
	if !sharesHost(rx.GetHosts(), ry.GetHosts()) || apart(rx.GetListeners(), ry.GetListeners()) ||
		apart(rx.GetMethods(), ry.GetMethods()) || differ(rx.GetHeaders(), ry.GetHeaders(), strings.EqualFold) ||
		differ(rx.GetQuery(), ry.GetQuery(), func(a, b string) bool { return a == b }) {
		return false
	}
	switch {
	case x.kind == exact && y.kind == exact:
		return x.path == y.path
	case x.kind == exact:
		return fits(y, x.path)
	case y.kind == exact:
		return fits(x, y.path)
	}
	px, py := x.prefix(), y.prefix()
	return strings.HasPrefix(px, py) || strings.HasPrefix(py, px)
}

// sharesHost says whether a host has both in one table: other hosts are another matter (the schema's Route).
func sharesHost(a, b []string) bool {
	if len(a) == 0 {
		a = []string{"*"}
	}
	if len(b) == 0 {
		b = []string{"*"}
	}
	return slices.ContainsFunc(a, func(h string) bool { return slices.Contains(b, h) })
}

// apart says whether lists, in which none stands for all, have nothing in common.
func apart(a, b []string) bool {
	return len(a) > 0 && len(b) > 0 && !slices.ContainsFunc(a, func(x string) bool { return slices.Contains(b, x) })
}

// differ says whether matches ask for two values of the same name.
func differ(a, b []*configv1.NamedMatch, same func(a, b string) bool) bool {
	for _, x := range a {
		for _, y := range b {
			_, ex := x.GetValue().GetMatch().(*configv1.StringMatch_Exact)
			_, ey := y.GetValue().GetMatch().(*configv1.StringMatch_Exact)
			if ex && ey && same(x.GetName(), y.GetName()) && !x.GetInvert() && !y.GetInvert() &&
				x.GetValue().GetExact() != y.GetValue().GetExact() {
				return true
			}
		}
	}
	return false
}

// fits says whether an entry takes a path.
func fits(e *entry, path string) bool {
	re, err := regexp.Compile("^(?:" + e.pattern() + ")$")
	return err != nil || re.MatchString(path)
}

// prefix is what every path of an entry begins with.
func (e *entry) prefix() string {
	if e.kind != matching {
		return strings.TrimRight(e.path, "/")
	}
	re, err := regexp.Compile("^(?:" + e.path + ")$")
	if err != nil {
		return ""
	}
	prefix, _ := re.LiteralPrefix()
	return prefix
}

// groups are sets of entries that have requests in common, directly or by others.
type groups []int

func newGroups(n int) groups {
	out := make(groups, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func (g groups) of(i int) int {
	for g[i] != i {
		g[i] = g[g[i]]
		i = g[i]
	}
	return i
}

func (g groups) join(i, j int) { g[g.of(i)] = g.of(j) }

// alternates says whether an expression has a bar outside of all parentheses.
func alternates(re string) bool {
	depth, class := 0, false
	for i := 0; i < len(re); i++ {
		switch c := re[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == '|' && depth == 0:
			return true
		}
	}
	return false
}

// searching is an expression that is found anywhere in the path as one of the whole path, in RE2; ok is false for
// what RE2 does not have.
func searching(re string, anyCase bool) (out string, ok bool) {
	front, back := ".*", ".*"
	if _, err := syntax.Parse(re, syntax.Perl); err != nil {
		return "", false
	}
	if !alternates(re) {
		if rest, found := strings.CutPrefix(re, "^"); found {
			re, front = rest, ""
		}
		if rest, found := strings.CutSuffix(re, "$"); found && !strings.HasSuffix(rest, `\`) {
			re, back = rest, ""
		} else if rest, found := strings.CutSuffix(re, ".*"); found && !strings.HasSuffix(rest, `\`) {
			re = rest
		}
		out = front + re + back
	} else {
		out = ".*(?:" + re + ").*"
	}
	if anyCase {
		out = "(?i)" + out
	}
	if _, err := syntax.Parse(out, syntax.Perl); err != nil {
		return "", false
	}
	return out, true
}
