package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/marchproxy/marchproxy/pkg/config"
)

// Part is how many changes are stored at once before their write is decided. A write of fewer is stored with its
// COMMIT.
const Part = 1000

// early is a large write whose changes are stored while it is still being decided.
type early struct {
	revision int64
	parts    chan []config.Change
	done     chan struct{} // closed when all that came is stored, or err is set
	err      error
}

// Early has the changes of a large write stored while it is still being decided, so that the database and the api work
// on it at once: other writes wait for both. It stores the changes of those before it in the transaction first. The
// write hands its changes over, a part after another in their order, and then [Tx.Commit] has it among its records, or
// [Tx.Drop] takes back what is stored of it. Nobody may use the transaction otherwise meanwhile.
func (t *Tx) Early(ctx context.Context, before []Record, revision int64) (hand func([]config.Change)) {
	_ = t.settle() // the COMMIT says it
	e := &early{revision: revision, parts: make(chan []config.Change, 16), done: make(chan struct{})}
	before = t.left(before)
	for _, r := range before {
		t.stored[r.Revision] = true
	}
	t.early, t.stored[revision] = e, true
	batches := make(chan *pgx.Batch, 1) // the next one is made while the database has one
	go func() {
		defer close(batches)
		b := &pgx.Batch{}
		queueChanges(b, before)
		b.Queue(`SAVEPOINT early`)
		batches <- b
		for part := range e.parts {
			b := &pgx.Batch{}
			queueChanges(b, []Record{{Revision: revision, Changes: part}})
			batches <- b
		}
	}()
	go func() {
		defer close(e.done)
		for b := range batches {
			if e.err == nil {
				e.err = t.conn.SendBatch(ctx, b).Close()
			}
		}
	}()
	return func(part []config.Change) { e.parts <- part }
}

// Drop takes back what [Tx.Early] has stored of a revision that is not made after all. Where that fails, so does the
// transaction.
func (t *Tx) Drop(ctx context.Context, revision int64) {
	e := t.early
	if e == nil || e.revision != revision {
		return
	}
	was := t.broken
	_ = t.settle() // whatever became of it is taken back
	t.broken = was
	delete(t.stored, e.revision)
	if _, err := t.conn.Exec(ctx, `ROLLBACK TO SAVEPOINT early`); err != nil && was == nil {
		t.broken = fmt.Errorf("take back what was refused: %w", err)
	}
}

// settle waits for what is being stored early, and says what became of it.
func (t *Tx) settle() error {
	if e := t.early; e != nil {
		t.early = nil
		close(e.parts)
		if <-e.done; t.broken == nil {
			t.broken = e.err
		}
	}
	return t.broken
}

// left are the records whose changes are not stored yet.
func (t *Tx) left(records []Record) (out []Record) {
	for _, r := range records {
		if len(r.Changes) > 0 && !t.stored[r.Revision] {
			out = append(out, r)
		}
	}
	return out
}
