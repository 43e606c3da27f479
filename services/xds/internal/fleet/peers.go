package fleet

import (
	"context"
	"time"

	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/xds/internal/seats"
)

// Hear takes what another xDS server reports: its Envoys count where seats are dealt.
func (f *Fleet) Hear(s status.XdsStatus, _ bool) {
	if f.seats.Hear(s.ID, places(s), s.Stopping) {
		f.signal()
	}
}

// Remember takes this server's last report before it was restarted: its Envoys keep their places.
func (f *Fleet) Remember(s status.XdsStatus) {
	if f.seats.Remember(places(s)) {
		f.signal()
	}
}

// Age forgets servers that are silent, until the context ends. What was heard last counts while deaf says
// that nobody can be heard.
func (f *Fleet) Age(ctx context.Context, deaf func() bool) error {
	beat := time.NewTicker(status.Heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
			if f.seats.Age(deaf()) {
				f.signal()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func places(s status.XdsStatus) []seats.Proxy {
	out := make([]seats.Proxy, 0, len(s.Proxies))
	for _, p := range s.Proxies {
		connected, err := time.Parse(time.RFC3339, p.ConnectedAt)
		if err != nil {
			continue
		}
		since, err := time.Parse(time.RFC3339, p.Since)
		if err != nil {
			since = connected // a server of an older version
		}
		out = append(out, seats.Proxy{Gateway: p.Gateway, ID: p.ID, Address: p.Address, Connected: connected, Since: since})
	}
	return out
}
