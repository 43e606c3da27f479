package identity

import (
	"crypto/tls"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Lasting are a listener's connections, which [Identity.Server] ends when the certificate does that the client has
// shown: a handshake alone would let a stream of years outlive it.
func Lasting(lis net.Listener, log *zap.Logger) net.Listener { return &lasting{lis, log} }

type lasting struct {
	net.Listener
	log *zap.Logger
}

// Accept implements [net.Listener].
func (l *lasting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &bounded{Conn: c, log: l.log}, nil
}

// bounded is a connection that may end by itself.
type bounded struct {
	net.Conn
	log *zap.Logger

	mu     sync.Mutex
	closed bool
	timer  *time.Timer
}

// look is how often the clock is looked at: a timer does not see that the clock was set, or that the machine slept.
const look = time.Minute

// until closes the connection when the time has come.
func (b *bounded) until(end time.Time, who string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := time.Until(end)
	if b.closed {
		return
	}
	b.timer = time.AfterFunc(min(max(left, 0), look), func() {
		if time.Until(end) > 0 {
			b.until(end, who)
			return
		}
		b.log.Warn("a client's certificate has ended; its connection ends", zap.String("of", who), zap.Time("at", end))
		_ = b.Close() // it may be gone
	})
}

// Close implements [net.Conn].
func (b *bounded) Close() error {
	b.mu.Lock()
	b.closed = true
	if b.timer != nil {
		b.timer.Stop()
	}
	b.mu.Unlock()
	return b.Conn.Close()
}

// ends is when a client's certificate ends, or one that it hangs on: the last of its chains.
func ends(s tls.ConnectionState) (end time.Time) {
	for _, chain := range s.VerifiedChains {
		first := chain[0].NotAfter
		for _, c := range chain {
			if c.NotAfter.Before(first) {
				first = c.NotAfter
			}
		}
		if first.After(end) {
			end = first
		}
	}
	return end
}
