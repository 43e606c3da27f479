// Package rpc is how the xDS server's HTTP façade reaches the api: POST /v1/apply as request-reply on NATS. The api
// judges the caller by what the façade passes on; nothing is decided here. What it passes on of the caller, the token
// first, is sealed with SECRET_KEY for this body, a minute and one answer: no token can be read on NATS, and who may
// publish there, but lacks SECRET_KEY, cannot say that a request came from anywhere.
//
// A message holds as much as the NATS server's max_payload allows, 1 MiB unless it is told otherwise. Large
// bodies are compressed, which makes room for configurations of ten times that.
package rpc

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/marchproxy/marchproxy/pkg/seal"
)

// Subject of the request, and the queue group that the apis answer in.
const (
	Subject = "marchproxy.rpc.v1.apply"
	Queue   = "api"
)

const (
	headerCaller   = "Marchproxy-Caller"
	headerStatus   = "Status"
	headerEncoding = "Content-Encoding"
)

// caller is what is sealed of a request.
type caller struct {
	Authorization, Remote string
	Wait                  time.Duration
	Ask                   bool
	At                    time.Time
	Traceparent           string
}

// sealedFor is how long a sealed caller is taken, and how far the clocks of two parts may be apart.
const sealedFor = time.Minute

func (r Request) seal(box *seal.Box, now time.Time) (string, error) {
	raw, err := json.Marshal(caller{r.Authorization, r.Remote, r.Wait, r.Ask, now, r.Traceparent})
	if err != nil {
		return "", fmt.Errorf("ask the api: %w", err)
	}
	return box.Seal(string(raw), "rpc", digest(r.Body), "caller"), nil
}

// once remembers what was taken for as long as it would be taken again. The apis of a queue remember each its own, so
// that somebody who may read and publish here can have a request answered once more by each other api.
type once struct {
	mu    sync.Mutex
	until map[[sha256.Size]byte]time.Time
	sweep time.Time
}

// first says whether a sealed caller has not been taken before. What it says, to the nanosecond, is no other request's;
// how it is written might be changed.
func (o *once) first(caller, body string, now time.Time) bool {
	key := sha256.Sum256([]byte(body + caller))
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.After(o.sweep) {
		maps.DeleteFunc(o.until, func(_ [sha256.Size]byte, end time.Time) bool { return now.After(end) })
		o.sweep = now.Add(sealedFor)
	}
	if _, there := o.until[key]; there {
		return false
	}
	o.until[key] = now.Add(2 * sealedFor) // one whose clock is ahead is taken for so long
	return true
}

// open reads what seal made, for the same body, and takes it once.
func open(box *seal.Box, taken *once, sealed string, body []byte, now time.Time) (Request, error) {
	raw, err := box.Open(sealed, "rpc", digest(body), "caller")
	if err != nil {
		return Request{}, errors.New("the caller is not sealed with this SECRET_KEY for this request: give the xDS " +
			"server the api's")
	}
	var c caller
	if err := json.Unmarshal([]byte(raw), &c); err != nil {
		return Request{}, fmt.Errorf("the caller cannot be read: %w", err)
	}
	if d := now.Sub(c.At); d > sealedFor || d < -sealedFor {
		return Request{}, fmt.Errorf("the request is %v old by the api's clock; it is taken for %v: see to both clocks",
			d.Round(time.Second), sealedFor)
	}
	if !taken.first(raw, digest(body), now) {
		return Request{}, errors.New("this very request was answered before; ask again instead of sending it again")
	}
	return Request{
		Body: body, Authorization: c.Authorization, Remote: c.Remote, Wait: c.Wait, Ask: c.Ask,
		Traceparent: c.Traceparent,
	}, nil
}

func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// Request is one POST /v1/apply.
type Request struct {
	Body []byte
	// Authorization and Remote (host:port) are those of the HTTP request.
	Authorization, Remote string
	// Wait is how long to wait for the Envoys; 0 does not wait.
	Wait time.Duration
	// Ask asks only whether the caller may apply something: the status is 204 then. There is no body yet.
	Ask bool
	// Traceparent names the span that it is a part of (W3C Trace Context); "" where there is none.
	Traceparent string
}

// Reply is the api's HTTP status and JSON body.
type Reply struct {
	Status int
	Body   []byte
}

// Apply sends a request and waits for the reply until the context ends.
func Apply(ctx context.Context, nc *nats.Conn, box *seal.Box, r Request) (Reply, error) {
	m := nats.NewMsg(Subject)
	if err := pack(m, r.Body); err != nil {
		return Reply{}, err
	}
	sealed, err := r.seal(box, time.Now())
	if err != nil {
		return Reply{}, err
	}
	m.Header.Set(headerCaller, sealed)
	reply, err := nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return Reply{}, fmt.Errorf("ask the api: %w", err)
	}
	status, err := strconv.Atoi(reply.Header.Get(headerStatus))
	if err != nil {
		return Reply{}, fmt.Errorf("ask the api: status: %w", err)
	}
	body, err := unpack(reply)
	if err != nil {
		return Reply{}, err
	}
	return Reply{status, body}, nil
}

// Serve answers requests, each in a goroutine of its own, until the context ends.
func Serve(ctx context.Context, nc *nats.Conn, box *seal.Box, answer func(context.Context, Request) Reply) error {
	taken := &once{until: map[[sha256.Size]byte]time.Time{}}
	sub, err := nc.QueueSubscribe(Subject, Queue, func(m *nats.Msg) {
		go func() {
			body, err := unpack(m)
			if err != nil {
				respond(m, Reply{Status: http.StatusBadRequest, Body: problem(http.StatusBadRequest, "the request cannot be read: "+
					err.Error())})
				return
			}
			r, err := open(box, taken, m.Header.Get(headerCaller), body, time.Now())
			if err != nil {
				respond(m, Reply{Status: http.StatusForbidden, Body: problem(http.StatusForbidden, err.Error())})
				return
			}
			respond(m, answer(ctx, r))
		}()
	})
	if err != nil {
		return fmt.Errorf("serve rpc: %w", err)
	}
	<-ctx.Done()
	return sub.Drain()
}

// respond sends a reply, or says that it does not fit.
func respond(m *nats.Msg, r Reply) {
	send := func(r Reply) error {
		out := nats.NewMsg(m.Reply)
		if err := pack(out, r.Body); err != nil {
			return err
		}
		out.Header.Set(headerStatus, strconv.Itoa(r.Status))
		return m.RespondMsg(out)
	}
	if err := send(r); errors.Is(err, nats.ErrMaxPayload) {
		_ = send(Reply{http.StatusInternalServerError, problem(http.StatusInternalServerError,
			fmt.Sprintf("the api answered %d, in more bytes than NATS's max_payload; raise it", r.Status))})
	} // otherwise the asker has gone, or NATS: it will time out and say so
}

func problem(status int, detail string) []byte {
	b, err := json.Marshal(map[string]any{"status": status, "detail": detail})
	if err != nil {
		panic(err) // a map of strings
	}
	return b
}

const (
	// small bodies travel as they are.
	small = 128 << 10
	// maxBody is as much as a compressed body may hold; the façade takes documents of this size.
	maxBody = 64 << 20
)

func pack(m *nats.Msg, body []byte) error {
	m.Data = body
	if len(body) <= small {
		return nil
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(body); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	m.Data = b.Bytes()
	m.Header.Set(headerEncoding, "gzip")
	return nil
}

func unpack(m *nats.Msg) ([]byte, error) {
	if m.Header.Get(headerEncoding) != "gzip" {
		return m.Data, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(m.Data))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(z, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	if len(b) > maxBody {
		return nil, errors.New("decompress: more than 64 MiB")
	}
	return b, nil
}
