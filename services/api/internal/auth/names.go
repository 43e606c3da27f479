package auth

import (
	"regexp"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// userName is a label, or what providers call people: an address of e-mail.
var userName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._@-]*[a-z0-9])?$`)

// CheckUserName says what is wrong with a user's name, and "" where it can be taken.
func CheckUserName(name string) string {
	switch {
	case len(name) > 63 || !userName.MatchString(name):
		return "must be 1 to 63 of a-z, 0-9 and, not at its ends, . _ @ -"
	case Reserved(name):
		return "is the name of an actor of the system's own; choose another one"
	}
	return ""
}

// CheckScope finds what is wrong with the role and the bounds that somebody is to have, a token or a user; paths are
// below $.
func CheckScope(role string, bounds Bounds) (v resource.Violations) {
	if rank[role] == 0 {
		v = append(v, resource.Violation{Path: "$.role", Message: "must be viewer, editor, operator or admin", Rule: "role"})
	}
	v = append(v, bounds.Validate().Under("$.bounds")...)
	if bounds.Empty() {
		return v
	}
	if role == Admin {
		v = append(v, resource.Violation{
			Path: "$.bounds", Rule: "bounds", Message: "cannot hold for the role admin, which makes tokens without any; leave " +
				"them out, or give the role operator",
		})
	}
	return v
}
