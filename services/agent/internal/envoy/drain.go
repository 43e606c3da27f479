package envoy

import (
	"context"
	"net/http"
	"time"
)

// drain has Envoy close each connection after its next response, and waits until no request is in flight.
func (s *Supervisor) drain(ctx context.Context, ended <-chan struct{}) error {
	if _, _, err := s.admin.Do(ctx, http.MethodPost, "/healthcheck/fail"); err != nil {
		return err
	}
	if _, _, err := s.admin.Do(ctx, http.MethodPost, "/drain_listeners?graceful&skip_exit"); err != nil {
		return err
	}
	// Clients that send one request after the other need a moment to be told.
	for quiet := 0; quiet < 10; quiet++ {
		active, err := s.admin.Active(ctx)
		if err != nil {
			return err
		}
		if active > 0 {
			quiet = 0
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
