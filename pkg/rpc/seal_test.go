package rpc_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/rpc"
	"github.com/marchproxy/marchproxy/pkg/seal"
)

func boxOf(t *testing.T, secret string) *seal.Box {
	t.Helper()
	b, err := seal.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func box(t *testing.T) *seal.Box {
	t.Helper()
	return boxOf(t, "the secret of api and xds")
}

// TestNothingOfTheCallerCanBeRead: what travels has no token in it, and is good once, for the body that it was sealed
// with, from who has SECRET_KEY.
func TestNothingOfTheCallerCanBeRead(t *testing.T) {
	s := natstest.Start(t)
	serve(t, s, echo)
	spy, _ := s.Connect()
	seen := make(chan *nats.Msg, 100)
	if _, err := spy.ChanSubscribe(">", seen); err != nil {
		t.Fatal(err)
	}
	if err := spy.Flush(); err != nil {
		t.Fatal(err)
	}
	nc, _ := s.Connect()
	const token = "mp_a-token-of-somebody"
	r := rpc.Request{Body: []byte(`{"prune":true}`), Authorization: "Bearer " + token, Remote: "127.0.0.1:5"}
	got, err := rpc.Apply(t.Context(), nc, box(t), r)
	if err != nil || got.Status != 201 || !strings.Contains(string(got.Body), token) {
		t.Fatalf("%d %s %v", got.Status, got.Body, err)
	}
	asked := <-seen
	if asked.Subject != rpc.Subject || bytes.Contains(asked.Data, []byte(token)) {
		t.Fatalf("%s", asked.Data)
	}
	for name, values := range asked.Header {
		if strings.Contains(strings.Join(values, ""), token) || strings.Contains(strings.Join(values, ""), r.Remote) {
			t.Errorf("%s is %s", name, values)
		}
	}

	ask := func(m *nats.Msg) string {
		t.Helper()
		reply, err := nc.RequestMsgWithContext(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		return reply.Header.Get("Status")
	}
	m := &nats.Msg{Subject: rpc.Subject, Header: asked.Header, Data: asked.Data}
	if status := ask(m); status != "403" {
		t.Errorf("the same again is answered %s", status)
	}
	if got, err := rpc.Apply(t.Context(), nc, box(t), r); err != nil || got.Status != 201 {
		t.Errorf("who asks the same again is answered %d %v", got.Status, err)
	}
	m.Data = []byte(`{"prune":false}`)
	if status := ask(m); status != "403" {
		t.Errorf("another body with the same caller is answered %s", status)
	}
	m.Header = nats.Header{"Authorization": {"Bearer " + token}, "Marchproxy-Remote": {"127.0.0.1:5"}}
	if status := ask(m); status != "403" {
		t.Errorf("a caller who is not sealed is answered %s", status)
	}
	if got, err := rpc.Apply(t.Context(), nc, boxOf(t, "the secret of another place"), r); err != nil ||
		got.Status != 403 {
		t.Errorf("another SECRET_KEY is answered %d %v", got.Status, err)
	}
}
