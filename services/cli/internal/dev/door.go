package dev

import (
	"context"
	"path/filepath"
	"time"

	"github.com/marchproxy/marchproxy/pkg/envoyadmin"
	"github.com/marchproxy/marchproxy/pkg/process"
)

// adminSocket is Envoy's admin interface, which can stop it: for this user alone.
func (s *system) adminSocket() string { return filepath.Join(s.root, "admin.sock") }

// openDoor serves what the admin interface tells, until it is shut.
func (s *system) openDoor(ctx context.Context) (shut func(), err error) {
	lis, err := process.Listen(ctx, local(s.AdminPort), "--admin-port")
	if err != nil {
		return nil, err
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = process.ServeHTTP(own, lis, envoyadmin.Door(envoyadmin.New(s.adminSocket())), time.Minute, 0) // it is shut
	}()
	return func() { cancel(); <-ended }, nil
}
