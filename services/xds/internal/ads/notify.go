package ads

import "time"

// notifyDelay is how long a notification that nobody waits for may take: a change makes every stream move, and each
// notification costs a look at all of them.
const notifyDelay = 50 * time.Millisecond

// levels counts the streams by what they have applied.
type levels struct {
	count map[int64]int
	// lowest of them; 0 without any.
	lowest int64
}

// move takes a stream from one level to another, -1 for none, and says whether the lowest is another now.
func (l *levels) move(from, to int64) bool {
	if l.count == nil {
		l.count = map[int64]int{}
	}
	if to >= 0 {
		l.count[to]++
	}
	if from >= 0 {
		if l.count[from]--; l.count[from] == 0 {
			delete(l.count, from)
		}
	}
	was := l.lowest
	if l.count[was] > 0 && (to < 0 || to >= was) {
		return false
	}
	l.lowest = 0
	first := true
	for level := range l.count {
		if first || level < l.lowest {
			first, l.lowest = false, level
		}
	}
	return l.lowest != was
}

// notify says that there may be something new: at once where somebody may wait for it, or a little later with what
// comes until then.
func (g *Gateway) notify(urgent bool) {
	if urgent {
		g.opt.OnChange()
		return
	}
	if g.notifying.CompareAndSwap(false, true) {
		time.AfterFunc(notifyDelay, func() {
			g.notifying.Store(false)
			g.opt.OnChange()
		})
	}
}
