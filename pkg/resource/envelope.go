package resource

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// ownerName is what api.proto says of Object.owner.
var ownerName = regexp.MustCompile(`^[A-Za-z0-9._:/-]{0,63}$`)

// CheckEnvelope checks what stands around a spec; paths are below $.
func CheckEnvelope(owner string, labels map[string]string) Violations {
	v := CheckOwner(owner)
	if len(labels) > 32 {
		v = append(v, Violation{Path: "$.labels", Message: "are more than 32", Rule: "labels"})
	}
	for name, value := range labels {
		if name == "" || utf8.RuneCountInString(name) > 63 || utf8.RuneCountInString(value) > 256 ||
			strings.ContainsRune(name+value, 0) {
			v = append(v, Violation{Path: fmt.Sprintf("$.labels[%q]", name), Message: "has a name of 1 to 63 and a value of " +
				"at most 256 characters", Rule: "labels"})
		}
	}
	slices.SortStableFunc(v, func(a, b Violation) int { return strings.Compare(a.Path, b.Path) })
	return v
}

// CheckOwner checks an owner's name; the empty one is nobody's.
func CheckOwner(owner string) Violations {
	if ownerName.MatchString(owner) {
		return nil
	}
	return Violations{{Path: "$.owner", Message: "must be at most 63 letters, digits and any of . _ : / -", Rule: "owner"}}
}
