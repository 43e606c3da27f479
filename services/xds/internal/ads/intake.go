package ads

import (
	"slices"
	"time"
)

// An Envoy that comes, and one that has much to be told of, costs memory for everything that it has not got yet. When
// all of them come back at once, after a restart of this server or of a network, they are brought up to date some
// at a time, in the order in which they came; the others wait, at the price of their connection, with what they have.

const (
	// far is how many resources a stream may be behind that needs no turn.
	far = 256
	// turns is how many streams have one at once.
	turns = 32
	// patience is how long a stream keeps its turn without a word of its Envoy: after that it goes on without.
	patience = 2 * time.Second
)

// intake gives the turns out. It belongs to the gateway's lock.
type intake struct {
	// holders have a turn, and were heard of last at that time.
	holders map[*stream]time.Time
	waiting []*stream
}

// admit says whether a stream may go on, and otherwise when to ask again at the latest.
func (in *intake) admit(s *stream, now time.Time) (time.Duration, bool) {
	if !s.far() {
		return time.Hour, true
	}
	if _, has := in.holders[s]; has {
		return time.Hour, true
	}
	at := slices.Index(in.waiting, s)
	if at < 0 {
		at = len(in.waiting)
		in.waiting = append(in.waiting, s)
	}
	if at > 0 {
		return time.Hour, false
	}
	wait := patience
	for h, heard := range in.holders {
		left := heard.Add(patience).Sub(now)
		if left <= 0 {
			delete(in.holders, h)
			continue
		}
		wait = min(wait, left)
	}
	if len(in.holders) >= turns {
		return wait, false
	}
	in.waiting = in.waiting[1:]
	in.holders[s] = now
	s.admitted, s.goal = true, s.g.revision
	in.next()
	return time.Hour, true
}

// heard notes that an Envoy has said something.
func (in *intake) heard(s *stream, now time.Time) {
	if _, has := in.holders[s]; has {
		in.holders[s] = now
	}
}

// settle ends the turn of a stream whose Envoy has what there was.
func (in *intake) settle(s *stream, applied int64) {
	if _, has := in.holders[s]; has && applied >= s.goal {
		delete(in.holders, s)
		in.next()
	}
}

// leave forgets a stream.
func (in *intake) leave(s *stream) {
	delete(in.holders, s)
	in.waiting = slices.DeleteFunc(in.waiting, func(o *stream) bool { return o == s })
	in.next()
}

func (in *intake) next() {
	if len(in.waiting) > 0 {
		in.waiting[0].wakeUp()
	}
}

// far says whether a stream is so far behind that it needs a turn.
func (s *stream) far() bool {
	if s.g.tail.number-s.at.number > far {
		return true
	}
	if s.admitted {
		return false
	}
	all := 0
	for _, k := range s.g.kinds {
		all += k.served
	}
	s.admitted = all <= far
	return !s.admitted
}
