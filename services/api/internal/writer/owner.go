package writer

import (
	"fmt"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// The rule of owners, the same at every door: owner and labels stay unless a write says them. Whoever writes
// for an owner gets what that owner has and what nobody has; what another has only where the write says that
// it is taken over. Who writes for no owner may change and delete anything: owners keep tools apart, tokens
// keep people out.

// envelope is an object's owner and labels after a write.
func (d Desired) envelope(before *resource.Object) (owner string, labels map[string]string) {
	if before != nil {
		owner, labels = before.Owner, before.Labels
	}
	if d.Owner != nil {
		owner = *d.Owner
	}
	if d.Labels != nil {
		labels = d.Labels
	}
	return owner, labels
}

// foreign says in a sentence, of which the object is the subject, what is wrong where a write for an owner
// touches what another one has; "" where nothing. An owner of nil is not said, and an empty one nobody.
func foreign(before *resource.Object, owner *string) string {
	if before == nil || owner == nil || before.Owner == "" || *owner == "" || *owner == before.Owner {
		return ""
	}
	return fmt.Sprintf(
		"belongs to owner %q, not to %q; take_over=true (--take-over) takes it over, a write without an owner "+
			"leaves it with %q, or choose another name",
		before.Owner, *owner, before.Owner)
}

// foreigners are all of a plan's objects that another owner has.
func (w *Writer) foreigners(p Plan) (out resource.Violations) {
	if p.TakeOver {
		return nil
	}
	for _, d := range p.Upserts {
		if message := foreign(w.state.Get(d.Ref), d.Owner); message != "" {
			out = append(out, resource.Violation{Path: d.Path, Message: message, Rule: "owner"})
		}
	}
	for _, r := range p.Deletes {
		if message := foreign(w.state.Get(r), p.Owner); message != "" {
			out = append(out, resource.Violation{Path: "$", Message: r.String() + " " + message, Rule: "owner"})
		}
	}
	return out
}
