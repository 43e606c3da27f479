package live

import (
	"context"

	"github.com/marchproxy/marchproxy/pkg/api"
)

// History says which states the database has had. A report names a state by revision and digest, and it counts only
// where the database had that state at that revision: after an older backup was restored, an Envoy may go on for a
// while with what was written after the backup, whose revisions are above those of the writes that come next.
type History interface {
	// Epoch is the database's present life, and Revision its newest one, as far as this api has heard.
	Epoch() string
	Revision() int64
	// State is the digest of the database's state at a revision; "" where it is not known without asking the database.
	State(revision int64) string
	// StateAt asks the database; "" where it has no such revision.
	StateAt(ctx context.Context, revision int64) (string, error)
}

// readings are what the database has said while somebody waits, by revision, and what it is to be asked; both are nil
// where nobody waits.
type readings struct {
	states map[int64]string
	asked  map[int64]bool
}

// had says whether the database had a state at a revision. What only the database knows is taken to be so where
// somebody waits, and asked before that is believed; nobody else asks, and what is not newer than the database is
// believed.
func (b *Board) had(t Target, revision int64, digest string) bool {
	if b.History == nil || revision == 0 { // there was nothing yet
		return true
	}
	if was := b.History.State(revision); was != "" {
		return digest == "" || digest == was // "" comes from servers of an older version
	}
	if was, known := t.read.states[revision]; known {
		return was != "" && (digest == "" || digest == was)
	}
	if t.read.asked == nil {
		return revision <= b.History.Revision()
	}
	t.read.asked[revision] = true
	return true
}

// ask judges for somebody who waits, with what only the database knows. It is asked where everything else is so, and
// each time anew: it may be restored while somebody waits. Changed is closed at the next report.
func (b *Board) ask(ctx context.Context, t *Target) (l api.Live, done bool, changed <-chan struct{}) {
	t.read = readings{states: map[int64]string{}, asked: map[int64]bool{}}
	for {
		b.mu.Lock()
		if b.History != nil {
			t.Epoch = b.History.Epoch() // it is renewed where a backup was restored, also for what was written since
		}
		l, done = b.judge(*t)
		changed = b.changed
		b.mu.Unlock()
		if !done || len(t.read.asked) == 0 {
			return l, done, changed
		}
		for revision := range t.read.asked {
			was, err := b.History.StateAt(ctx, revision)
			if err != nil {
				return api.Live{Reason: "the database does not say what it has had: " + err.Error(), Proxies: l.Proxies},
					false, changed
			}
			t.read.states[revision] = was
		}
		clear(t.read.asked)
	}
}
