package dev

import (
	"context"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/accesslog"
	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/envoyadmin"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// tailSocket is where Envoy tells of requests while somebody watches the access log.
func (s *system) tailSocket() string { return filepath.Join(s.root, "tail.sock") }

// observe tells the api what Envoy does, as an agent does of the one that it runs, until it is ended.
func (s *system) observe(ctx context.Context) (end func(), err error) {
	nc, err := nats.Connect("nats://"+local(s.NatsPort), nats.UserInfo(natsOwner, s.secrets.NatsToken),
		nats.Name("marchproxy dev"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(100*time.Millisecond), nats.IgnoreAuthErrorAbort())
	if err != nil {
		return nil, err
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	o := &envoyadmin.Observer{
		Admin: envoyadmin.New(s.adminSocket()), Probes: bootstrap.ProbeSocket(s.adminSocket()),
	}
	tail := &accesslog.Tail{
		ID: ownID, Proxy: envoyID, Gateway: resource.DefaultGateway, Admin: o.Admin, Socket: s.tailSocket(),
		Requests: o.Requests, Log: zap.NewNop(),
	}
	looked, ended, slept := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(slept)
		if err := tail.Run(own, nc); err != nil {
			s.say("the access log cannot be watched: " + err.Error())
		}
	}()
	go func() {
		defer close(looked)
		_ = o.Run(own) // it is ended
	}()
	go func() {
		defer close(ended)
		_ = status.Report(own, nc, nil, func(now time.Time) status.AgentStatus { // it is ended
			return status.AgentStatus{
				ID: ownID, At: resource.Time(now), NoNode: true, Envoy: envoyID, EnvoyGateway: resource.DefaultGateway,
				EnvoyReport: o.Report(),
			}
		})
	}()
	return func() {
		cancel()
		<-looked
		<-ended
		<-slept
		nc.Close()
	}, nil
}
