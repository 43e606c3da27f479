package auth

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

// Bounds are what a token may write: only what is within all of those that are not empty, before the write and after
// it. Reads are not bound.
type Bounds api.TokenBounds

// Empty says that there are none.
func (b Bounds) Empty() bool { return len(b.Owners)+len(b.Gateways)+len(b.Kinds)+len(b.Hosts) == 0 }

// maxBounds is how many of each sort a token has at most: each write is held against them.
const maxBounds = 64

var (
	ownerPrefix = regexp.MustCompile(`^[A-Za-z0-9._:/-]{1,63}$`)
	hostSuffix  = regexp.MustCompile(`^\.?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)
)

// Validate finds what is wrong with them; paths are below $.
func (b Bounds) Validate() (v resource.Violations) {
	check := func(name string, list []string, wrong func(string) string) {
		if len(list) > maxBounds {
			v = append(v, resource.Violation{Path: "$." + name, Message: fmt.Sprintf("are more than %d", maxBounds), Rule: "bounds"})
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
		Message: fmt.Sprintf("%s%s, outside of the %s that token %q is bound to (%s)", what, c.when, bound, c.who.Name, strings.Join(within, ", ")),
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
		return ok && (rest == "" || strings.ContainsAny(rest[:1], between) || strings.ContainsAny(prefix[len(prefix)-1:], between))
	})
}

// references finds what belongs to others. What has no owner is for everybody, and gateways have bounds of their own.
func (c *boundsCheck) references(o *resource.Object, at func(string) string) {
	for _, r := range config.References(o) {
		to := c.st.Get(r.To)
		if r.To.Kind == resource.KindGateway || to == nil || to.Owner == "" || c.who.Bounds.owns(to.Owner) {
			continue
		}
		c.add(at("$.spec"+strings.TrimPrefix(r.Path(), "$")), "owners", c.who.Bounds.Owners, "refers to "+r.To.String()+", which "+ownedBy(to.Owner))
	}
}

// reach finds the hosts and gateways outside of the bounds whose requests an object has to do with: a route's own, and
// those of whoever refers to what has none, so that nobody changes another host's requests by the service behind them.
func (c *boundsCheck) reach(o *resource.Object, at func(string) string) {
	switch m := o.Message().(type) {
	case *configv1.Route:
		for i, g := range config.Gateways(m) {
			c.gateway(at(fmt.Sprintf("$.spec.gateways[%d]", i)), g, "")
		}
		for i, h := range config.Hosts(m) {
			c.host(at(fmt.Sprintf("$.spec.hosts[%d]", i)), h, "")
		}
	case *configv1.Gateway:
		c.gateway(at("$"), o.Name, "")
		c.everyHost(at("$"), "serves every host")
	case *configv1.RateLimitPolicy:
		// Its packets are counted by nodes, and a node does not tell a gateway's packets from another's.
		c.everyGateway(at("$"), "holds for nodes, whatever gateways are on them")
		c.everyHost(at("$"), "holds for every host")
	case *configv1.Certificate:
		for i, g := range servername.Gateways(m) {
			c.gateway(at(fmt.Sprintf("$.spec.gateways[%d]", i)), g, "")
		}
		names := servername.Read(o).Names()
		for _, h := range names {
			c.host(at("$.spec.chain"), h, "")
		}
		if len(names) == 0 && m.GetPrivateKey() != "" {
			c.everyHost(at("$.spec.chain"), "names no host")
		}
		c.users(o.Ref(), at)
	default:
		c.users(o.Ref(), at)
	}
}

// users follows those who refer to an object, up to the first that is outside.
func (c *boundsCheck) users(ref resource.Ref, at func(string) string) {
	for user := range c.st.EachUser(ref) {
		if len(c.found) > 0 {
			return
		}
		o := c.st.Get(user)
		by := "is used by " + user.String() + ", which "
		switch m := o.Message().(type) {
		case *configv1.Route:
			for _, g := range config.Gateways(m) {
				c.gateway(at("$"), g, by)
			}
			for _, h := range config.Hosts(m) {
				c.host(at("$"), h, by)
			}
		case *configv1.Gateway:
			c.gateway(at("$"), user.Name, by)
			if ref.Kind != resource.KindCertificate || trusted(o, ref) { // one that is presented has names of its own
				c.everyHost(at("$"), by+"serves every host")
			}
		default: // a Service or an AuthPolicy, which is what others make of it
			c.users(user, at)
		}
	}
}

// trusted says whether an object takes what a certificate has signed.
func trusted(o *resource.Object, certificate resource.Ref) bool {
	return slices.ContainsFunc(config.References(o), func(r config.Reference) bool { return r.To == certificate && r.Trusted })
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
