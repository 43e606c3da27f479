// Package issuance gets certificates from authorities by ACME (RFC 8555) and renews them.
//
// What is wanted is in the configuration: Certificates with an issuer, and routes with tls: auto, for which it makes such
// Certificates. How far each is, is a row of the database. Any number of apis may run: each takes rows that are due for
// as long as a lease, so that no certificate is ordered twice, and an api that dies leaves rows that another one takes.
//
// # One certificate
//
//	┌──────────────────┐  due: new, changed, or the authority's time to renew has come
//	│     waiting      │◄──────────────────────────────────────────────┐
//	└────────┬─────────┘                                               │
//	         │ the issuer's limit has room; the order's URL and key are│
//	         │ stored before anything else is done with it             │
//	┌────────▼─────────┐                                               │
//	│    answering     │ the answers are written as a CertificateChallenge (or into the DNS)
//	└────────┬─────────┘                                               │
//	         │ every Envoy that is connected has them                  │
//	┌────────▼─────────┐                                               │
//	│    validating    │ the authority is told, and looks              │
//	└────────┬─────────┘                                               │
//	         │ all names are proven                    it says no      │
//	┌────────▼─────────┐                          ┌──────────────┐     │
//	│    finalizing    ├─────────────────────────►│    failed    ├─────┤ after a pause, the longer the
//	└────────┬─────────┘                          └──────────────┘     │ more failures there are
//	         │ chain and key are written, the answers taken away: one revision
//	┌────────▼─────────┐                                               │
//	│      issued      ├───────────────────────────────────────────────┘
//	└──────────────────┘ asks the authority when to renew (RFC 9773)
//
// Whoever takes a row with an order asks the authority how far that is, and goes on from there.
package issuance

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

const (
	// lease is how long an api that has died keeps others from its orders, and hold how often one that lives renews it.
	lease, hold = 15 * time.Second, 4 * time.Second
	// poll is how often an api looks for what is due.
	poll = time.Second
	// together is how many certificates one api orders at a time.
	together = 16
)

// Manager orders certificates.
type Manager struct {
	store  *store.Store
	writer *writer.Writer
	board  *live.Board
	box    *seal.Box
	log    *zap.Logger
	holder string
	writes *writes
	wake   chan struct{} // there is room for more

	mu      sync.Mutex
	cancel  map[string]context.CancelFunc // of the certificates that this api is at
	clients map[string]*client            // by issuer
	ordered map[[2]string]int             // that have ended, by issuer and result

	// As the rows were held against the configuration last; Run's own. After a restore the rows are others, even where the
	// configuration is the same: it has another epoch.
	epoch string
	seen  map[string]resource.KindState
	noted desired
}

// Orders counts the orders of this api that have ended, by issuer and result: issued or failed.
func (m *Manager) Orders() map[[2]string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.ordered)
}

// New returns a manager, which does nothing before [Manager.Run].
func New(s *store.Store, w *writer.Writer, b *live.Board, box *seal.Box, log *zap.Logger) *Manager {
	return &Manager{
		store: s, writer: w, board: b, box: box, log: log, holder: uuid.NewString(), writes: newWrites(w),
		wake:   make(chan struct{}, 1),
		cancel: map[string]context.CancelFunc{}, clients: map[string]*client{}, ordered: map[[2]string]int{},
	}
}

// Run orders and renews until the context ends.
func (m *Manager) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { m.writes.run(ctx) })
	all.Go(func() { m.holding(ctx) })
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-m.wake:
		}
		if err := m.sync(ctx); err != nil {
			m.complain(ctx, "what certificates are wanted cannot be found out", err)
			continue
		}
		if err := m.take(ctx, &all); err != nil {
			m.complain(ctx, "certificates that are due cannot be taken", err)
		}
	}
}

func (m *Manager) complain(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		m.log.Warn(what, zap.Error(err))
	}
}

// take takes what is due, as far as there is room, and has it worked on.
func (m *Manager) take(ctx context.Context, all *sync.WaitGroup) error {
	m.mu.Lock()
	room := together - len(m.cancel)
	m.mu.Unlock()
	if room <= 0 {
		return nil
	}
	due, err := m.store.TakeIssuances(ctx, m.holder, room, lease)
	if err != nil {
		return err
	}
	for _, x := range due {
		own, cancel := context.WithCancel(ctx)
		m.mu.Lock()
		if old := m.cancel[x.Certificate]; old != nil { // it was deleted and made again meanwhile
			m.mu.Unlock()
			cancel()
			old()
			_ = m.store.ReleaseIssuance(ctx, m.holder, x.Certificate) // or the lease ends
			continue
		}
		m.cancel[x.Certificate] = cancel
		m.mu.Unlock()
		all.Go(func() {
			defer cancel()
			m.work(own, x)
			m.mu.Lock()
			delete(m.cancel, x.Certificate)
			m.mu.Unlock()
			select {
			case m.wake <- struct{}{}:
			default:
			}
		})
	}
	return nil
}

// holding renews the lease, and ends the work on what this api does not hold any more: another one may be at it.
func (m *Manager) holding(ctx context.Context) {
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(hold):
		}
		began := time.Now()
		m.mu.Lock()
		mine := maps.Clone(m.cancel)
		m.mu.Unlock()
		still, err := m.store.HoldIssuances(ctx, m.holder, lease)
		if err == nil {
			last = began
		}
		for name, cancel := range mine {
			if err == nil && !still[name] || time.Since(last) > lease-hold {
				cancel()
			}
		}
	}
}

// concerned are the kinds that decide on what certificates are wanted.
var concerned = []string{
	resource.KindCertificate, resource.KindIssuer, resource.KindRoute, resource.KindGateway, resource.KindChallenge,
}

// sync holds the rows against the configuration, unless both are what they were when that was done last.
func (m *Manager) sync(ctx context.Context) error {
	var epoch string
	now := map[string]resource.KindState{}
	var want desired
	changed := false
	if err := m.writer.Read(ctx, func(st *config.State) {
		epoch = m.writer.Epoch()
		all := st.Summary()
		for _, k := range concerned {
			now[k] = all[k]
		}
		if changed = epoch != m.epoch || !maps.Equal(now, m.seen); changed {
			want = desires(st)
		}
	}); err != nil || !changed {
		return err
	}
	if epoch != m.epoch || !maps.Equal(want.issuers, m.noted.issuers) ||
		!maps.Equal(want.certificates, m.noted.certificates) {
		if err := m.note(ctx, want); err != nil {
			return err
		}
	}
	if err := m.tidy(ctx, want); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	m.epoch, m.seen, m.noted = epoch, now, want
	return nil
}

// note makes the rows what is wanted.
func (m *Manager) note(ctx context.Context, want desired) error {
	rows, err := m.store.Issuances(ctx)
	if err != nil {
		return err
	}
	known := map[string]store.Issuance{}
	var gone []string
	for _, x := range rows {
		known[x.Certificate] = x
		if _, wanted := want.certificates[x.Certificate]; !wanted {
			gone = append(gone, x.Certificate)
		}
	}
	for name, revision := range want.issuers {
		if was, known := m.noted.issuers[name]; known && was != revision {
			if err := m.store.WakeIssuances(ctx, name); err != nil {
				return err
			}
		}
	}
	for name, x := range want.certificates {
		if was, has := known[name]; !has || was.UID != x.UID || was.Wanted != x.Wanted {
			x.NextAt = time.Now()
			if err := m.store.WantIssuance(ctx, x); err != nil {
				return err
			}
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return m.store.DropIssuances(ctx, gone)
}
