package envoyadmin

import (
	"testing"
	"time"
)

// SetStall is how long nothing of an answer may come or be taken, until the test ends.
func SetStall(t *testing.T, d time.Duration) {
	was := stall
	stall = d
	t.Cleanup(func() { stall = was })
}
