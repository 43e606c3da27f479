package issuance

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

const (
	// gather is how long writes wait for others: 200 certificates that are renewed at once are so a dozen revisions, and
	// not 400.
	gather = 100 * time.Millisecond
	// most are how many writes are one revision.
	most = 64
)

// write is one that is to be made.
type write struct {
	// words say what it is for, and go after "certificates: ".
	words string
	// plan decides what it comes to. An error is handed back, and takes nothing from the others.
	plan func(st *config.State) ([]writer.Desired, []resource.Ref, error)

	done chan written
}

// written is what came of it.
type written struct {
	writer.Result
	err error
}

// writes makes writes of several certificates together, as one revision.
type writes struct {
	writer *writer.Writer
	queue  chan write
}

func newWrites(w *writer.Writer) *writes { return &writes{writer: w, queue: make(chan write)} }

// do makes a write, together with others.
func (q *writes) do(ctx context.Context, w write) (writer.Result, error) {
	w.done = make(chan written, 1)
	select {
	case q.queue <- w:
	case <-ctx.Done():
		return writer.Result{}, ctx.Err()
	}
	select {
	case out := <-w.done:
		return out.Result, out.err
	case <-ctx.Done():
		return writer.Result{}, ctx.Err()
	}
}

func (q *writes) run(ctx context.Context) {
	for {
		var some []write
		select {
		case <-ctx.Done():
			return
		case w := <-q.queue:
			some = append(some, w)
		}
		for full := time.After(gather); len(some) < most && full != nil; {
			select {
			case w := <-q.queue:
				some = append(some, w)
			case <-full:
				full = nil
			}
		}
		q.make(ctx, some)
	}
}

// make makes writes as one revision. Where that is refused, each is made alone, so that one at fault is alone with it.
func (q *writes) make(ctx context.Context, some []write) {
	failed := make([]error, len(some))
	res, err := q.writer.Write(ctx, writer.Meta{Who: auth.System(), Message: message(some)},
		func(st *config.State) (p writer.Plan, err error) {
			taken := map[resource.Ref]bool{}
			for i, w := range some {
				upserts, deletes, err := w.plan(st)
				if failed[i] = err; err != nil {
					continue
				}
				for _, d := range upserts {
					if !taken[d.Ref] {
						p.Upserts, taken[d.Ref] = append(p.Upserts, d), true
					}
				}
				for _, r := range deletes {
					if !taken[r] {
						p.Deletes, taken[r] = append(p.Deletes, r), true
					}
				}
			}
			return p, nil
		})
	var refused *writer.Refused
	if len(some) > 1 && errors.As(err, &refused) {
		for _, w := range some {
			q.make(ctx, []write{w})
		}
		return
	}
	for i, w := range some {
		if failed[i] != nil {
			w.done <- written{err: failed[i]}
		} else {
			w.done <- written{res, err}
		}
	}
}

// message says what some writes are for.
func message(some []write) string {
	var b strings.Builder
	b.WriteString("certificates: ")
	for i, w := range some {
		if i > 0 {
			b.WriteString(", ")
		}
		if b.Len()+len(w.words) > 400 {
			b.WriteString("and others")
			break
		}
		b.WriteString(w.words)
	}
	return b.String()
}
