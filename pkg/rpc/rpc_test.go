package rpc_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/racetest"
	"github.com/marchproxy/marchproxy/pkg/rpc"
)

// serve answers until the test ends.
func serve(t *testing.T, s *natstest.Server, answer func(context.Context, rpc.Request) rpc.Reply) {
	t.Helper()
	nc, _ := s.Connect()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- rpc.Serve(ctx, nc, box(t), answer) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	ask, _ := s.Connect()
	for { // until somebody answers
		limit, stop := context.WithTimeout(t.Context(), racetest.Deadline(10*time.Second))
		_, err := rpc.Apply(limit, ask, box(t), rpc.Request{Body: []byte("are you there?")})
		stop()
		if !errors.Is(err, nats.ErrNoResponders) {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

func echo(_ context.Context, r rpc.Request) rpc.Reply {
	return rpc.Reply{
		Status: 201,
		Body:   []byte(strings.Join([]string{string(r.Body), r.Authorization, r.Remote, r.Wait.String()}, "|")),
	}
}

func TestRoundTrip(t *testing.T) {
	s := natstest.Start(t)
	serve(t, s, echo)
	nc, _ := s.Connect()
	for _, c := range []struct {
		r    rpc.Request
		want string
	}{
		{
			rpc.Request{Body: []byte(`{"a":1}`), Authorization: "Bearer x", Remote: "1.2.3.4:5", Wait: 1500 * time.Millisecond},
			`{"a":1}|Bearer x|1.2.3.4:5|1.5s`,
		},
		{rpc.Request{}, `|||0s`},
		{rpc.Request{Body: []byte(strings.Repeat("many words ", 1_000_000))}, strings.Repeat("many words ", 1_000_000) +
			`|||0s`},
	} {
		got, err := rpc.Apply(t.Context(), nc, box(t), c.r)
		if err != nil || got.Status != 201 || string(got.Body) != c.want {
			t.Errorf("%d %.60q: %v", got.Status, got.Body, err)
		}
	}
}

// TestTooLarge: what NATS does not carry is said, on the way there and on the way back.
func TestTooLarge(t *testing.T) {
	noise := make([]byte, 3<<20)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(noise)
	s := natstest.Start(t)
	serve(t, s, func(context.Context, rpc.Request) rpc.Reply { return rpc.Reply{Status: 200, Body: noise} })
	nc, _ := s.Connect()
	if _, err := rpc.Apply(t.Context(), nc, box(t), rpc.Request{Body: noise}); !errors.Is(err, nats.ErrMaxPayload) {
		t.Error(err)
	}
	got, err := rpc.Apply(t.Context(), nc, box(t), rpc.Request{})
	if err != nil || got.Status != 500 || !bytes.Contains(got.Body, []byte("max_payload")) {
		t.Errorf("%d %.100s %v", got.Status, got.Body, err)
	}
}

// TestDamaged: a body that is not what it says, or that would fill the memory, is an answer of 400.
func TestDamaged(t *testing.T) {
	s := natstest.Start(t)
	serve(t, s, echo)
	nc, _ := s.Connect()
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 65 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	for what, data := range map[string][]byte{"no gzip": []byte("x"), "cut": bomb.Bytes()[:100], "bomb": bomb.Bytes()} {
		m := nats.NewMsg(rpc.Subject)
		m.Data = data
		m.Header.Set("Content-Encoding", "gzip")
		reply, err := nc.RequestMsgWithContext(t.Context(), m)
		if err != nil || reply.Header.Get("Status") != "400" {
			t.Errorf("%s: %v %v", what, reply, err)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	s := natstest.Start(t)
	nc, _ := s.Connect()
	if _, err := rpc.Apply(t.Context(), nc, box(t), rpc.Request{}); !errors.Is(err, nats.ErrNoResponders) {
		t.Error(err)
	}
	stuck := make(chan struct{})
	serve(t, s, func(ctx context.Context, r rpc.Request) rpc.Reply {
		if string(r.Body) == "wait" {
			close(stuck)
			<-ctx.Done()
		}
		return rpc.Reply{Status: 200}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-stuck; cancel() }()
	if _, err := rpc.Apply(ctx, nc, box(t), rpc.Request{Body: []byte("wait")}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := nc.Publish(rpc.Subject, nil); err != nil { // no reply subject: borne
		t.Error(err)
	}
}
