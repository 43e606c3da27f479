package process

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// headroom is how much the memory may grow, in percent of what is in use, before garbage is collected. Go's own is
	// 100, for programs that throw away most of what they make. Nearly everything stays in those that have the whole
	// configuration in memory, and a change makes little, so that much of the memory is saved for a collection once in
	// minutes.
	headroom = 25
	// room is how much it may grow at least, in bytes: a quarter of a small configuration would be full after a few
	// hundred changes, and collections the dearest part of them.
	room = 32 << 20
)

// Sparing has a program that has the whole configuration in memory leave less room for garbage, unless GOGC says how
// much.
func Sparing(lookup func(string) (string, bool)) {
	if _, set := lookup("GOGC"); !set {
		debug.SetGCPercent(headroom)
		again(&collected{percent: headroom})
	}
}

// collected is garbage as soon as it is made, which is how a program learns of each collection.
type collected struct {
	percent int
	_       *byte // small objects without a pointer would be kept by others
}

// again has the room measured out after the next collection.
func again(c *collected) {
	runtime.SetFinalizer(c, func(c *collected) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		// Another percentage stops everything for a moment, too.
		if p := percent(live[0].Value.Uint64()); p < 9*c.percent/10 || p > 11*c.percent/10 {
			c.percent = p
			debug.SetGCPercent(p)
		}
		again(c)
	})
}

// percent is what is left for garbage beside so many bytes that are in use, in percent of them.
func percent(live uint64) int {
	return int(max(headroom, 100*room/max(live, 1<<20)))
}
