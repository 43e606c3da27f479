package writer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/tracing"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// Limits of a group: of writes, of changes, after which no further write is taken into it, and of the time that the
// database may take.
const (
	maxGroup     = 64
	maxChanges   = 500
	groupTimeout = 30 * time.Second
)

// request is a write that waits to be made.
type request struct {
	meta Meta
	plan Planner
	// alone says that it is to be made without others: it asks for that, or one of its group was refused by the database.
	alone bool
	// came is when it began to wait, and from and to when it was decided last ([tracing.Now]).
	came, from, to time.Time

	done   chan struct{} // closed when what follows is set
	result Result
	err    error
	panics any
}

// Planner decides what a write wants when the state that it follows is known. It may be called several times: what
// was decided is decided again where it was not stored.
type Planner func(st *config.State) (Plan, error)

func (r *request) end(result Result, err error) {
	r.result, r.err = result, err
	close(r.done)
}

// queue holds the writes that nobody makes yet, in the order in which they came.
type queue struct {
	mu   sync.Mutex
	list []*request
}

func (q *queue) add(r *request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, r)
}

// again puts writes back before all others.
func (q *queue) again(list []*request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(slices.Clone(list), q.list...)
}

// withdraw takes a write back; false where somebody makes it already.
func (q *queue) withdraw(r *request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.list, r)
	if i >= 0 {
		q.list = slices.Delete(q.list, i, i+1)
	}
	return i >= 0
}

// take takes the next group. Of writes with one idempotency key only the first is in it: the others get its answer.
func (q *queue) take() []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, keys := 0, map[store.Key]bool{}
	for _, r := range q.list[:min(len(q.list), maxGroup)] {
		k := store.Key{Actor: r.meta.Who.Name, Key: r.meta.Key}
		if n > 0 && (r.alone || q.list[0].alone || (k.Key != "" && keys[k])) {
			break
		}
		keys[k] = true
		n++
	}
	out := slices.Clone(q.list[:n])
	q.list = slices.Delete(q.list, 0, n)
	return out
}

// Write makes one revision of what plan wants. A plan's own error is handed back as it is.
//
// Writes that come while others are being stored wait, and are then made together: in one transaction, of which
// each makes a revision of its own. Whoever of them has the turn first does it for all.
func (w *Writer) Write(ctx context.Context, meta Meta, plan Planner) (Result, error) {
	if meta.DryRun {
		return w.try(ctx, meta, plan)
	}
	r := &request{meta: meta, plan: plan, alone: meta.Alone, done: make(chan struct{}), came: tracing.Now()}
	w.queue.add(r)
	left := ctx.Done()
	for {
		select {
		case <-r.done:
			if r.panics != nil {
				panic(r.panics) // where the request is, as if nobody else had been there
			}
			return r.result, r.err
		case w.turn <- struct{}{}:
			w.lead(ctx, r)
			<-w.turn
		case <-left:
			if w.queue.withdraw(r) {
				return Result{}, ctx.Err()
			}
			left = nil // it is being made, and the plan is the caller's: its end has to be waited for
		}
	}
}

// lead makes groups until one's own write is among them. The turn must be held.
func (w *Writer) lead(ctx context.Context, own *request) {
	// Whoever leads may go away; the others' writes go on.
	ctx = context.WithoutCancel(ctx)
	for {
		select {
		case <-own.done:
			return
		default:
		}
		limit, cancel := context.WithTimeout(ctx, groupTimeout)
		w.together(limit, w.queue.take())
		cancel()
	}
}

// try does everything but store, and needs no lock of the database for that.
func (w *Writer) try(ctx context.Context, meta Meta, plan Planner) (Result, error) {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	defer func() { <-w.turn }()
	if err := w.catchUp(ctx, w.store.News); err != nil {
		return Result{}, err
	}
	whole := false
	defer func() {
		if !whole { // a plan has panicked, and what it has left is not known
			w.head.Revision = lost
		}
	}()
	d, err := w.decide(meta, plan, w.head.Epoch, w.head.Revision+1, nil)
	whole = true
	if err != nil {
		return Result{}, err
	}
	d.undo()
	d.result.Revision = w.head.Revision
	return d.result, nil
}

// member is a write of a group and what was decided.
type member struct {
	*request
	decided decision
	refused error
}

// together makes writes in one transaction. Each is decided in the state that those before it have made, and fails
// alone; what the database does not confirm, it does not confirm for all of them.
func (w *Writer) together(ctx context.Context, requests []*request) {
	var keys []store.Key
	for _, r := range requests {
		if r.meta.Key != "" {
			keys = append(keys, store.Key{Actor: r.meta.Who.Name, Key: r.meta.Key})
		}
	}
	fail := func(err error) {
		for _, r := range requests {
			r.end(Result{}, err)
		}
	}
	tx, err := w.store.Begin(ctx, keys)
	if err != nil {
		fail(err)
		return
	}
	if !w.head.Equal(tx.Head) {
		if err := w.catchUp(ctx, tx.News); err != nil {
			tx.Rollback(ctx)
			fail(err)
			return
		}
	}
	began := tracing.Now()
	members, next, follows := make([]member, 0, len(requests)), tx.Revision+1, w.digest
	var records []store.Record
	changes := 0
	for i, r := range requests {
		if changes > maxChanges {
			w.queue.again(requests[i:])
			break
		}
		r.from = tracing.Now()
		d, err := w.decideOne(r, tx, next, func() func([]config.Change) { return tx.Early(ctx, records, next) })
		r.to = tracing.Now()
		if r.panics != nil {
			// What it has left in the state is not known: everybody begins again, without it.
			tx.Rollback(ctx)
			w.head.Revision = lost
			w.queue.again(slices.Delete(slices.Clone(requests), i, i+1))
			close(r.done)
			return
		}
		if len(d.record.Changes) == 0 {
			tx.Drop(ctx, next)
		}
		d.record.Follows = follows
		members = append(members, member{r, d, err})
		if d.stores() {
			records = append(records, d.record)
		}
		if n := len(d.record.Changes); n > 0 {
			changes += n
			next++
			follows = d.result.State
		}
	}
	stored := tracing.Now()
	if len(records) == 0 {
		tx.Rollback(ctx)
	} else if err := tx.Commit(ctx, records); err != nil {
		trace(members, began, stored, err)
		w.failed(members, len(records), err)
		return
	}
	trace(members, began, stored, nil)
	for _, m := range members {
		if r := m.decided.record; len(r.Changes) > 0 {
			c := r.Committed(tx.Epoch)
			w.head = store.Head{Epoch: tx.Epoch, Revision: r.Revision, State: r.State}
			w.show(m.decided.result.State)
			w.notify(c)
		}
	}
	for _, m := range members {
		m.end(m.decided.result, m.refused)
	}
}

// trace records what the writes of a group went through: they waited for their turn until began, were decided one after
// the other, and stored together.
func trace(members []member, began, stored time.Time, err error) {
	if !tracing.On() {
		return
	}
	now := time.Now()
	for _, m := range members {
		whole := tracing.Parent(m.meta.Traceparent)
		tracing.Span(whole, "wait for the turn", m.came, began, nil)
		tracing.Span(whole, "decide", m.from, m.to, m.refused, attribute.Int("marchproxy.changes",
			len(m.decided.record.Changes)))
		if m.refused == nil && m.decided.stores() {
			tracing.Span(whole, "transaction", stored, now, err, attribute.Int("marchproxy.writes", len(members)),
				attribute.Int64("marchproxy.revision", m.decided.record.Revision))
		}
	}
}

// failed takes back what the database has not confirmed. Where it has refused one of several, each is tried again
// alone. What was refused before is decided again: it may be the others' fault, who have not been there now.
func (w *Writer) failed(members []member, records int, err error) {
	var again []*request
	for _, m := range slices.Backward(members) {
		if m.decided.undo != nil {
			m.decided.undo()
		}
		switch {
		case m.decided.stores() && records > 1 && store.NotStored(err):
			m.alone = true
			again = append(again, m.request)
		case m.decided.stores():
			m.end(Result{}, unknown(err))
		default:
			again = append(again, m.request)
		}
	}
	slices.Reverse(again)
	w.queue.again(again)
}

// unknown is the error of a write that was not confirmed, as it is where the database has said that it did not store
// it.
func unknown(err error) error {
	if store.NotStored(err) {
		return err
	}
	return errors.Join(ErrUnknown, err)
}

// decideOne decides a write of a group, or finds the answer that its idempotency key remembers.
func (w *Writer) decideOne(r *request, tx *store.Tx, revision int64, early early) (d decision, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.panics = fmt.Sprintf("%v\n\n%s", p, debug.Stack())
		}
	}()
	if a, ok := tx.Answers[store.Key{Actor: r.meta.Who.Name, Key: r.meta.Key}]; ok {
		if !bytes.Equal(a.Request, r.meta.Request) {
			return d, ErrKeyReused
		}
		return decision{result: Result{Epoch: tx.Epoch, Revision: revision - 1, Replayed: &a, Status: a.Status}}, nil
	}
	return w.decide(r.meta, r.plan, tx.Epoch, revision, early)
}

// Waiting is how many writes wait for those that are being made.
func (w *Writer) Waiting() int {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()
	return len(w.queue.list)
}
