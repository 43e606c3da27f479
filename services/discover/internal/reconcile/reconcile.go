package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/tracing"

	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// Writer is the api.
type Writer interface {
	// Apply writes, and returns the revision from which on it is so; a refusal is an error that [errors.As] makes a
	// *Refused.
	Apply(ctx context.Context, r api.ApplyRequest) (revision int64, err error)
	// Revision is the newest that there is.
	Revision(ctx context.Context) (int64, error)
	// Labelled lists the objects of a kind that have a label.
	Labelled(ctx context.Context, kind, name, value string) ([]api.Object, error)
}

// Refused is the api's answer to a write that it does not make, whenever it is asked.
type Refused struct {
	Status  int
	Message string
}

// Error implements error.
func (r *Refused) Error() string { return r.Message }

// Options tune a reconciler.
type Options struct {
	Naming
	// Remove is how long a workload has to be gone before its Service and Routes go: compose removes a container before it
	// makes the next one. Its endpoints go at once.
	Remove time.Duration
	// Again is when what was refused is tried again, without a change: what it was refused for may be gone.
	Again time.Duration
	// Look is how often it is looked whether somebody else has changed what was written: a rollback brings back what was
	// removed, and takes away what has come since.
	Look time.Duration
	// Parallel is how many applies are made at a time.
	Parallel int
	Log      *zap.Logger
}

// Reconciler keeps the configuration equal to what sources have found. It is safe for concurrent use.
type Reconciler struct {
	opt  Options
	api  Writer
	wake chan struct{}

	mu    sync.Mutex
	items map[string]*item // by source and key
	// begun are the sources that have handed over anything, and full those of which that was not nothing.
	begun, full map[string]bool
	left        bool  // what earlier lives have left is known
	looked      int64 // the newest revision when it was looked last
	applies     int64
	failures    int64
}

// item is a workload.
type item struct {
	source, key string
	found       source.Workload // as the source handed it over last
	want        wanted
	digest      string // of want
	done        string // the digest that is written, "" for none
	refused     string // the digest that was refused
	retry       time.Time
	gone        time.Time // when it was last there; zero while it is
	changed     time.Time // when want was made
	revision    int64     // from which on it is as it was written last
	wrote       time.Time // when that was
	problems    []string
	routes      map[string]api.Object // others as they were written last, by kind and name
	busy        bool
}

// New makes one.
func New(w Writer, opt Options) *Reconciler {
	return &Reconciler{
		opt: opt, api: w, wake: make(chan struct{}, 1), items: map[string]*item{}, begun: map[string]bool{},
		full: map[string]bool{},
	}
}

// Found takes all that a source has found.
func (r *Reconciler) Found(name string, all []source.Workload) {
	now := time.Now()
	r.mu.Lock()
	r.begun[name] = true
	r.full[name] = r.full[name] || len(all) > 0
	there := map[string]bool{}
	for _, w := range all {
		if name != "docker" { // keys of sources are apart
			w.Key = name + ":" + w.Key
		}
		id := name + " " + w.Key
		there[id] = true
		x := r.items[id]
		if x == nil {
			x = &item{source: name, key: w.Key, routes: map[string]api.Object{}}
			r.items[id] = x
			delete(r.items, leftID(r.opt.owner(r.opt.setOwner(), w.Key))) // an earlier life had it as well
		}
		if x.gone.IsZero() && reflect.DeepEqual(x.found, w) {
			continue // a source hands over everything at each change
		}
		x.gone, x.found = time.Time{}, w
		r.set(x, r.opt.of(w))
	}
	for id, x := range r.items {
		if x.source == name && !there[id] && x.gone.IsZero() && r.full[name] {
			x.gone = now
			r.set(x, r.without(x.want))
		}
	}
	r.mu.Unlock()
	r.poke()
}

// without is a workload's objects while it is gone, and may be back: without endpoints.
func (r *Reconciler) without(w wanted) wanted {
	if w.set == nil {
		return w
	}
	set := *w.set
	var spec map[string]json.RawMessage
	if json.Unmarshal(set.Spec, &spec) == nil {
		spec["endpoints"] = json.RawMessage("[]")
		set.Spec, _ = json.Marshal(spec) // it was read
	}
	w.set = &set
	return w
}

// set has an item be something else. Call it with the lock held.
func (r *Reconciler) set(x *item, w wanted) {
	x.want = w
	raw, err := json.Marshal([]any{w.set, w.others, w.kept})
	if err != nil {
		panic(err) // of objects that were made of JSON
	}
	if x.digest = string(raw); x.digest != x.done && x.digest != x.refused {
		x.retry, x.changed = time.Time{}, time.Now()
	}
	if !slices.Equal(x.problems, w.problems) && x.digest == x.done {
		x.problems = w.problems
	}
}

func (r *Reconciler) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run writes until the context ends.
func (r *Reconciler) Run(ctx context.Context) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	turns := make(chan struct{}, max(1, r.opt.Parallel))
	var writing sync.WaitGroup
	defer writing.Wait()
	looks := time.NewTicker(r.opt.Look)
	defer looks.Stop()
	writing.Go(func() { // beside the writes, which do not wait for it
		for ; ; r.poke() {
			select {
			case <-ctx.Done():
				return
			case <-looks.C:
			}
			if r.known() {
				r.tryLook(ctx)
			}
		}
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-tick.C:
		}
		if !r.known() {
			if r.tryLook(ctx); r.known() { // nothing is written before it is known what is there
				r.poke()
			}
			continue
		}
		for _, x := range r.due(time.Now()) {
			turns <- struct{}{}
			writing.Go(func() {
				defer func() { <-turns; r.poke() }()
				r.write(ctx, x)
			})
		}
	}
}

// tryLook looks, and notes where that fails.
func (r *Reconciler) tryLook(ctx context.Context) {
	if err := r.look(ctx); err != nil && ctx.Err() == nil {
		r.opt.Log.Warn("the api cannot be asked what is there", zap.Error(err))
		r.fail()
	}
}

// known says whether it is known what earlier lives have left.
func (r *Reconciler) known() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left
}

// look compares what there is with what was written, where anything has changed since: what somebody else has changed is
// written again, and what nobody here has goes. That is what an earlier life of this program has left, and what a
// rollback has brought back.
func (r *Reconciler) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	began := time.Now()
	head, err := r.api.Revision(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	same := r.left && head == r.looked
	r.mu.Unlock()
	if same {
		return nil
	}
	there := map[string][]api.Object{} // by owner
	for _, kind := range []string{resource.KindEndpointSet, resource.KindService, resource.KindRoute} {
		name, value := SiteLabel, r.opt.Site
		if kind != resource.KindEndpointSet && r.opt.shares() {
			name, value = SharedLabel, r.opt.shared()
		}
		all, err := r.api.Labelled(ctx, kind, name, value)
		if err != nil {
			return err
		}
		for _, o := range all {
			there[o.Owner] = append(there[o.Owner], o)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	found, whole := map[string]bool{}, true
	for _, x := range r.items {
		own := r.opt.owner(r.opt.setOwner(), x.key)
		found[own] = true
		all := there[own]
		if r.opt.shares() {
			all = slices.Concat(all, there[r.opt.owner(r.opt.Owner, x.key)])
		}
		// What is being written, or was after the question, is newer than the answer.
		if x.busy || x.wrote.After(began) {
			whole = false
			continue
		}
		if x.digest != x.done || x.done == left || x.as(all) {
			continue
		}
		r.opt.Log.Info("what was written is not what is there; it is written again", zap.String("workload", x.key))
		x.done = ""
	}
	for owner, all := range there {
		key, mine := strings.CutPrefix(owner, r.opt.setOwner()+"/")
		if !mine || found[owner] || len(all) == 0 {
			continue
		}
		name, _, other := strings.Cut(key, ":")
		if !other {
			name = "docker"
		}
		// Nothing goes until its source has found something.
		r.items[leftID(owner)] = &item{
			source: name, key: key, want: wanted{key: key}, routes: map[string]api.Object{},
			done: left, digest: left, gone: time.Now(),
		}
	}
	if r.left = true; whole {
		r.looked = head
	}
	return nil
}

// left is the digest of what is not known here, and is to go.
const left = "left"

// as says whether what is there of an item is what was written.
func (x *item) as(there []api.Object) bool {
	names := map[string]bool{}
	for _, o := range there {
		if o.Revision > x.revision {
			return false
		}
		names[o.Kind+"/"+o.Name] = true
	}
	for name := range x.routes {
		if !names[name] {
			return false
		}
		delete(names, name)
	}
	if x.want.set != nil {
		name := x.want.set.Kind + "/" + x.want.set.Name
		if !names[name] {
			return false
		}
		delete(names, name)
	}
	// What stays because its labels cannot be read may be of an earlier life.
	return len(names) == 0 || len(x.want.kept) > 0
}

// leftID is that of an item which an earlier life has left, by the owner of its set.
func leftID(owner string) string { return "left " + owner }

// due are the items that have to be written.
func (r *Reconciler) due(now time.Time) (out []*item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(r.items)) {
		x := r.items[id]
		if x.busy || now.Before(x.retry) {
			continue
		}
		leaves := !x.gone.IsZero() && now.Sub(x.gone) >= r.opt.Remove && r.full[x.source]
		if leaves || x.digest != x.done {
			x.busy = true
			out = append(out, x)
		}
	}
	return out
}

// write writes one workload.
func (r *Reconciler) write(ctx context.Context, x *item) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r.mu.Lock()
	want, digest, changed := x.want, x.digest, x.changed
	leaves := !x.gone.IsZero() && time.Since(x.gone) >= r.opt.Remove
	last := maps.Clone(x.routes)
	r.mu.Unlock()
	if leaves {
		err := r.remove(ctx, x.key)
		r.mu.Lock()
		defer r.mu.Unlock()
		x.busy = false
		switch {
		case err != nil:
			r.failed(x, err)
		case !x.gone.IsZero():
			maps.DeleteFunc(r.items, func(_ string, y *item) bool { return y == x })
			r.opt.Log.Info("removed what is gone", zap.String("workload", x.key))
		default: // it came back meanwhile
			x.done = ""
		}
		return
	}
	if tracing.On() {
		var span trace.Span
		ctx, span = tracing.Begin(ctx, "discover", changed, attribute.String("marchproxy.workload", x.key))
		defer span.End()
	}
	problems, written, revision, err := r.apply(ctx, want, last)
	r.mu.Lock()
	defer r.mu.Unlock()
	x.busy = false
	if err != nil {
		r.failed(x, err)
		return
	}
	x.routes, x.revision, x.wrote = written, revision, time.Now()
	all := slices.Concat(want.problems, problems)
	if !slices.Equal(all, x.problems) {
		for _, p := range all {
			r.opt.Log.Warn("a part of a workload is not served as its labels say", zap.String("workload", x.key),
				zap.String("problem", p))
		}
	}
	x.problems = all
	if len(problems) > 0 { // tried again later, whatever changes elsewhere
		x.done, x.refused, x.retry = "", digest, time.Now().Add(r.opt.Again)
		return
	}
	if x.done != digest {
		r.opt.Log.Info("written", zap.String("workload", x.key), zap.Int("objects", len(want.others)+1))
	}
	x.done, x.refused = digest, ""
}

// failed notes that the api did not answer, or refused everything. Call it with the lock held.
func (r *Reconciler) failed(x *item, err error) {
	r.failures++
	pause := time.Second
	x.wrote = time.Now() // a part of it perhaps
	var refused *Refused
	if errors.As(err, &refused) {
		pause, x.refused = r.opt.Again, x.digest
	}
	x.problems, x.retry = []string{err.Error()}, time.Now().Add(pause)
	r.opt.Log.Warn("a workload cannot be written", zap.String("workload", x.key), zap.Error(err))
}

func (r *Reconciler) fail() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures++
}

// apply writes a workload's objects: at once, and one by one where that is refused. problems are what was refused.
func (r *Reconciler) apply(
	ctx context.Context, want wanted, last map[string]api.Object,
) (problems []string, written map[string]api.Object, revision int64, err error) {
	others := slices.Clone(want.others)
	for _, name := range want.kept {
		if o, known := last[name]; known {
			others = append(others, o)
		}
	}
	// What is kept and not known here, of an earlier life perhaps, must not go.
	prune := !slices.ContainsFunc(want.kept, func(name string) bool { _, known := last[name]; return !known })
	revision, err = r.send(ctx, want, others, prune)
	var refused *Refused
	if !errors.As(err, &refused) {
		return nil, named(others), revision, err
	}
	if refused.Status == 401 || len(others) == 0 {
		return nil, nil, 0, err
	}
	// One by one: the Service with its endpoints, then each route.
	written = map[string]api.Object{}
	var first, routes []api.Object
	for _, o := range others {
		if o.Kind == resource.KindService {
			first = append(first, o)
		} else {
			routes = append(routes, o)
		}
	}
	revision, err = r.send(ctx, want, first, false)
	if errors.As(err, &refused) && len(first) > 0 {
		problems = append(problems, fmt.Sprintf("Service %s: %s", first[0].Name, refused.Message))
		first = nil
		revision, err = r.send(ctx, want, nil, false) // its endpoints may be served all the same
	}
	if err != nil {
		return nil, nil, 0, err
	}
	maps.Copy(written, named(first))
	for _, o := range routes {
		at, err := r.send(ctx, wanted{key: want.key}, []api.Object{o}, false)
		switch {
		case errors.As(err, &refused):
			problems = append(problems, fmt.Sprintf("%s %s: %s", o.Kind, o.Name, refused.Message))
		case err != nil:
			return nil, nil, 0, err
		default:
			written[o.Kind+"/"+o.Name] = o
			revision = max(revision, at)
		}
	}
	return problems, written, revision, nil
}

func named(all []api.Object) map[string]api.Object {
	out := map[string]api.Object{}
	for _, o := range all {
		out[o.Kind+"/"+o.Name] = o
	}
	return out
}

// send is one apply, or two where sites share the services.
func (r *Reconciler) send(
	ctx context.Context, want wanted, others []api.Object, prune bool,
) (revision int64, err error) {
	var sets []api.Object
	if want.set != nil {
		sets = []api.Object{*want.set}
	}
	if !r.opt.shares() {
		return r.once(ctx, r.opt.Owner, want.key, slices.Concat(others, sets), prune)
	}
	if len(others) > 0 || prune {
		if revision, err = r.once(ctx, r.opt.Owner, want.key, others, prune); err != nil {
			return 0, err
		}
	}
	if len(sets) == 0 {
		return revision, nil
	}
	return r.once(ctx, r.opt.setOwner(), want.key, sets, false)
}

// remove deletes what a workload has. What other sites share stays as long as one of them has endpoints of it.
func (r *Reconciler) remove(ctx context.Context, key string) error {
	if _, err := r.once(ctx, r.opt.setOwner(), key, nil, true); err != nil || !r.opt.shares() {
		return err
	}
	_, err := r.once(ctx, r.opt.Owner, key, nil, true)
	var refused *Refused
	if errors.As(err, &refused) && refused.Status == 409 {
		return nil
	}
	return err
}

func (r *Reconciler) once(
	ctx context.Context, owner, key string, all []api.Object, prune bool,
) (revision int64, err error) {
	r.mu.Lock()
	r.applies++
	r.mu.Unlock()
	if all == nil {
		all = []api.Object{}
	}
	began := tracing.Now()
	revision, err = r.api.Apply(ctx, api.ApplyRequest{
		Owner: r.opt.owner(owner, key), Prune: prune, AllowEmpty: prune, Resources: all,
		Message: "found at " + r.opt.Site + ": " + key,
	})
	if tracing.On() {
		tracing.Span(tracing.Of(ctx), "apply", began, time.Now(), err, attribute.Int64("marchproxy.revision", revision))
	}
	return revision, err
}

// Status is what a reconciler knows of itself.
type Status struct {
	// Workloads are those that there are, Pending those that are not written.
	Workloads, Pending int
	Applies, Failures  int64
	// Problems are by workload.
	Problems map[string][]string
	// Began says that a source has handed over something, and that the api was asked.
	Began bool
}

// Status says how it is.
func (r *Reconciler) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := Status{
		Workloads: len(r.items), Applies: r.applies, Failures: r.failures, Problems: map[string][]string{},
		Began: r.left && len(r.begun) > 0,
	}
	for _, x := range r.items {
		if x.digest != x.done {
			out.Pending++
		}
		if len(x.problems) > 0 {
			out.Problems[x.key] = x.problems
		}
	}
	return out
}
