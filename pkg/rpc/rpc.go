// Package rpc is how the xDS server's HTTP façade reaches the api: POST /v1/apply as request-reply on
// NATS. The api judges the caller by what the façade passes on; nothing is decided here.
package rpc

import (
	"context"
	"fmt"
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
	m.Data = r.Body
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
	return Reply{status, reply.Data}, nil
}

// Serve answers requests, each in a goroutine of its own, until the context ends.
func Serve(ctx context.Context, nc *nats.Conn, answer func(context.Context, Request) Reply) error {
	sub, err := nc.QueueSubscribe(Subject, Queue, func(m *nats.Msg) {
		go func() {
			wait, err := time.ParseDuration(m.Header.Get(headerWait))
			if err != nil {
				wait = 0
			}
			r := answer(ctx, Request{
				Body: m.Data, Authorization: m.Header.Get(headerAuthorization), Remote: m.Header.Get(headerRemote),
				Host: m.Header.Get(headerHost), Origin: m.Header.Get(headerOrigin), Wait: wait,
			})
			out := nats.NewMsg(m.Reply)
			out.Data = r.Body
			out.Header.Set(headerStatus, strconv.Itoa(r.Status))
			_ = m.RespondMsg(out) // the asker has gone, or NATS: it will time out and say so
		}()
	})
	if err != nil {
		return fmt.Errorf("serve rpc: %w", err)
	}
	<-ctx.Done()
	return sub.Drain()
}
