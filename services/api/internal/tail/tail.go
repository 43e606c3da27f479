// Package tail watches the access logs of Envoys while somebody asks for them: it tells whoever runs the Envoys what is
// asked for (package accesslog), and hands out what they tell.
//
// Whoever reads too slowly loses entries, which are counted, and holds up nobody: neither other readers nor an Envoy.
package tail

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/accesslog"
)

const (
	// together is how many entries a second all Envoys tell of at most, as far as there are no more Envoys than that.
	together = 1000
	// room is how many messages a watcher may have waiting.
	room = 64
	// fresh is how old the last message of an Envoy may be: they come each second.
	fresh = 3 * accesslog.Renew
)

// Hub is one api's.
type Hub struct {
	nc  *nats.Conn
	id  string
	log *zap.Logger
	// proxies counts the Envoys that are connected.
	proxies func() int

	mu       sync.Mutex
	watchers map[*Watcher]bool
	changed  chan struct{} // a message is due
}

// New makes one. The id is the process's own.
func New(nc *nats.Conn, id string, proxies func() int, log *zap.Logger) *Hub {
	return &Hub{nc: nc, id: id, log: log, proxies: proxies, watchers: map[*Watcher]bool{}, changed: make(chan struct{}, 1)}
}

// Watcher is one who watches.
type Watcher struct {
	// C has what the Envoys tell, with the entries that the filter takes; nobody changes them. It is not closed.
	C      <-chan accesslog.Batch
	c      chan accesslog.Batch
	filter accesslog.Filter

	mu      sync.Mutex
	dropped int
	told    map[string]report // by who runs the Envoy
}

type report struct {
	at time.Time
	accesslog.Batch
}

// Watch begins to watch until the context ends.
func (h *Hub) Watch(ctx context.Context, f accesslog.Filter) *Watcher {
	c := make(chan accesslog.Batch, room)
	w := &Watcher{C: c, c: c, filter: f, told: map[string]report{}}
	h.mu.Lock()
	h.watchers[w] = true
	h.mu.Unlock()
	h.due()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		delete(h.watchers, w)
		h.mu.Unlock()
		h.due()
	})
	return w
}

func (h *Hub) due() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// Run tells what is asked for, at once when that changes and each second, until the context ends. While nobody watches it
// listens to nothing.
func (h *Hub) Run(ctx context.Context) error {
	var sub *nats.Subscription
	again := time.NewTicker(accesslog.Renew)
	again.Stop()
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			if sub != nil {
				h.say(accesslog.Watch{ID: h.id})
				_ = h.nc.FlushTimeout(time.Second) // the lease ends anyway
				_ = sub.Unsubscribe()
			}
			return nil
		case <-h.changed:
		case <-again.C:
		}
		filters := h.filters()
		switch {
		case len(filters) == 0 && sub != nil:
			h.say(accesslog.Watch{ID: h.id})
			_ = sub.Unsubscribe() // the connection is gone: so is this
			sub = nil
			again.Stop()
			continue
		case len(filters) == 0:
			continue
		case sub == nil:
			again.Reset(accesslog.Renew)
			s, err := h.nc.Subscribe(accesslog.EntriesPrefix+"*", h.take)
			if err != nil {
				h.log.Warn("the access log cannot be watched now", zap.Error(err))
				continue
			}
			sub = s
		}
		rate := min(accesslog.MaxRate, max(1, together/max(1, h.proxies())))
		h.say(accesslog.Watch{ID: h.id, Filters: filters, Rate: rate})
	}
}

func (h *Hub) say(w accesslog.Watch) {
	raw, err := json.Marshal(w)
	if err == nil {
		err = h.nc.Publish(accesslog.WatchSubject, raw)
	}
	if err != nil { // it is said again in a second
		h.log.Debug("nobody is told that the access log is watched", zap.Error(err))
	}
}

// filters are what is asked for, each once; everything where that is too much to say.
func (h *Hub) filters() (out []accesslog.Filter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		if !slices.Contains(out, w.filter) {
			out = append(out, w.filter)
		}
	}
	if len(out) > accesslog.MaxFilters {
		return []accesslog.Filter{{}}
	}
	return out
}

// take hands out what an Envoy tells.
func (h *Hub) take(m *nats.Msg) {
	var b accesslog.Batch
	if json.Unmarshal(m.Data, &b) != nil {
		return // of a version to come
	}
	for i := range b.Entries {
		b.Entries[i].Proxy, b.Entries[i].Gateway = b.Proxy, b.Gateway
	}
	h.mu.Lock()
	watchers := make([]*Watcher, 0, len(h.watchers))
	for w := range h.watchers {
		watchers = append(watchers, w)
	}
	h.mu.Unlock()
	for _, w := range watchers {
		w.take(m.Subject, b)
	}
}

func (w *Watcher) take(from string, b accesslog.Batch) {
	if !w.filter.Of(b.Gateway, b.Proxy) {
		return
	}
	var mine []accesslog.Entry
	for i := range b.Entries {
		if w.filter.Takes(b.Gateway, b.Proxy, &b.Entries[i]) {
			mine = append(mine, b.Entries[i])
		}
	}
	b.Entries = nil
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told[from] = report{time.Now(), b}
	if b.Entries = mine; len(mine) == 0 {
		return
	}
	select {
	case w.c <- b:
	default:
		w.dropped += len(mine)
	}
}

// Reports are what the Envoys said last that tell now, without entries, and how many entries were dropped because they
// were not read.
func (w *Watcher) Reports() (told []accesslog.Batch, dropped int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for from, r := range w.told {
		if time.Since(r.at) > fresh {
			delete(w.told, from)
			continue
		}
		told = append(told, r.Batch)
	}
	return told, w.dropped
}
