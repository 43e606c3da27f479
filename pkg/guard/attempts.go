package guard

import (
	"crypto/sha256"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// tries are how many wrong secrets an address may send at once, and one more each pause.
	tries = 20
	pause = time.Second
	// remembered bounds both tables: what is forgotten begins with all its tries, or has to be looked up again.
	remembered = 10_000
	// trusted is how long a secret that was right is looked at without delay, even while others guess from its address.
	trusted = time.Hour
	// quiet is how long the log says nothing more of an address.
	quiet = 10 * time.Second
)

// Attempts slows down who guesses secrets, by address. A secret that has been right lately is never slowed down.
type Attempts struct {
	log *zap.Logger
	now func() time.Time

	wrong, slowed atomic.Int64

	mu      sync.Mutex
	sources map[netip.Addr]*guesser
	right   map[[sha256.Size]byte]time.Time
}

type guesser struct {
	left   float64 // tries
	at     time.Time
	logged time.Time
	silent int // wrong ones that the log has not told of
}

// NewAttempts returns a table without entries. Its log tells of wrong secrets, without them.
func NewAttempts(log *zap.Logger) *Attempts {
	return &Attempts{log: log, now: time.Now, sources: map[netip.Addr]*guesser{}, right: map[[sha256.Size]byte]time.Time{}}
}

// Wrong counts the secrets that were wrong or missing.
func (a *Attempts) Wrong() int64 { return a.wrong.Load() }

// Slowed counts secrets that were not looked at, because too many wrong ones had come from their address.
func (a *Attempts) Slowed() int64 { return a.slowed.Load() }

// Look says whether a secret from an address (host:port) is to be looked at; if not, after how long the next one is.
func (a *Attempts) Look(remote, secret string) (wait time.Duration, look bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if secret == "" {
		return 0, true // there is nothing to guess, and nothing to look up
	}
	now := a.now()
	if t, known := a.right[sha256.Sum256([]byte(secret))]; known && now.Sub(t) < trusted {
		return 0, true
	}
	g := a.sources[Source(remote)]
	if g == nil || g.fill(now) >= 1 {
		return 0, true
	}
	a.slowed.Add(1)
	return time.Duration((1 - g.left) * float64(pause)).Round(time.Millisecond), false
}

// fill gives back the tries that have come since.
func (g *guesser) fill(now time.Time) float64 {
	g.left = min(tries, g.left+float64(now.Sub(g.at))/float64(pause))
	g.at = now
	return g.left
}

// Failed notes that a secret from an address was wrong, or missing; door says which of the server's doors it was for.
func (a *Attempts) Failed(remote, secret, door string) {
	a.wrong.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	now, from := a.now(), Source(remote)
	g := a.sources[from]
	if g == nil {
		if len(a.sources) >= remembered {
			a.sweep(now)
		}
		g = &guesser{left: tries, at: now}
		a.sources[from] = g
	}
	if g.fill(now); secret != "" {
		g.left = max(0, g.left-1)
	}
	g.silent++
	if a.log != nil && now.Sub(g.logged) >= quiet {
		a.log.Warn("a wrong or missing credential was refused", zap.Stringer("address", from), zap.String("door", door),
			zap.Int("times", g.silent))
		g.logged, g.silent = now, 0
	}
}

// Passed notes that a secret was right.
func (a *Attempts) Passed(secret string) {
	if secret == "" {
		return
	}
	sum := sha256.Sum256([]byte(secret))
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if _, known := a.right[sum]; !known && len(a.right) >= remembered {
		maps.DeleteFunc(a.right, func(_ [sha256.Size]byte, t time.Time) bool { return now.Sub(t) >= trusted })
		if len(a.right) >= remembered {
			return
		}
	}
	a.right[sum] = now
}

// sweep makes room in the table: addresses that have all their tries again are forgotten first, as that changes nothing
// for them, and if there is none, others at random.
func (a *Attempts) sweep(now time.Time) {
	maps.DeleteFunc(a.sources, func(_ netip.Addr, g *guesser) bool { return g.fill(now) >= tries })
	for from := range a.sources {
		if len(a.sources) < remembered {
			return
		}
		delete(a.sources, from)
	}
}
