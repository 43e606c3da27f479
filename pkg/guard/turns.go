package guard

import (
	"net/http"
	"time"
)

// AtATime lets so many requests be answered at a time. Others wait for a turn as long as the patience, and are then
// told to come again (503).
func AtATime(most int, patience time.Duration, next http.Handler) http.Handler {
	turns := make(chan struct{}, most)
	turn := func() bool {
		select {
		case turns <- struct{}{}:
			return true
		default:
		}
		if patience == 0 {
			return false
		}
		select {
		case turns <- struct{}{}:
			return true
		case <-time.After(patience):
			return false
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !turn() {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "others are being answered; try again", http.StatusServiceUnavailable)
			return
		}
		defer func() { <-turns }()
		next.ServeHTTP(w, r)
	})
}
