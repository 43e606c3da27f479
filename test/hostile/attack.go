package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Target is a server's door.
type Target struct {
	// Addr is host:port, and Path what is asked for.
	Addr, Path string
	// Headers are sent with each request, one a line: wrong credentials, for instance.
	Headers []string
	// From are the addresses that an attack comes from, in turn; 127.0.0.2 where there are none.
	From []string
}

// Many is that many addresses of this machine.
func Many(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("127.9.%d.%d", i>>8&255, i&255)
	}
	return out
}

// Attack is one way to do harm.
type Attack struct {
	Name string
	// AtATime is how many connections it holds, and PerSecond how many of them it begins.
	AtATime, PerSecond int
	// one is what it does with a connection, until that is closed or the context ends.
	one func(ctx context.Context, t Target, c net.Conn) error
}

// Done is what has become of an attack: how many connections it has begun, how many of them the server closed or
// answered, and how many could not even be made.
type Done struct{ Begun, Ended, Refused int64 }

// Run attacks until the context ends.
func (a Attack) Run(ctx context.Context, t Target) Done {
	from := t.From
	if len(from) == 0 {
		from = []string{"127.0.0.2"}
	}
	var d struct{ begun, ended, refused atomic.Int64 }
	turns := make(chan int)
	var all sync.WaitGroup
	for range a.AtATime {
		all.Go(func() {
			for n := range turns {
				dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from[n%len(from)])}, Timeout: 5 * time.Second}
				c, err := dialer.DialContext(ctx, "tcp", t.Addr)
				if err != nil {
					d.refused.Add(1)
					continue
				}
				d.begun.Add(1)
				stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // whoever waits on it is woken
				if a.one(ctx, t, c) != nil || ctx.Err() == nil {
					d.ended.Add(1)
				}
				stop()
				_ = c.Close() // the server may have
			}
		})
	}
	tick := time.NewTicker(time.Second / time.Duration(a.PerSecond))
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		select {
		case <-ctx.Done():
		case <-tick.C:
			select {
			case <-ctx.Done():
			case turns <- n:
			}
		}
	}
	close(turns)
	all.Wait()
	return Done{d.begun.Load(), d.ended.Load(), d.refused.Load()}
}

// pause is how long a slow client says nothing.
const pause = 3 * time.Second

// trickle writes a piece now and then, until the server answers or closes the connection.
func trickle(ctx context.Context, c net.Conn, piece func(n int) []byte) error {
	answer := make([]byte, 4096)
	for n := 0; ctx.Err() == nil; n++ {
		if _, err := c.Write(piece(n)); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(pause)); err != nil {
			return err
		}
		if _, err := c.Read(answer); !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return nil
}

// request is one without the empty line at the end of its headers.
func request(t Target, method string, headers ...string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n%s%s", method, t.Path, t.Addr, lines(t.Headers), lines(headers))
}

func lines(headers []string) string {
	var b strings.Builder
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	return b.String()
}

// SlowHeaders sends a header now and then.
func SlowHeaders(n int) Attack {
	return Attack{"slow headers", n, 500, func(ctx context.Context, t Target, c net.Conn) error {
		if _, err := io.WriteString(c, request(t, "POST")); err != nil {
			return err
		}
		return trickle(ctx, c, func(n int) []byte { return fmt.Appendf(nil, "X-%d: 1\r\n", n) })
	}}
}

// SlowBodies sends a byte of a body now and then.
func SlowBodies(n int) Attack {
	return Attack{"slow bodies", n, 500, func(ctx context.Context, t Target, c net.Conn) error {
		if _, err := io.WriteString(c, request(t, "POST", "Content-Length: 1000000", "")); err != nil {
			return err
		}
		return trickle(ctx, c, func(int) []byte { return []byte("x") })
	}}
}

// Idle says nothing.
func Idle(n int) Attack {
	return Attack{"idle connections", n, 500, func(_ context.Context, _ Target, c net.Conn) error {
		_, err := io.Copy(io.Discard, c)
		return err
	}}
}

// LargeHeaders sends a megabyte of them.
func LargeHeaders(perSecond int) Attack {
	line := "X-Large: " + strings.Repeat("x", 4000) + "\r\n"
	return Attack{"large headers", 10, perSecond, func(_ context.Context, t Target, c net.Conn) error {
		if _, err := io.WriteString(c, request(t, "GET")+strings.Repeat(line, 250)+"\r\n"); err != nil {
			return err
		}
		return answered(c)
	}}
}

// LargeBodies sends 64 MB.
func LargeBodies(perSecond int) Attack {
	piece := make([]byte, 64<<10)
	return Attack{"large bodies", 10, perSecond, func(ctx context.Context, t Target, c net.Conn) error {
		if _, err := io.WriteString(c, request(t, "POST", "Content-Length: 67108864", "")); err != nil {
			return err
		}
		for i := 0; i < 1024 && ctx.Err() == nil; i++ {
			if _, err := c.Write(piece); err != nil {
				return err
			}
			time.Sleep(10 * time.Millisecond) // 6 MB/s: it is not the network that is measured
		}
		return answered(c)
	}}
}

// Requests sends one after the other, on connections of their own.
func Requests(perSecond int) Attack {
	return Attack{"requests", 100, perSecond, func(_ context.Context, t Target, c net.Conn) error {
		if _, err := io.WriteString(c, request(t, "POST", "Content-Type: application/json", "Content-Length: 2", "")+
			"{}"); err != nil {
			return err
		}
		return answered(c)
	}}
}

func answered(c net.Conn) error {
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 4096))
	return err
}
