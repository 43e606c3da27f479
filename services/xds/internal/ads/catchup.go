package ads

import (
	"slices"
	"time"
)

// An Envoy that comes, and one that lacks much, costs memory for everything that it has not got yet: a record for each
// resource, and the responses on their way. When all Envoys come back at once, after a restart of this server or of a
// network, that would be more than all that the server needs otherwise. So they catch up some at a time, in the order
// in which they came. The others wait with what they have, and cost no more than their connection.

const (
	// farBehind is how many resources a stream may be behind that needs no turn.
	farBehind = 256
	// turns is how many streams catch up at once.
	turns = 32
	// patience is how long a stream keeps its turn while its Envoy says nothing. After that the next stream gets a turn,
	// so that Envoys that hang hold up nobody, and this one goes on without.
	patience = 2 * time.Second
)

// catchUp gives the turns out. It belongs to the gateway's lock.
type catchUp struct {
	// active have a turn, and were heard of last at that time.
	active map[*deltaStream]time.Time
	// waiting are those without one, which say so in queued; who has come first is the first.
	waiting []*deltaStream
}

// admit says whether a stream may go on, and otherwise when to ask again at the latest.
func (in *catchUp) admit(s *deltaStream, now time.Time) (time.Duration, bool) {
	if !s.farBehind() {
		// A stream that waits looks at the changes all the same when its Envoy says something or when it is too far
		// behind. Left in the queue it would get a turn that it never takes, and those after it none.
		in.giveUpPlace(s)
		s.admitted = true
		return time.Hour, true
	}
	if _, has := in.active[s]; has {
		return time.Hour, true
	}
	if !s.queued {
		s.queued = true
		in.waiting = append(in.waiting, s)
	}
	if in.waiting[0] != s {
		return time.Hour, false
	}
	wait := patience
	for h, heard := range in.active {
		left := heard.Add(patience).Sub(now)
		if left <= 0 {
			delete(in.active, h)
			continue
		}
		wait = min(wait, left)
	}
	if len(in.active) >= turns {
		return wait, false
	}
	in.active[s] = now
	s.admitted, s.goal = true, s.g.table.revision
	in.giveUpPlace(s)
	return time.Hour, true
}

// heard notes that an Envoy has said something.
func (in *catchUp) heard(s *deltaStream, now time.Time) {
	if _, has := in.active[s]; has {
		in.active[s] = now
	}
}

// settle ends the turn of a stream whose Envoy has what there was.
func (in *catchUp) settle(s *deltaStream, applied int64) {
	if _, has := in.active[s]; has && applied >= s.goal {
		delete(in.active, s)
		in.next()
	}
}

// leave forgets a stream.
func (in *catchUp) leave(s *deltaStream) {
	delete(in.active, s)
	in.giveUpPlace(s)
	in.next()
}

// giveUpPlace takes a stream out of the queue, if it is there, and has the next one look whether there is a turn.
func (in *catchUp) giveUpPlace(s *deltaStream) {
	if !s.queued {
		return
	}
	s.queued = false
	at := slices.Index(in.waiting, s)
	in.waiting = slices.Delete(in.waiting, at, at+1)
	in.next()
}

func (in *catchUp) next() {
	if len(in.waiting) > 0 {
		in.waiting[0].wake()
	}
}

// farBehind says whether a stream is so far behind that it needs a turn: it has not looked at so many changes, or has
// come and there is that much to look at.
func (s *deltaStream) farBehind() bool {
	return s.plan.lag() > farBehind || (!s.admitted && s.g.table.servedCount() > farBehind)
}
