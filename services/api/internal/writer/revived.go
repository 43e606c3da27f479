package writer

import (
	"time"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Credential is one that opens something again when an object of the history comes back.
type Credential struct {
	// Object that has it, and Path where it stands in that.
	Object resource.Ref
	Path   string
	// What it is, in words that go after the object's name: api_key "old".
	What string
}

// Revived lists the credentials that a stored object of the history has, and the present one has not; now is nil where
// there is none. Somebody took them away, or let them end: because they were lost, perhaps.
func (w *Writer) Revived(now, then *resource.Object) (out []Credential) {
	k := config.KindOf(then.Kind)
	if k.Credentials == nil {
		return nil
	}
	// What cannot be opened is the same where its text is.
	open := func(sealed, field string) string {
		if plain, err := w.box.Open(sealed, then.Kind, then.Name, field); err == nil {
			return plain
		}
		return sealed
	}
	has := map[string]config.Credential{}
	if now != nil {
		for _, c := range k.Credentials(now, open) {
			has[c.ID] = c
		}
	}
	for _, c := range k.Credentials(then, open) {
		if is, there := has[c.ID]; !there || longer(is.NotAfter, c.NotAfter) {
			out = append(out, Credential{then.Ref(), c.Path, c.What})
		}
	}
	return out
}

// longer says whether an end is later than one that there is; "" is no end.
func longer(end, other string) bool {
	if end == "" || end == other {
		return false
	}
	a, err := time.Parse(time.RFC3339, end)
	b, failed := time.Parse(time.RFC3339, other)
	return other == "" || err != nil || failed != nil || b.After(a)
}
