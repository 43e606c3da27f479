package writer

import (
	"context"
	"errors"
	"sync"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// recent remembers the digests of the newest states, so that who waits for a write need not ask the database which
// state a report speaks of. It forgets all of them where the database is not what it was.
type recent struct {
	mu    sync.Mutex
	heads [1024]struct {
		revision int64
		digest   string
	}
}

func (r *recent) add(revision int64, digest string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &r.heads[revision%int64(len(r.heads))]
	e.revision, e.digest = revision, digest
}

func (r *recent) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.heads[:])
}

// State is the digest of the database's state at a revision, "" where this api has not seen it lately.
func (w *Writer) State(revision int64) string {
	w.recent.mu.Lock()
	defer w.recent.mu.Unlock()
	if e := w.recent.heads[revision%int64(len(w.recent.heads))]; e.revision == revision {
		return e.digest
	}
	return ""
}

// StateAt is the same as the database itself says it; "" where it has no such revision.
func (w *Writer) StateAt(ctx context.Context, revision int64) (string, error) {
	state, err := w.store.StateAt(ctx, revision)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return resource.Digest(state), err
}
