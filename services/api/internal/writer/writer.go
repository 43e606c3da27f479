// Package writer is the one way to change the configuration. It holds the whole of it in memory at the
// head's revision, tries each change there, and stores what passes every check as one revision.
//
// A change is checked under the lock of the database's head, against the state that it will follow, so
// that two writers cannot make together what neither could alone. What is refused leaves no trace: no
// revision, no row, no event.
package writer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// Meta is who writes, and why.
type Meta struct {
	Actor, Message, RequestID, Traceparent string
	// DryRun does everything but store.
	DryRun bool
	// Key is the idempotency key and Request a digest of the request, "" for none.
	Key     string
	Request []byte
}

// Desired is an object as it should be.
type Desired struct {
	Ref  resource.Ref
	Spec proto.Message
	// Owner and Labels stay as they are where they are nil; empty ones take them away.
	Owner  *string
	Labels map[string]string
	// KeepKeys keeps the stored api_keys of a gateway whose Spec has none: the write did not speak of them.
	KeepKeys bool
	// Path is where it stands in the request, for violations: $ or $.resources[3]; SpecPath where its spec
	// does.
	Path, SpecPath string
	// Stored says that the spec comes from the history: its secrets are sealed already.
	Stored bool
}

// Plan is what a write wants, decided when the state it follows is known.
type Plan struct {
	Upserts []Desired
	Deletes []resource.Ref
	// Owner is whose objects the Deletes must be, if anybody's; nil where the write does not say.
	Owner *string
	// TakeOver lets the write change and delete what another owner has.
	TakeOver bool
	// Status is the answer's HTTP status, and Answer its body in JSON: what an idempotency key remembers.
	Status int
	Answer func(Result) ([]byte, error)
}

// Result is what a write did.
type Result struct {
	Epoch    string
	Revision int64
	// Changes that were made, or would be on a dry run; empty where everything was as asked.
	Changes   []config.Change
	Unchanged int
	// Drains are the listeners whose connections the changes replace.
	Drains []translate.Drain
	// Replayed is the remembered answer of an earlier request with this idempotency key.
	Replayed *store.Answer
	Status   int
}

// Refused is why a write was not made.
type Refused struct {
	// Conflict says that all that is wrong is what is stored already: what is deleted is still used, or
	// belongs to another owner.
	Conflict   bool
	Violations resource.Violations
}

// Error lists the violations.
func (e *Refused) Error() string { return e.Violations.Error() }

// ErrKeyReused says that an idempotency key was used for another request.
var ErrKeyReused = errors.New("this Idempotency-Key was used for another request")

// ErrUnknown says that it is not known whether the write was stored.
var ErrUnknown = errors.New("the database did not confirm the write; it may have been stored")

// Writer writes. One write at a time is decided; the database's lock orders those of several apis.
type Writer struct {
	store  *store.Store
	box    *seal.Box
	notify func(store.Committed)
	// licenseKey is that of licenses which bring none.
	licenseKey string

	mu    sync.Mutex
	state *config.State
	head  store.Head // Revision -1: to be read again
	// For readers, who must not wait for a write that is under way.
	epoch    atomic.Pointer[string]
	gateways atomic.Pointer[[]string]
	revision atomic.Int64
}

// New reads the configuration. licenseKey is the key of licenses that bring none, "" for none. notify is
// handed each revision right after its commit, in order.
func New(ctx context.Context, s *store.Store, box *seal.Box, licenseKey string, notify func(store.Committed)) (*Writer, error) {
	w := &Writer{store: s, box: box, notify: notify, licenseKey: licenseKey, head: store.Head{Revision: -1}}
	return w, w.reload(ctx)
}

func (w *Writer) reload(ctx context.Context) error {
	head, objects, err := w.store.Snapshot(ctx)
	if err != nil {
		return err
	}
	st := config.New()
	st.Apply(objects)
	for kind, s := range st.Summary() {
		if head.State[kind] != s {
			return fmt.Errorf("the database does not agree with itself: %s has %d objects with hash %s, its head says %d with %s; restore a backup", kind, s.Count, s.Hash, head.State[kind].Count, head.State[kind].Hash)
		}
	}
	w.state, w.head = st, head
	w.show()
	return nil
}

// show lets readers see the present head.
func (w *Writer) show() {
	names := w.state.Names(resource.KindGateway)
	w.gateways.Store(&names)
	w.epoch.Store(&w.head.Epoch)
	w.revision.Store(w.head.Revision)
}

// Gateways lists the gateways by name, as of the newest revision that this api has seen. Callers must not
// change the list.
func (w *Writer) Gateways() []string { return *w.gateways.Load() }

// Revision is the newest one that this api has seen.
func (w *Writer) Revision() int64 { return w.revision.Load() }

// Epoch is the database's present life.
func (w *Writer) Epoch() string {
	if e := w.epoch.Load(); e != nil {
		return *e
	}
	return ""
}

// Look reads the configuration again where the database lives another life than this api has seen. Other apis'
// commits are read when they are needed, at the next write.
func (w *Writer) Look(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	head, err := w.store.Head(ctx)
	if err != nil || head.Epoch == w.head.Epoch {
		return err
	}
	return w.reload(ctx)
}

// Write makes one revision of what plan wants. A plan's own error is handed back as it is.
func (w *Writer) Write(ctx context.Context, meta Meta, plan func(st *config.State) (Plan, error)) (Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tx, err := w.store.Begin(ctx, meta.Actor, meta.Key)
	if err != nil {
		return Result{}, err
	}
	done := false
	defer func() {
		if !done {
			tx.Rollback(ctx)
		}
	}()
	if tx.Replay != nil {
		if !bytes.Equal(tx.Replay.Request, meta.Request) {
			return Result{}, ErrKeyReused
		}
		return Result{Epoch: tx.Epoch, Revision: tx.Revision - 1, Replayed: tx.Replay, Status: tx.Replay.Status}, nil
	}
	if w.head.Revision != tx.Revision-1 || w.head.Epoch != tx.Epoch {
		// Another api has written, or a write's outcome was not known.
		if err := w.reload(ctx); err != nil {
			return Result{}, err
		}
	}
	p, err := plan(w.state)
	if err != nil {
		return Result{}, err
	}
	now := time.Now()
	objects, unchanged, missing, err := w.objects(p, tx.Revision, now)
	if err != nil {
		return Result{}, err
	}
	before := translate.Before(w.state, objects)
	changes, undo := w.state.Apply(objects)
	if len(missing) > 0 {
		err := w.check(changes, p)
		undo()
		return Result{}, refuse(missing, err)
	}
	result := Result{Epoch: tx.Epoch, Revision: tx.Revision, Changes: changes, Unchanged: unchanged, Status: p.Status}
	if len(changes) == 0 {
		result.Revision--
	} else if err := w.check(changes, p); err != nil {
		undo()
		return Result{}, err
	}
	result.Drains = before.Drains(w.state, changes)
	if meta.DryRun {
		undo()
		result.Revision = tx.Revision - 1
		return result, nil
	}
	record := store.Record{
		At: now, Actor: meta.Actor, Message: meta.Message, RequestID: meta.RequestID, Traceparent: meta.Traceparent,
		State: w.state.Summary(), Changes: changes, Key: meta.Key,
	}
	if meta.Key != "" {
		answer, err := p.Answer(result)
		if err != nil {
			undo()
			return Result{}, err
		}
		record.Answer = store.Answer{Request: meta.Request, Status: p.Status, Response: answer}
	}
	if len(changes) == 0 {
		if meta.Key != "" {
			done = true
			if err := tx.Remember(ctx, record); err != nil {
				w.head.Revision = -1
				return Result{}, unknown(err)
			}
		}
		return result, nil
	}
	done = true
	if err := tx.Commit(ctx, record); err != nil {
		undo()
		w.head.Revision = -1
		return Result{}, unknown(err)
	}
	w.head = store.Head{Epoch: tx.Epoch, Revision: tx.Revision, State: record.State}
	w.show()
	w.notify(committed(w.head, record))
	return result, nil
}

// unknown is the error of a write that was not confirmed, as it is where the database has said that it did not store it.
func unknown(err error) error {
	if store.NotStored(err) {
		return err
	}
	return errors.Join(ErrUnknown, err)
}

func committed(h store.Head, r store.Record) store.Committed {
	c := store.Committed{Commit: stream.Commit{
		Epoch: h.Epoch, Revision: h.Revision, State: h.State, Actor: r.Actor, Message: r.Message,
		RequestID: r.RequestID, At: resource.Time(r.At), Traceparent: r.Traceparent,
	}}
	for _, x := range r.Changes {
		ref := x.Ref()
		o := x.After
		if o == nil {
			o = resource.Tombstone(ref, h.Revision)
		}
		c.Objects = append(c.Objects, o)
		c.Commit.Changes = append(c.Commit.Changes, stream.ChangedResource{Kind: ref.Kind, Name: ref.Name, Deleted: x.After == nil})
	}
	return c
}

// refuse adds what a check found to the secrets that are missing, so that everything is said at once.
func refuse(missing resource.Violations, err error) error {
	var more *Refused
	if errors.As(err, &more) {
		missing = append(missing, more.Violations...)
	} else if err != nil {
		return err
	}
	return &Refused{Violations: missing}
}

// objects makes the plan's objects, without those that are as asked already. Where secrets are missing, the
// objects have something in their place: they are for further checks alone.
func (w *Writer) objects(p Plan, revision int64, now time.Time) (out []*resource.Object, unchanged int, missing resource.Violations, err error) {
	if wrong := w.foreigners(p); len(wrong) > 0 {
		return nil, 0, nil, &Refused{Conflict: true, Violations: wrong[:min(len(wrong), 100)]}
	}
	var wrong resource.Violations
	for _, d := range p.Upserts {
		before := w.state.Get(d.Ref)
		owner, labels := d.envelope(before)
		spec, v := w.prepare(d, before)
		wrong = append(wrong, v...)
		if spec == nil {
			continue
		}
		o, err := resource.New(d.Ref, spec)
		if err != nil {
			return nil, 0, nil, err
		}
		if before != nil && bytes.Equal(before.Spec, o.Spec) && before.Owner == owner && maps.Equal(before.Labels, labels) {
			unchanged++
			continue
		}
		o.Owner, o.Labels, o.Revision = owner, labels, revision
		o.UpdatedAt = resource.Time(now)
		if before != nil {
			o.UID, o.CreatedAt = before.UID, before.CreatedAt
		} else {
			o.UID, o.CreatedAt = uuid.NewString(), o.UpdatedAt
		}
		out = append(out, o)
	}
	for _, r := range p.Deletes {
		out = append(out, resource.Tombstone(r, revision))
	}
	if !onlyMissing(wrong) {
		return nil, 0, nil, &Refused{Violations: wrong}
	}
	return out, unchanged, wrong, nil
}

// check applies every rule that needs more than the object itself.
func (w *Writer) check(changes []config.Change, p Plan) error {
	problems := w.state.Check(changes)
	if len(problems) == 0 { // dangling references would only be said twice
		problems = translate.Check(w.state, changes)
	}
	if len(problems) == 0 {
		return nil
	}
	paths := make(map[resource.Ref]string, len(p.Upserts))
	for _, d := range p.Upserts {
		paths[d.Ref] = d.SpecPath
	}
	e := &Refused{Conflict: true}
	for _, x := range problems[:min(len(problems), 100)] {
		v := x.Violation
		if path, mine := paths[x.Object]; mine {
			v.Path = path + strings.TrimPrefix(v.Path, "$")
		} else {
			v.Path = "$"
			v.Message = x.Object.String() + " " + v.Message
		}
		e.Conflict = e.Conflict && v.Rule == "reference.in_use"
		e.Violations = append(e.Violations, v)
	}
	slices.SortStableFunc(e.Violations, func(a, b resource.Violation) int { return strings.Compare(a.Path, b.Path) })
	return e
}
