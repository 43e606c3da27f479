package config

import (
	"fmt"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

// Reference is one object's mention of another.
type Reference struct {
	To resource.Ref
	// Trusted says of a certificate that it is not presented: clients' or servers' certificates must come from it.
	Trusted bool
	// Adds says that the object adds to the other one, which concerns whoever refers to that.
	Adds bool
	path string // with a %d for each place in a list
	at   [3]int
}

// Path is where it stands in the spec: $.backends[0].service.
func (r Reference) Path() string {
	args := make([]any, strings.Count(r.path, "%d"))
	for i := range args {
		args[i] = r.at[i]
	}
	return fmt.Sprintf(r.path, args...)
}

// refs collects references.
type refs struct {
	found []Reference
	// common is how many references each long list begins and ends with that are to be left out; nil for none.
	common [][2]int
}

// add notes what stands at a path, if anything does.
func (r *refs) add(kind, name, path string, at ...int) {
	if name != "" {
		x := Reference{To: resource.Ref{Kind: kind, Name: name}, path: path}
		copy(x.at[:], at)
		r.found = append(r.found, x)
	}
}

// trust notes a certificate that is not presented.
func (r *refs) trust(name, path string, at ...int) {
	if name != "" {
		r.add(resource.KindCertificate, name, path, at...)
		r.found[len(r.found)-1].Trusted = true
	}
}

// References lists what an object refers to.
func References(o *resource.Object) []Reference { return references(o, nil) }

func references(o *resource.Object, common [][2]int) []Reference {
	r := refs{common: common}
	if k := KindOf(o.Kind); k.references != nil {
		k.references(o, &r)
	}
	return r.found
}

// differ finds the references that a change takes away and adds. What its lists have in common at their ends is left
// out, so that a long list costs a comparison; of what lies between, everything is taken away and added.
func differ(c Change) (gone, come []Reference) {
	var common [][2]int
	if k := KindOf(c.Ref().Kind); k.common != nil && c.Before != nil && c.After != nil {
		common = k.common(c.Before, c.After)
	}
	if c.Before != nil {
		gone = references(c.Before, common)
	}
	if c.After != nil {
		come = references(c.After, common)
	}
	equal := func(a, b Reference) bool { return a.To == b.To && a.Trusted == b.Trusted }
	from, to := servername.Common(gone, come, equal)
	return gone[from : len(gone)-to], come[from : len(come)-to]
}
