// Package racetest says whether a test runs under the race detector, where code is five to twenty times slower.
// Packages that work through a corpus take a smaller one then: a race shows in a part of it as well as in all.
// Deadlines that only say that something does not take forever are longer then; one that is a promise stays what it is.
package racetest

import "time"

// slower is how much longer what a test waits for may take under the race detector.
const slower = 10

// Deadline is d, or longer under the race detector. It is for how long a test waits at most, never for what the product
// has promised.
func Deadline(d time.Duration) time.Duration {
	if Enabled {
		return slower * d
	}
	return d
}
