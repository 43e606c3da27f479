package auth

import (
	"fmt"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Roles, by what can be harmed with them; each may do what those before it may.
const (
	// Viewer reads everything but secrets and tokens.
	Viewer = "viewer"
	// Editor writes routes and services.
	Editor = "editor"
	// Operator writes the rest of the configuration: what opens the proxies and holds their secrets.
	Operator = "operator"
	// Admin makes and deletes tokens and users.
	Admin = "admin"
)

// Roles lists them, the least first.
var Roles = []string{Viewer, Editor, Operator, Admin}

var rank = map[string]int{Viewer: 1, Editor: 2, Operator: 3, Admin: 4}

// Least is the lesser of two roles; "" is less than any.
func Least(a, b string) string {
	if rank[b] < rank[a] {
		return b
	}
	return a
}

// Greater is the greater of two roles.
func Greater(a, b string) string {
	if rank[b] > rank[a] {
		return b
	}
	return a
}

// ToWrite is the role that writing a kind needs.
func ToWrite(kind string) string {
	if config.KindOf(kind).Traffic {
		return Editor
	}
	return Operator
}

// Operation is what is asked for.
type Operation struct {
	// Role that it needs at the least. The write of an object needs what [ToWrite] says as well.
	Role string
	// Kind that it writes, where that is known before the objects are; "" otherwise.
	Kind string
	// Reads says that the objects are only looked at: writing their kind is not what is asked for. Bounds hold all the
	// same.
	Reads bool
}

// Check is the one decision on what may be done, for every door: who asks for an operation, and an object before and
// after it. Both are nil at the door itself, before the objects are known; before is nil on create and after on
// delete. The state is that which the write follows, under the lock under which it is stored. It returns what is
// refused, and nothing where all is allowed; paths are those of the object: $.spec.hosts[0].
func Check(who Identity, op Operation, st *config.State, before, after *resource.Object) resource.Violations {
	if who.Of != nil {
		if v := Check(*who.Of, op, st, before, after); len(v) > 0 {
			return v
		}
	}
	need := op.Role
	kind := op.Kind
	for _, o := range []*resource.Object{before, after} {
		if o != nil {
			kind = o.Kind
		}
	}
	if kind != "" && !op.Reads && rank[ToWrite(kind)] > rank[need] {
		need = ToWrite(kind)
	}
	if rank[need] == 0 || rank[who.Role] < rank[need] {
		return resource.Violations{{Path: "$", Message: who.lacks(need, kind), Rule: "role"}}
	}
	if config.KindOf(kind).System && !op.Reads && (who.ID != "" || who.Name != SystemName) {
		return resource.Violations{{Path: "$", Rule: "role", Message: "a " + kind + " is written by the server alone"}}
	}
	if kind == "" || who.Bounds.Empty() {
		return nil
	}
	return who.outside(st, kind, before, after)
}

func (who Identity) lacks(need, kind string) string {
	what := "this"
	if kind != "" {
		what = "writing a " + kind
	}
	if who.Role == "" {
		return fmt.Sprintf("%s has no role any more; %s needs %s", who, what, need)
	}
	return fmt.Sprintf("%s has the role %s; %s needs %s", who, who.Role, what, need)
}
