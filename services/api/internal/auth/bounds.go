package auth

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Bounds are what a token may write: only what is within all of those that are not empty, before the write and after
// it. What of the access log it may watch is bound by them too; other reads are not.
type Bounds api.TokenBounds

// Empty says that there are none.
func (b Bounds) Empty() bool { return len(b.Owners)+len(b.Gateways)+len(b.Kinds)+len(b.Hosts) == 0 }

// maxBounds is how many of each sort a token has at most: each write is compared with them.
const maxBounds = 64

var (
	ownerPrefix = regexp.MustCompile(`^[A-Za-z0-9._:/-]{1,63}$`)
	hostSuffix  = regexp.MustCompile(`^\.?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)
)

// Validate finds what is wrong with them; paths are below $.
func (b Bounds) Validate() (v resource.Violations) {
	check := func(name string, list []string, wrong func(string) string) {
		if len(list) > maxBounds {
			v = append(v, resource.Violation{
				Path: "$." + name, Message: fmt.Sprintf("are more than %d", maxBounds),
				Rule: "bounds",
			})
			return
		}
		for i, x := range list {
			if msg := wrong(x); msg != "" {
				v = append(v, resource.Violation{Path: fmt.Sprintf("$.%s[%d]", name, i), Message: msg, Rule: "bounds"})
			}
		}
	}
	check("owners", b.Owners, func(s string) string {
		if !ownerPrefix.MatchString(s) {
			return "must be 1 to 63 letters, digits and any of . _ : / -"
		}
		return ""
	})
	check("gateways", b.Gateways, resource.CheckName)
	check("kinds", b.Kinds, func(s string) string {
		if _, ok := resource.KindByName(s); !ok {
			return "must be one of " + resource.KindNames()
		}
		return ""
	})
	check("hosts", b.Hosts, func(s string) string {
		if len(s) > 253 || !hostSuffix.MatchString(s) {
			return "must be the end of a host in lower case, such as example.com, or .example.com for what is below it"
		}
		return ""
	})
	return v
}

// Narrowed are bounds for a token of somebody who has bounds himself: sorts that it leaves open are his. What is wider
// than his is refused; paths are below $.
func (b Bounds) Narrowed(his Bounds) (out Bounds, v resource.Violations) {
	one := func(name string, list, outer []string, within func(string) bool) []string {
		if len(outer) == 0 {
			return list
		}
		if len(list) == 0 {
			return outer
		}
		for i, x := range list {
			if !within(x) {
				v = append(v, resource.Violation{
					Path: fmt.Sprintf("$.%s[%d]", name, i), Rule: "bounds.wider",
					Message: "is wider than your own bounds; those " + name + " are " + strings.Join(outer, ", "),
				})
			}
		}
		return list
	}
	out.Owners = one("owners", b.Owners, his.Owners, his.owns)
	out.Gateways = one("gateways", b.Gateways, his.Gateways, func(x string) bool { return slices.Contains(his.Gateways, x) })
	out.Kinds = one("kinds", b.Kinds, his.Kinds, func(x string) bool { return slices.Contains(his.Kinds, x) })
	out.Hosts = one("hosts", b.Hosts, his.Hosts, func(x string) bool {
		return slices.ContainsFunc(his.Hosts, func(suffix string) bool { return x == suffix || below(x, suffix) })
	})
	return out, v
}

// outside lists how an object is outside of the bounds, before a write or after it.
func (who Identity) outside(st *config.State, kind string, before, after *resource.Object) (out resource.Violations) {
	c := boundsCheck{who: who, st: st}
	if b := who.Bounds.Kinds; len(b) > 0 && !slices.Contains(b, kind) {
		c.add("$", "kinds", b, "is a "+kind)
		return c.found
	}
	if before != nil {
		c.when = " before this write"
		c.object(before, func(string) string { return "$" })
	}
	if after != nil && len(c.found) == 0 {
		c.when = ""
		c.object(after, func(path string) string { return path })
	}
	return c.found
}

// boundsCheck collects what is outside.
type boundsCheck struct {
	who   Identity
	st    *config.State
	when  string
	found resource.Violations
}

func (c *boundsCheck) add(path, bound string, within []string, what string) {
	c.found = append(c.found, resource.Violation{
		Path: path, Rule: "bounds." + bound,
		Message: fmt.Sprintf("%s%s, outside of the %s that %s is bound to (%s)", what, c.when, bound, c.who,
			strings.Join(within, ", ")),
	})
}

// object holds one object against the bounds. at makes the path of a field of the object.
func (c *boundsCheck) object(o *resource.Object, at func(string) string) {
	b := c.who.Bounds
	if len(b.Owners) > 0 {
		if !b.owns(o.Owner) {
			c.add(at("$.owner"), "owners", b.Owners, ownedBy(o.Owner))
		}
		c.references(o, at)
	}
	if len(b.Gateways) > 0 || len(b.Hosts) > 0 {
		c.reach(o, at)
	}
}

func ownedBy(owner string) string {
	if owner == "" {
		return "has no owner"
	}
	return "belongs to owner " + strconv.Quote(owner)
}

// owns says whether an owner is within the bounds.
func (b Bounds) owns(owner string) bool {
	return slices.ContainsFunc(b.Owners, func(prefix string) bool {
		rest, ok := strings.CutPrefix(owner, prefix)
		const between = ".-_:/"
		return ok && (rest == "" || strings.ContainsAny(rest[:1], between) ||
			strings.ContainsAny(prefix[len(prefix)-1:], between))
	})
}

// references finds what belongs to others. What has no owner is for everybody to refer to, but not to add to, and
// gateways have bounds of their own.
func (c *boundsCheck) references(o *resource.Object, at func(string) string) {
	for _, r := range config.References(o) {
		to := c.st.Get(r.To)
		if r.To.Kind == resource.KindGateway || to == nil || (to.Owner == "" && !r.Adds) || c.who.Bounds.owns(to.Owner) {
			continue
		}
		c.add(at("$.spec"+strings.TrimPrefix(r.Path(), "$")), "owners", c.who.Bounds.Owners, "refers to "+r.To.String()+
			", which "+ownedBy(to.Owner))
	}
}

// reach finds the hosts and gateways outside of the bounds whose requests an object has to do with: a route's own, and
// those of whoever refers to what has none, so that nobody changes another host's requests by the service behind them.
func (c *boundsCheck) reach(o *resource.Object, at func(string) string) {
	k := config.KindOf(o.Kind)
	if k.Reach == nil {
		c.users(o.Ref(), at)
		return
	}
	r := k.Reach(o)
	c.reached(r, func(path string) string {
		if path == "$" { // all of the object
			return at(path)
		}
		return at("$.spec" + strings.TrimPrefix(path, "$"))
	}, "")
	if r.Users {
		c.users(o.Ref(), at)
	}
	for _, to := range r.Of {
		c.users(to, at)
	}
}

// reached holds what an object has to do with itself against the bounds.
func (c *boundsCheck) reached(r config.Reach, at func(string) string, by string) {
	for _, g := range r.Gateways {
		c.gateway(at(g.Path), g.Name, by)
	}
	if why := r.EveryGateway; why != nil {
		c.everyGateway(at(why.Path), by+why.Words)
	}
	for _, h := range r.Hosts {
		c.host(at(h.Path), h.Name, by)
	}
	if why := r.EveryHost; why != nil {
		c.everyHost(at(why.Path), by+why.Words)
	}
}

// users follows those who refer to an object, up to the first that is outside.
func (c *boundsCheck) users(ref resource.Ref, at func(string) string) {
	for user := range c.st.EachUser(ref) {
		if len(c.found) > 0 {
			return
		}
		o, k := c.st.Get(user), config.KindOf(user.Kind)
		if k.Reach == nil { // a Service or an AuthPolicy, which is what others make of it
			c.users(user, at)
			continue
		}
		r := k.Reach(o)
		if ref.Kind == resource.KindCertificate && !trusted(o, ref) { // one that is presented has names of its own
			r.EveryHost = nil
		}
		c.reached(r, func(string) string { return at("$") }, "is used by "+user.String()+", which ")
		if r.Users {
			c.users(user, at)
		}
	}
}

// trusted says whether an object takes what a certificate has signed.
func trusted(o *resource.Object, certificate resource.Ref) bool {
	return slices.ContainsFunc(config.References(o), func(r config.Reference) bool {
		return r.To == certificate &&
			r.Trusted
	})
}

func (c *boundsCheck) gateway(path, name, by string) {
	if b := c.who.Bounds.Gateways; len(b) > 0 && !slices.Contains(b, name) {
		c.add(path, "gateways", b, by+"is on gateway "+strconv.Quote(name))
	}
}

func (c *boundsCheck) everyGateway(path, why string) {
	if b := c.who.Bounds.Gateways; len(b) > 0 {
		c.add(path, "gateways", b, why)
	}
}

func (c *boundsCheck) host(path, name, by string) {
	b := c.who.Bounds.Hosts
	if len(b) == 0 || slices.ContainsFunc(b, func(suffix string) bool { return below(name, suffix) }) {
		return
	}
	if name == config.AnyHost {
		c.add(path, "hosts", b, by+"serves every host that no other route names")
		return
	}
	c.add(path, "hosts", b, by+"serves host "+strconv.Quote(name))
}

func (c *boundsCheck) everyHost(path, why string) {
	if b := c.who.Bounds.Hosts; len(b) > 0 {
		c.add(path, "hosts", b, why)
	}
}

// below says whether a host, or all that a wildcard stands for, is within a suffix.
func below(host, suffix string) bool {
	if rest, ok := strings.CutPrefix(suffix, "."); ok {
		return strings.HasSuffix(host, "."+rest)
	}
	return host == suffix || strings.HasSuffix(host, "."+suffix)
}
