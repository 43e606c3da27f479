package fleet

import (
	"context"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/xds/internal/seats"
)

// Peers are the other xDS servers as they report: their Envoys count where seats are assigned.
type Peers struct {
	f *Fleet

	mu    sync.Mutex
	views map[string]*status.View
	moved map[string]bool // servers with other Envoys than the seats know of
}

// Peers returns what takes the other servers' reports.
func (f *Fleet) Peers() *Peers {
	return &Peers{f: f, views: map[string]*status.View{}, moved: map[string]bool{}}
}

func (p *Peers) view(id string) *status.View {
	if p.views[id] == nil {
		p.views[id] = status.NewView()
	}
	return p.views[id]
}

// Report implements [status.Follower].
func (p *Peers) Report(s status.XdsStatus, fresh bool) (missing bool) {
	if s.ID == p.f.opt.ID {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.view(s.ID)
	switch d, ok := v.Report(s, fresh); {
	case !ok:
		return false
	case s.Stopping:
		delete(p.views, s.ID)
		delete(p.moved, s.ID)
		p.hear(s.ID, nil, true)
		return false
	default:
		p.moved[s.ID] = p.moved[s.ID] || d.Moved() || !p.f.seats.Heard(s.ID)
		p.forward(v)
	}
	return !v.Whole()
}

// Page implements [status.Follower].
func (p *Peers) Page(x status.XdsPage, fresh bool) {
	if x.ID == p.f.opt.ID {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.view(x.ID)
	if d, ok := v.Page(x, fresh); ok && d.Moved() {
		p.moved[x.ID] = true // its report follows
	}
}

// Pages implements [status.Follower].
func (p *Peers) Pages(id string, there map[int32]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v := p.views[id]; v != nil {
		if v.Prune(there).Moved() {
			p.moved[id] = true
		}
		p.forward(v)
	}
}

// forward hands a server's Envoys to the seats, where they are others than before and all of them are known.
func (p *Peers) forward(v *status.View) {
	if id := v.Head.ID; v.Whole() && p.moved[id] {
		delete(p.moved, id)
		p.hear(id, proxies(v), false)
	}
}

func (p *Peers) hear(id string, proxies []seats.Proxy, stopped bool) {
	if p.f.seats.Hear(id, proxies, stopped) {
		p.f.signal()
	}
}

// Remember takes what this server reported last before it was restarted: its Envoys keep their seniority.
func (f *Fleet) Remember(last *status.View) {
	if f.seats.Remember(proxies(last)) {
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

func proxies(v *status.View) []seats.Proxy {
	var out []seats.Proxy
	for p := range v.Proxies {
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
