package writer

import (
	"context"
	"fmt"
	"maps"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// lost is the revision of a state that is not known to be right: all of it is read again.
const lost = -1

// reload reads the whole configuration.
func (w *Writer) reload(ctx context.Context) error {
	head, objects, err := w.store.Snapshot(ctx)
	if err != nil {
		return err
	}
	w.recent.forget()
	st := config.New()
	st.Apply(objects)
	if err := head.Describes(st); err != nil {
		return err
	}
	w.state, w.head = st, head
	w.show(resource.Digest(head.State))
	return nil
}

// catchUp makes the state what others have made of the database.
func (w *Writer) catchUp(ctx context.Context, read func(ctx context.Context, after int64) (store.News, error)) error {
	if w.head.Revision == lost {
		return w.again(ctx, "a write has failed in a way that may have left something behind")
	}
	news, err := read(ctx, w.head.Revision)
	if err != nil {
		return err
	}
	return w.follow(ctx, news)
}

// follow applies news, at the cost of what they have changed. The hash says in the end whether nothing was missed;
// where something was, and where the news are not all there, everything is read again.
func (w *Writer) follow(ctx context.Context, news store.News) error {
	switch {
	case news.Head.Epoch != w.head.Epoch:
		return w.again(ctx, "the database has another epoch")
	case news.Head.Equal(w.head):
		return nil
	case news.Head.Revision <= w.head.Revision:
		return w.again(ctx, fmt.Sprintf("the database went back: an older backup was restored, which is at revision %d",
			news.Head.Revision))
	case !news.Whole:
		return w.again(ctx, fmt.Sprintf("what has come until revision %d is more than can be followed, or not there any more",
			news.Head.Revision))
	}
	w.state.Apply(news.Objects)
	if !maps.Equal(w.state.Summary(), news.Head.State) {
		return w.again(ctx, fmt.Sprintf("what has come until revision %d does not make its hash", news.Head.Revision))
	}
	w.head = news.Head
	w.show(resource.Digest(news.Head.State))
	return nil
}

// again reads the whole configuration again, and says why.
func (w *Writer) again(ctx context.Context, why string) error {
	w.log.Warn("reading the whole configuration again", zap.String("because", why), zap.Int64("revision", w.head.Revision))
	w.head.Revision = lost // until it has been read
	return w.reload(ctx)
}

// Look follows what other apis have written, so that the next write finds little to do.
func (w *Writer) Look(ctx context.Context) error {
	after := w.Revision()
	news, err := w.store.News(ctx, after) // before the turn: writes go on meanwhile
	if err != nil {
		return err
	}
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-w.turn }()
	if news.Head.Epoch == w.head.Epoch && after <= news.Head.Revision && news.Head.Revision < w.head.Revision {
		return nil // a write has been faster
	}
	if w.head.Revision != after { // meanwhile
		return w.catchUp(ctx, w.store.News)
	}
	return w.follow(ctx, news)
}

// Read shows the state at the head, which must not be kept or changed. Writes wait meanwhile.
func (w *Writer) Read(ctx context.Context, look func(st *config.State)) error {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-w.turn }()
	if err := w.catchUp(ctx, w.store.News); err != nil {
		return err
	}
	look(w.state)
	return nil
}

// Hear follows a revision that another api has announced whole, which saves asking the database for it, and looks at
// the database where that is not the next one.
func (w *Writer) Hear(ctx context.Context, c store.Committed) error {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	next := w.head.Epoch == c.Commit.Epoch && w.head.Revision+1 == c.Commit.Revision && w.digest == c.Follows
	if next {
		defer func() { <-w.turn }()
		head := store.Head{Epoch: c.Commit.Epoch, Revision: c.Commit.Revision, State: c.Commit.State}
		return w.follow(ctx, store.News{Head: head, Objects: c.Objects, Whole: true})
	}
	<-w.turn
	if c.Commit.Epoch == w.Epoch() && w.State(c.Commit.Revision) == resource.Digest(c.Commit.State) {
		return nil // a write has been faster, and has read it
	}
	return w.Look(ctx)
}

// show lets readers see the present head, whose state has the digest.
func (w *Writer) show(digest string) {
	if now := w.head.State[resource.KindGateway]; w.gateways.Load() == nil || now != w.shown {
		names := w.state.Names(resource.KindGateway)
		w.gateways.Store(&names)
		w.shown = now
	}
	if e := w.epoch.Load(); e == nil || *e != w.head.Epoch {
		epoch := w.head.Epoch
		w.epoch.Store(&epoch)
	}
	w.digest = digest
	w.recent.add(w.head.Revision, digest)
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
