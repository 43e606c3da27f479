package fanout

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// client is one Envoy: one connection, one goroutine, no gRPC library.
type client struct {
	fleet      *Fleet
	id         int
	slow, hung bool
	cut        atomic.Bool
	marked     atomic.Int32

	mu     sync.Mutex
	conn   net.Conn
	counts map[translate.Type]int
	// said says that it came with what it had.
	said bool

	// answered says that the server has answered on this connection.
	answered   bool
	out        *bufio.Writer
	framer     *http2.Framer
	subscribed map[translate.Type]bool
	unread     uint32
	// waiting is what the server's windows do not allow yet, in parts: what many clients say is there once.
	waiting [][]byte
	// room is what the windows of the connection and of the stream allow, initial what a stream's was at first.
	room, roomStream, initial int64
}

// streamID is that of the only request of a connection.
const streamID = 1

// mute says of a client that hangs that it reads on, and never answers.
func (c *client) mute() bool { return c.hung && c.id%2 == 0 }

func (c *client) hangUp() {
	c.cut.Store(true)
	c.drop()
}

func (c *client) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close() // whatever it says, it is over
	}
}

func (c *client) hasAll(want map[translate.Type]int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.said {
		return c.subscribed[translate.TypeScope] && c.subscribed[translate.TypeEndpoint]
	}
	for t, n := range want {
		if c.counts[t] < n {
			return false
		}
	}
	return true
}

// serve connects, and answers until the connection ends.
func (c *client) serve(ctx context.Context) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.fleet.opt.Addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	c.mu.Lock()
	c.conn = conn
	c.said = c.said || len(c.counts) > 0
	c.counts, c.subscribed = map[translate.Type]int{}, map[translate.Type]bool{}
	c.mu.Unlock()
	if c.cut.Load() {
		return errCut
	}
	c.out = bufio.NewWriterSize(conn, 2<<10)
	c.framer = http2.NewFramer(c.out, bufio.NewReaderSize(conn, 2<<10))
	c.framer.SetReuseFrames()
	c.answered, c.unread, c.waiting = false, 0, nil
	c.room, c.roomStream, c.initial = 65535, 65535, 65535 // what HTTP/2 begins with
	if err := c.begin(); err != nil {
		return err
	}
	var msg []byte
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if v, set := f.Value(http2.SettingInitialWindowSize); set {
					c.roomStream, c.initial = c.roomStream+int64(v)-c.initial, int64(v)
				}
				if err = c.framer.WriteSettingsAck(); err == nil {
					err = c.flush()
				}
			}
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				c.room += int64(f.Increment)
			} else {
				c.roomStream += int64(f.Increment)
			}
			err = c.flush()
		case *http2.PingFrame:
			if !f.IsAck() {
				err = c.framer.WritePing(true, f.Data)
			}
		case *http2.DataFrame:
			c.answered = true
			c.fleet.bytes.Add(int64(f.Length))
			msg, err = c.data(ctx, msg, f)
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				err = fmt.Errorf("client %d: the server ended the stream", c.id)
			}
		case *http2.GoAwayFrame, *http2.RSTStreamFrame:
			err = fmt.Errorf("client %d: %v", c.id, frame.Header().Type)
		}
		if err == nil {
			err = c.out.Flush()
		}
		if err != nil {
			return err
		}
	}
}

// begin opens the stream and asks for what Envoy asks for at first; or, where it comes back, for all that it had.
func (c *client) begin() error {
	if _, err := c.out.WriteString(http2.ClientPreface); err != nil {
		return err
	}
	// Windows as Envoy has them, so that the server does not wait for them.
	if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 256 << 20},
		http2.Setting{ID: http2.SettingEnablePush, Val: 0}); err != nil {
		return err
	}
	if err := c.framer.WriteWindowUpdate(0, 1<<30); err != nil {
		return err
	}
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, h := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"},
		{":authority", "xds"},
		{"te", "trailers"},
		{"content-type", "application/grpc"},
		{"x-api-key", c.fleet.opt.Key},
	} {
		if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return err
		}
	}
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: streamID, BlockFragment: head.Bytes(),
		EndHeaders: true,
	}); err != nil {
		return err
	}
	if !c.said {
		return c.ask(translate.TypeCluster, node(c.id))
	}
	for i, t := range []translate.Type{
		translate.TypeRuntime, translate.TypeExtension, translate.TypeCluster,
		translate.TypeListener, translate.TypeScope, translate.TypeEndpoint,
	} {
		first := []byte(nil)
		if i == 0 {
			first = node(c.id)
		}
		if err := c.ask(t, first, c.fleet.content.had(t)); err != nil {
			return err
		}
	}
	return nil
}

// ask subscribes to a type for the first time; fields are further ones of the request, encoded.
func (c *client) ask(t translate.Type, fields ...[]byte) error {
	c.mu.Lock()
	c.subscribed[t] = true
	c.mu.Unlock()
	return c.send(append([][]byte{request(t)}, fields...)...)
}

// send writes a gRPC message that consists of parts, as the server's windows allow.
func (c *client) send(parts ...[]byte) error {
	var head [5]byte
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	binary.BigEndian.PutUint32(head[1:], uint32(size))
	c.waiting = append(append(c.waiting, head[:]), parts...)
	return c.flush()
}

func (c *client) flush() error {
	for len(c.waiting) > 0 {
		p := c.waiting[0]
		n := min(int64(len(p)), 16<<10, c.room, c.roomStream)
		if n <= 0 && len(p) > 0 {
			break
		}
		if n > 0 {
			if err := c.framer.WriteData(streamID, false, p[:n]); err != nil {
				return err
			}
		}
		c.room, c.roomStream = c.room-n, c.roomStream-n
		if c.waiting[0] = p[n:]; int(n) == len(p) {
			c.waiting = c.waiting[1:]
		}
	}
	return c.out.Flush()
}

// data takes a part of a message, and answers the message when it is there.
func (c *client) data(ctx context.Context, msg []byte, f *http2.DataFrame) ([]byte, error) {
	if c.unread += f.Length; c.unread > 16<<20 {
		for _, id := range []uint32{0, streamID} {
			if err := c.framer.WriteWindowUpdate(id, c.unread); err != nil {
				return nil, err
			}
		}
		c.unread = 0
	}
	msg = append(msg, f.Data()...)
	for len(msg) >= 5 {
		n := int(binary.BigEndian.Uint32(msg[1:5]))
		if len(msg) < 5+n {
			break
		}
		if err := c.answer(ctx, msg[5:5+n]); err != nil {
			return nil, err
		}
		msg = msg[5+n:]
	}
	if len(msg) == 0 {
		return nil, nil // nothing is kept
	}
	return msg, nil
}

// answer acknowledges a response, after the time that it takes an Envoy.
func (c *client) answer(ctx context.Context, raw []byte) error {
	if c.hung {
		if hang := c.fleet.hang.Load(); hang != nil {
			if c.mute() {
				return nil
			}
			select {
			case <-*hang:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	r, err := c.fleet.content.read(raw, c.watched())
	if err != nil {
		return err
	}
	delay := rand.N(c.fleet.opt.Delay + 1)
	if c.slow {
		delay = 200*time.Millisecond + rand.N(800*time.Millisecond)
	}
	time.Sleep(delay)
	if err := c.send(append(request(r.t), r.ack...)); err != nil {
		return err
	}
	c.mu.Lock()
	c.counts[r.t] += r.resources
	c.mu.Unlock()
	if w := c.fleet.watch.Load(); w != nil {
		w.acknowledged(c, r.marked)
	}
	return c.follow(r)
}

func (c *client) watched() []byte {
	if w := c.fleet.watch.Load(); w != nil {
		return w.mark
	}
	return nil
}

// follow asks for what a response has made an Envoy ask for.
func (c *client) follow(r response) error {
	if r.t == translate.TypeCluster && len(r.names) > 0 {
		c.mu.Lock()
		c.subscribed[translate.TypeEndpoint] = true
		c.mu.Unlock()
		if err := c.send(request(translate.TypeEndpoint), subscribe(r.names)); err != nil {
			return err
		}
	}
	next := map[translate.Type][]translate.Type{
		translate.TypeCluster:  {translate.TypeRuntime, translate.TypeListener},
		translate.TypeListener: {translate.TypeExtension, translate.TypeScope},
	}
	for _, t := range next[r.t] {
		if c.subscribed[t] {
			continue
		}
		var fields []byte
		switch t {
		case translate.TypeRuntime:
			fields = subscribe(runtimeLayers)
		case translate.TypeExtension:
			fields = subscribe(r.filters)
			if len(r.filters) == 0 {
				continue
			}
		}
		if err := c.ask(t, fields); err != nil {
			return err
		}
	}
	return nil
}
