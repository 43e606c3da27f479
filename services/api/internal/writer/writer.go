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
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/endpoint"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// Meta is who writes, and why.
type Meta struct {
	// Who writes: what is not allowed to them is refused.
	Who                             auth.Identity
	Message, RequestID, Traceparent string
	// DryRun does everything but store.
	DryRun bool
	// Alone has the write decided when all before it are stored: its plan reads the database.
	Alone bool
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
	// KeepApart keeps what is stored of the field that belongs to the place, where the kind has one: the write did not
	// speak of it.
	KeepApart bool
	// Path is where it stands in the request, for violations: $ or $.resources[3]; SpecPath where its spec
	// does.
	Path, SpecPath string
	// Stored says that the spec comes from the history: its secrets are sealed already.
	Stored bool

	made *made
}

// made is what [Desired.Make] has made.
type made struct {
	object   *resource.Object // without what depends on the one before
	problems []config.Problem
}

// Make does what can be done before the state is known that the write follows: nobody waits for it then, as other
// writers do for those whose turn it is, and requests do it side by side. Without it the write itself does.
func (d *Desired) Make() error {
	if hasSecrets(d.Spec) { // they may be those of the object before
		return nil
	}
	o, err := resource.New(d.Ref, d.Spec)
	if err != nil {
		return err
	}
	d.made = &made{o, translate.CheckAlone(o)}
	return nil
}

// object is the new object, without what depends on the one before.
func (d *Desired) object(spec proto.Message) (*resource.Object, error) {
	if d.made == nil || spec != d.Spec {
		return resource.New(d.Ref, spec)
	}
	o := *d.made.object // the write may be decided again
	return &o, nil
}

// Plan is what a write wants, decided when the state it follows is known.
type Plan struct {
	Upserts []Desired
	Deletes []resource.Ref
	// Owner is whose objects the Deletes must be, if anybody's; nil where the write does not say.
	Owner *string
	// Refused is why the write is not made for a reason of its own. Whether who writes may is said first.
	Refused error
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
	// State is the digest of the configuration at that revision; "" where it is not known.
	State string
	// Changes that were made, or would be on a dry run; empty where everything was as asked.
	Changes   []config.Change
	Unchanged int
	// Drains are the listeners whose connections the changes replace.
	Drains []translate.Drain
	// Warnings are what is accepted all the same, as far as it depends on other objects.
	Warnings []config.Problem
	// Replayed is the remembered answer of an earlier request with this idempotency key.
	Replayed *store.Answer
	Status   int
}

// Refused is why a write was not made.
type Refused struct {
	// Forbidden says that who writes may not.
	Forbidden bool
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

// Writer writes. One group of writes at a time is decided; the database's lock orders those of several apis.
type Writer struct {
	// Allowed are the addresses that services may have beside the ordinary ones; set it before the first write.
	Allowed endpoint.Allowed

	store  *store.Store
	box    *seal.Box
	log    *zap.Logger
	notify func(store.Committed)
	// environment are secrets of objects that bring none, by kind and field.
	environment map[string]string

	queue queue
	// turn is full while somebody has what follows.
	turn  chan struct{}
	state *config.State
	head  store.Head
	// digest is that of the head's state.
	digest string
	shown  resource.KindState // of the gateways that readers see
	// recent are the newest revisions that this api has seen.
	recent recent
	// For readers, who must not wait for a write that is under way.
	epoch    atomic.Pointer[string]
	gateways atomic.Pointer[[]string]
	revision atomic.Int64
}

// New reads the configuration. licenseKey is the key of licenses that bring none, "" for none. notify is
// handed each revision right after its commit, in order.
func New(
	ctx context.Context, s *store.Store, box *seal.Box, licenseKey string, log *zap.Logger, notify func(store.Committed),
) (*Writer, error) {
	w := &Writer{
		store: s, box: box, log: log, notify: notify, turn: make(chan struct{}, 1),
		environment: map[string]string{resource.KindLicense + ".key": licenseKey},
	}
	return w, w.reload(ctx)
}

// decision is what a write comes to. It is made in the state already.
type decision struct {
	result Result
	record store.Record
	undo   func()
}

// stores says whether there is anything to store: changes, or what an idempotency key is to remember.
func (d decision) stores() bool { return len(d.record.Changes) > 0 || d.record.Key != "" }

// early begins to store a large write before it is decided, and returns what takes its changes, a part after another.
type early func() (hand func([]config.Change))

// decide tries a write in the state, where it stays unless it fails. Changes are stored with the COMMIT, and those of a
// large write as soon as they are known, where early is not nil: what is refused has to be taken back then.
func (w *Writer) decide(meta Meta, plan Planner, epoch string, revision int64, early early) (decision, error) {
	p, err := plan(w.state)
	if err != nil {
		return decision{}, err
	}
	now := time.Now()
	objects, unchanged, missing, err := w.objects(meta.Who, p, revision, now)
	if err != nil {
		return decision{}, err
	}
	before := translate.Before(w.state, objects)
	if len(objects) <= store.Part || len(missing) > 0 {
		early = nil
	}
	changes, undo := w.apply(objects, early)
	if len(missing) > 0 {
		err := w.check(changes, p)
		undo()
		return decision{}, refuse(missing, err)
	}
	d := decision{result: Result{
		Epoch: epoch, Revision: revision, Changes: changes, Unchanged: unchanged,
		Status: p.Status,
	}, undo: undo}
	if len(changes) == 0 {
		d.result.Revision--
	} else if err := w.check(changes, p); err != nil {
		undo()
		return decision{}, err
	}
	d.result.Drains = before.Drains(w.state, changes)
	for _, c := range changes {
		if k := config.KindOf(c.Ref().Kind); k.WarnBeside != nil {
			d.result.Warnings = append(d.result.Warnings, k.WarnBeside(w.state, c)...)
		}
	}
	d.record = store.Record{
		Revision: revision, At: now, Actor: meta.Who.Name, ActorID: meta.Who.ID, Message: meta.Message,
		RequestID: meta.RequestID, Traceparent: meta.Traceparent,
		State: w.state.Summary(), Changes: changes, Key: meta.Key,
	}
	d.result.State = resource.Digest(d.record.State)
	if meta.Key != "" {
		answer, err := p.Answer(d.result)
		if err != nil {
			undo()
			return decision{}, err
		}
		d.record.Answer = store.Answer{Request: meta.Request, Status: p.Status, Response: answer}
	}
	return d, nil
}

// apply is [config.State.Apply], with the changes handed over as they are made.
func (w *Writer) apply(objects []*resource.Object, early early) (changes []config.Change, undo func()) {
	if early == nil {
		return w.state.Apply(objects)
	}
	var undos []func()
	hand := early()
	changes = make([]config.Change, 0, len(objects))
	for part := range slices.Chunk(objects, store.Part) {
		made, back := w.state.Apply(part)
		hand(made)
		changes, undos = append(changes, made...), append(undos, back)
	}
	return changes, func() {
		for _, back := range slices.Backward(undos) {
			back()
		}
	}
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
func (w *Writer) objects(
	who auth.Identity, p Plan, revision int64, now time.Time,
) (out []*resource.Object, unchanged int, missing resource.Violations, err error) {
	var wrong, denied resource.Violations
	for _, d := range p.Upserts {
		before := w.state.Get(d.Ref)
		owner, labels := d.envelope(before)
		spec, v := w.prepare(d, before)
		wrong = append(wrong, v...)
		if spec == nil {
			denied = append(denied, w.deny(who, d, before, nil)...)
			continue
		}
		o, err := d.object(spec)
		if err != nil {
			return nil, 0, nil, err
		}
		o.Owner, o.Labels, o.Revision = owner, labels, revision
		same := before != nil && bytes.Equal(before.Spec, o.Spec) && before.Owner == owner &&
			maps.Equal(before.Labels, labels)
		if same && d.Stored {
			unchanged++ // a rollback did not name it
			continue
		}
		denied = append(denied, w.deny(who, d, before, o)...)
		if same {
			unchanged++
			continue
		}
		o.UpdatedAt = resource.Time(now)
		if before != nil {
			// They may be parts of the former payload, which would stay with them.
			o.UID, o.CreatedAt = strings.Clone(before.UID), strings.Clone(before.CreatedAt)
		} else {
			o.UID, o.CreatedAt = uuid.NewString(), o.UpdatedAt
		}
		out = append(out, o)
	}
	for _, r := range p.Deletes {
		denied = append(denied, w.deny(who, Desired{Ref: r}, w.state.Get(r), nil)...)
		out = append(out, resource.Tombstone(r, revision))
	}
	if len(denied) > 0 { // and nothing else is said: it could tell what is stored
		return nil, 0, nil, &Refused{Forbidden: true, Violations: denied.First()}
	}
	if p.Refused != nil {
		return nil, 0, nil, p.Refused
	}
	if foreign := w.foreigners(p); len(foreign) > 0 {
		return nil, 0, nil, &Refused{Conflict: true, Violations: foreign.First()}
	}
	if !config.OnlyMissing(wrong) {
		return nil, 0, nil, &Refused{Violations: wrong}
	}
	return out, unchanged, wrong, nil
}

// deny says why who writes may not write an object, as the request names it.
func (w *Writer) deny(who auth.Identity, d Desired, before, after *resource.Object) resource.Violations {
	v := auth.Check(who, auth.Operation{Role: auth.Editor, Kind: d.Ref.Kind}, w.state, before, after)
	for i := range v {
		if d.Path == "" || d.Stored {
			v[i].Path, v[i].Message = "$", d.Ref.String()+": "+v[i].Message
		} else {
			v[i].Path = d.Path + strings.TrimPrefix(v[i].Path, "$")
		}
	}
	return v
}

// alone says what [translate.CheckAlone] has found in an object of the plan, or finds it.
func (p Plan) alone() func(*resource.Object) []config.Problem {
	known := make(map[resource.Ref]*made, len(p.Upserts))
	for _, d := range p.Upserts {
		if d.made != nil {
			known[d.Ref] = d.made
		}
	}
	return func(o *resource.Object) []config.Problem {
		if m := known[o.Ref()]; m != nil {
			return m.problems
		}
		return translate.CheckAlone(o)
	}
}

// check applies every rule that needs more than the object itself.
func (w *Writer) check(changes []config.Change, p Plan) error {
	problems := append(w.state.Check(changes), w.endpoints(changes)...)
	if len(problems) == 0 { // dangling references would only be said twice
		problems = translate.CheckIn(w.state, changes, p.alone())
	}
	if len(problems) == 0 {
		return nil
	}
	paths := make(map[resource.Ref]string, len(p.Upserts))
	for _, d := range p.Upserts {
		paths[d.Ref] = d.SpecPath
	}
	e := &Refused{Conflict: true}
	for _, x := range problems[:min(len(problems), resource.MaxViolations)] {
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
