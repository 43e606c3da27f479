// Package rpc is how the xDS server's HTTP façade reaches the api: POST /v1/apply as request-reply on
// NATS. The api judges the caller by what the façade passes on; nothing is decided here.
//
// A message holds as much as the NATS server's max_payload allows, 1 MiB unless it is told otherwise. Large
// bodies are compressed, which makes room for configurations of ten times that.
package rpc

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Subject of the request, and the queue group that the apis answer in.
const (
	Subject = "marchproxy.rpc.v1.apply"
	Queue   = "api"
)

const (
	headerAuthorization = "Authorization"
	headerRemote        = "Marchproxy-Remote"
	headerHost          = "Marchproxy-Host"
	headerOrigin        = "Marchproxy-Origin"
	headerWait          = "Marchproxy-Wait"
	headerStatus        = "Status"
	headerEncoding      = "Content-Encoding"
)

// Request is one POST /v1/apply.
type Request struct {
	Body []byte
	// Authorization, Remote (host:port), Host and Origin are those of the HTTP request.
	Authorization, Remote, Host, Origin string
	// Wait is how long to wait for the Envoys; 0 does not wait.
	Wait time.Duration
}

// Reply is the api's HTTP status and JSON body.
type Reply struct {
	Status int
	Body   []byte
}

// Apply sends a request and waits for the reply until the context ends.
func Apply(ctx context.Context, nc *nats.Conn, r Request) (Reply, error) {
	m := nats.NewMsg(Subject)
	if err := pack(m, r.Body); err != nil {
		return Reply{}, err
	}
	for name, value := range map[string]string{
		headerAuthorization: r.Authorization, headerRemote: r.Remote, headerHost: r.Host, headerOrigin: r.Origin, headerWait: r.Wait.String(),
	} {
		if value != "" {
			m.Header.Set(name, value)
		}
	}
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
func Serve(ctx context.Context, nc *nats.Conn, answer func(context.Context, Request) Reply) error {
	sub, err := nc.QueueSubscribe(Subject, Queue, func(m *nats.Msg) {
		go func() {
			wait, err := time.ParseDuration(m.Header.Get(headerWait))
			if err != nil {
				wait = 0
			}
			body, err := unpack(m)
			if err != nil {
				respond(m, Reply{Status: http.StatusBadRequest, Body: problem("the request cannot be read: " + err.Error())})
				return
			}
			respond(m, answer(ctx, Request{
				Body: body, Authorization: m.Header.Get(headerAuthorization), Remote: m.Header.Get(headerRemote),
				Host: m.Header.Get(headerHost), Origin: m.Header.Get(headerOrigin), Wait: wait,
			}))
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
		_ = send(Reply{http.StatusInternalServerError, problem(fmt.Sprintf("the api answered %d, in more bytes than NATS's max_payload; raise it", r.Status))})
	} // otherwise the asker has gone, or NATS: it will time out and say so
}

func problem(detail string) []byte {
	b, err := json.Marshal(map[string]any{"detail": detail})
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
