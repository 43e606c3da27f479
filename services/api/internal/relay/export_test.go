package relay

import "time"

// SetSpoken makes little of what takes long, for a test, until the function that it returns is called.
func SetSpoken(d time.Duration) (back func()) {
	was := spoken
	spoken = d
	return func() { spoken = was }
}
