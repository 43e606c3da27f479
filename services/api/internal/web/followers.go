package web

import (
	"net/http"
	"sync"
)

// maxFollowers is how many streams one token or user may have open at a time, of events and the access log, and exports of the audit.
const maxFollowers = 100

// followers counts the streams by whose they are, and wakes them when a token, a session or a user has ended.
type followers struct {
	deleted Signal

	mu     sync.Mutex
	byName map[string]int
}

// join counts one more of somebody's, unless there are too many.
func (f *followers) join(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byName[name] >= maxFollowers {
		return wrong(http.StatusTooManyRequests, "%s has %d streams of events, access logs or exports open, and may have "+
			"no more; close "+
			"some", name, maxFollowers)
	}
	if f.byName == nil {
		f.byName = map[string]int{}
	}
	f.byName[name]++
	return nil
}

func (f *followers) leave(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byName[name]--; f.byName[name] == 0 {
		delete(f.byName, name)
	}
}
