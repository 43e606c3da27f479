package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// News says how soon what there is to report is to be reported.
type News int

const (
	// Nothing is another than it was said to be.
	Nothing News = iota
	// Some may come a little later.
	Some
	// Urgent news somebody may be waiting for.
	Urgent
)

// Reporter is what an xDS server has to report.
type Reporter interface {
	// Look brings what there is to report up to date, and says when to look again although nothing happens; 0 for never.
	Look(now time.Time) (n News, again time.Duration)
	// Say returns the pages that have changed and the report that goes with them.
	Say(now time.Time) ([]Message, XdsStatus, error)
	// Again returns some pages as they were, others at each call: within so many calls it was all of them.
	Again(calls int) []Message
}

// ReportXds publishes what a server has to report whenever changed is signalled, and at each heartbeat, until the
// context ends; then once more, as stopping. What is not urgent may come a little later.
func ReportXds(ctx context.Context, nc *nats.Conn, changed <-chan struct{}, r Reporter) error {
	connected := nc.StatusChanged(nats.CONNECTED)
	defer nc.RemoveStatusListener(connected)
	beat := time.NewTicker(Heartbeat)
	defer beat.Stop()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for pause := time.Duration(0); ; time.Sleep(pause) {
		if err := say(nc, r, false); err != nil && ctx.Err() == nil {
			// NATS is away; the client buffers, and what is lost is said again.
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		var later <-chan time.Time
		for due := false; !due; {
			select {
			case <-changed:
			case <-again.C:
			case <-later:
				due = true
			case <-connected: // a NATS that was restarted has lost what it kept in memory
				due = true
				publishPages(nc, r, 1)
			case <-beat.C:
				due = true
				publishPages(nc, r, repeats)
			case <-ctx.Done():
				_ = say(nc, r, true) // its silence will say so too
				_ = nc.FlushTimeout(time.Second)
				return nil
			}
			start := time.Now()
			news, next := r.Look(start)
			took := time.Since(start)
			if due = due || news == Urgent; later == nil && news == Some {
				later = time.After(calm)
			}
			if next > 0 {
				again.Reset(next)
			}
			pause = 0
			if took > dear {
				pause = min(4*took, calm)
			}
			if !due {
				time.Sleep(pause)
			}
		}
	}
}

// dear is what a look may take that is made at each ACK of an Envoy. Where there are so many that it takes longer, what
// they say in a while is looked at together.
const dear = 100 * time.Microsecond

// repeats is in how many heartbeats every page is said again.
const repeats = 4

func publishPages(nc *nats.Conn, r Reporter, calls int) {
	for _, m := range r.Again(calls) {
		_ = nc.Publish(m.subject, m.Data) // it comes again
	}
}

func say(nc *nats.Conn, r Reporter, stopping bool) error {
	pages, s, err := r.Say(time.Now())
	if err != nil {
		return err
	}
	for _, m := range pages {
		if e := nc.Publish(m.subject, m.Data); e != nil {
			err = e // the report's digest tells who lacks it, and the page comes again
		}
	}
	s.Stopping = stopping
	return errors.Join(err, publish(nc, s))
}

// Follower takes what xDS servers report.
type Follower interface {
	// Report takes a report, and says whether pages of it are missing. Fresh says that it comes as it is sent.
	Report(s XdsStatus, fresh bool) (missing bool)
	// Page takes a page.
	Page(p XdsPage, fresh bool)
	// Pages says of a server which pages the status stream has: there are no others.
	Pages(id string, there map[int32]bool)
}

// WatchXds hands over every report and every page that is another one than before, beginning with those that are kept,
// until the context ends. A report comes after its pages; where some were lost, they are read from the stream.
func WatchXds(ctx context.Context, nc *nats.Conn, js jetstream.JetStream, f Follower) error {
	w := &watch{f: f, known: map[string]uint64{}, seed: maphash.MakeSeed(), missing: make(chan string, 64)}
	sub, err := nc.Subscribe(xdsPrefix+">", func(m *nats.Msg) { w.take(m.Subject, m.Data, true) })
	if err != nil {
		return fmt.Errorf("watch status: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if !ensure(ctx, js) {
		return nil
	}
	w.read(ctx, js, "*")
	beat := time.NewTicker(Heartbeat)
	defer beat.Stop()
	there := newPresence(nc)
	for {
		select {
		case id := <-w.missing:
			w.read(ctx, js, id)
			select { // a server whose pages cannot be had is not asked for all the time
			case <-time.After(calm):
			case <-ctx.Done():
			}
		case now := <-beat.C:
			there.look(ctx, js, now)
		case <-ctx.Done():
			return nil
		}
	}
}

// ensure waits until the stream is there; a NATS that was restarted has lost its memory streams.
func ensure(ctx context.Context, js jetstream.JetStream) bool {
	beat := time.NewTicker(Heartbeat)
	defer beat.Stop()
	for Ensure(ctx, js) != nil {
		select {
		case <-beat.C:
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

type watch struct {
	f       Follower
	seed    maphash.Seed
	missing chan string       // servers of which pages are missing
	known   map[string]uint64 // the hash of the last message of each page's subject
}

// take hands a message over.
func (w *watch) take(subject string, data []byte, fresh bool) {
	id, _, paged := strings.Cut(strings.TrimPrefix(subject, xdsPrefix), ".")
	if !paged {
		var s XdsStatus
		if json.Unmarshal(data, &s) == nil && s.ID != "" && w.f.Report(s, fresh) && fresh {
			w.lack(s.ID)
		}
		return
	}
	if hash := maphash.Bytes(w.seed, data); fresh { // by one goroutine
		if w.known[subject] == hash {
			return // it is only said again
		}
		w.known[subject] = hash
	}
	var p XdsPage
	if json.Unmarshal(data, &p) == nil && p.ID == id && pageSubject(id, p.Page) == subject {
		w.f.Page(p, fresh)
	}
}

func (w *watch) lack(id string) {
	select {
	case w.missing <- id:
	default: // the next report says so again
	}
}

// read takes what the stream keeps of a server, or of all: the reports first, which say which process of the server
// counts.
func (w *watch) read(ctx context.Context, js jetstream.JetStream, id string) {
	s, err := js.Stream(ctx, StreamName)
	if err != nil {
		return
	}
	there := map[string]map[int32]bool{}
	for _, filter := range []string{xdsPrefix + id, xdsPrefix + id + ".*"} {
		info, err := s.Info(ctx, jetstream.WithSubjectFilter(filter))
		if err != nil {
			return
		}
		for subject := range info.State.Subjects {
			m, err := s.GetLastMsgForSubject(ctx, subject)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue // it has just ended
			}
			if err != nil {
				return
			}
			w.take(subject, m.Data, false)
			var p XdsPage
			if server, _, paged := strings.Cut(strings.TrimPrefix(subject, xdsPrefix), "."); json.Unmarshal(m.Data, &p) == nil {
				if there[server] == nil {
					there[server] = map[int32]bool{}
				}
				if paged {
					there[server][p.Page] = true
				}
			}
		}
	}
	for server, pages := range there {
		w.f.Pages(server, pages)
	}
}

// LastXds is what a server reported last; not ok where none of it is kept. It waits for NATS as long as the context
// lasts.
func LastXds(ctx context.Context, js jetstream.JetStream, id string) (*View, bool) {
	head, ok := Last[XdsStatus](ctx, js, id)
	if !ok {
		return nil, false
	}
	v := NewView()
	v.Report(head, false)
	w := &watch{f: one{v}, known: map[string]uint64{}, seed: maphash.MakeSeed()}
	w.read(ctx, js, id)
	return v, true
}

// one is the follower of one server.
type one struct{ *View }

// Report implements [Follower].
func (o one) Report(s XdsStatus, fresh bool) bool {
	o.View.Report(s, fresh)
	return false
}

// Page implements [Follower].
func (o one) Page(p XdsPage, fresh bool) { o.View.Page(p, fresh) }

// Pages implements [Follower].
func (o one) Pages(_ string, there map[int32]bool) { o.Prune(there) }
