package process

import "runtime/debug"

// headroom is how much the memory may grow, in percent of what is in use, before garbage is collected. Go's own is 100,
// for programs that throw away most of what they make. Nearly everything stays in those that have the whole
// configuration in memory, and a change makes little, so that a third of the memory is saved for a collection once in
// minutes.
const headroom = 30

// Sparing has a program that has the whole configuration in memory leave less room for garbage, unless GOGC says how much.
func Sparing(lookup func(string) (string, bool)) {
	if _, set := lookup("GOGC"); !set {
		debug.SetGCPercent(headroom)
	}
}
