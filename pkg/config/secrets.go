package config

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Absent stands for a missing secret, so that everything else can be checked all the same.
const Absent = "missing"

// SecretWrite is a write of a spec that has secrets: those that are sealed when it is stored are open in it, and those
// that are hashed are hashed already.
type SecretWrite struct {
	// Spec is to be changed.
	Spec proto.Message
	// Before is the spec before, as it is stored; nil where there is none.
	Before proto.Message
	// Found is what is wrong, with paths below $.
	Found resource.Violations

	kept map[string]bool
}

// Keep takes a secret that is stored, where the write has left it out.
func (w *SecretWrite) Keep(s resource.Secret, plain string) {
	s.Set(plain)
	if w.kept == nil {
		w.kept = map[string]bool{}
	}
	w.kept[s.Field] = true
}

// Kept says whether a secret is the stored one, which the write has left out.
func (w *SecretWrite) Kept(field string) bool { return w.kept[field] }

// Fail notes what is wrong.
func (w *SecretWrite) Fail(path, rule, message string) {
	w.Found = append(w.Found, resource.Violation{Path: path, Message: message, Rule: rule})
}

// Missing notes a secret that is neither given nor stored.
func (w *SecretWrite) Missing(path, message string) { w.Fail(path, resource.MissingSecret, message) }

// Lacks says whether a secret was found missing at a path.
func (w *SecretWrite) Lacks(path string) bool {
	return slices.ContainsFunc(w.Found, func(v resource.Violation) bool {
		return v.Path == path &&
			v.Rule == resource.MissingSecret
	})
}

// OnlyMissing says whether all that is wrong is that secrets are missing.
func (w *SecretWrite) OnlyMissing() bool { return OnlyMissing(w.Found) }

// OnlyMissing says whether all that is wrong is that secrets are missing.
func OnlyMissing(v resource.Violations) bool {
	return !slices.ContainsFunc(v, func(x resource.Violation) bool { return x.Rule != resource.MissingSecret })
}
