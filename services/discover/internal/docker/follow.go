package docker

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/engine"
	"github.com/marchproxy/marchproxy/pkg/labels"

	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// parallel is how many containers are read at a time after events. One that the engine is busy with holds up itself.
const parallel = 8

// shortPause is how long is waited after a list that failed; twice as long after each one that follows, up to a relist.
const shortPause = 100 * time.Millisecond

// follower is one connection to the engine: which questions are asked, and which are to be.
type follower struct {
	*Docker
	health func(error)
	// answers are taken by the goroutine that has what is known, one after the other.
	answers chan func()

	// listing are the events since the list was asked for that is not answered yet; nil where none is asked for.
	listing *[]engine.Event
	// due says that a list is to be asked for, failed that the last one could not be had: then the next one waits for when,
	// which is when one is due in any case. pause is how long it waits.
	due, failed bool
	when        *time.Timer
	pause       time.Duration
	listed      bool // a list was taken, which has not been told

	// reading are the containers that are asked for, with the events since.
	reading map[string]*[]engine.Event
	// urgent are those to be read after events, and idle those that can wait, which are read one at a time; idling says that
	// one is.
	urgent, idle queue
	idling       bool
}

// queue has each container once, in order.
type queue struct {
	ids []string
	has map[string]bool
}

func (q *queue) push(id string) {
	if q.has == nil {
		q.has = map[string]bool{}
	}
	if !q.has[id] {
		q.ids, q.has[id] = append(q.ids, id), true
	}
}

func (q *queue) pop() string {
	id := q.ids[0]
	q.ids = q.ids[1:]
	delete(q.has, id)
	return id
}

// follow keeps what is known as the engine has it, until the stream of events ends, or a ping is not answered.
func (d *Docker) follow(ctx context.Context, found func([]source.Workload), health func(error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &follower{
		Docker: d, health: health, answers: make(chan func()), when: time.NewTimer(d.opt.Relist), pause: shortPause,
		reading: map[string]*[]engine.Event{},
	}
	defer f.when.Stop()
	opened, happened, ended := make(chan struct{}), make(chan engine.Event, 100), make(chan error, 2)
	go func() { ended <- d.events(ctx, opened, happened) }()
	go func() { ended <- d.ping(ctx) }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		case <-opened: // the events come first, so that none falls between them and the list
			opened, f.due = nil, true
		case <-f.when.C:
			f.due, f.failed = opened == nil, false
		case e := <-happened:
			f.event(e)
			for len(happened) > 0 { // all that is there is told at once
				f.event(<-happened)
			}
		case take := <-f.answers:
			take()
		}
		f.ask(ctx)
		if k := d.known; k.listed && (f.listed || len(k.changed) > 0) {
			f.listed = false
			found(k.all())
		}
	}
}

// event takes what happened.
func (f *follower) event(e engine.Event) {
	id := subject(e)
	if id == "" {
		if word, _ := e.Words(); word == "connect" || word == "disconnect" {
			f.due = true // of whom is not said
		}
		return
	}
	if f.listing != nil {
		*f.listing = append(*f.listing, e)
	}
	read := f.known.happened(id, e, time.Now())
	if since := f.reading[id]; since != nil {
		*since = append(*since, e) // it is read again after the answer, where it has to be
		return
	}
	f.want(id, read)
}

// want has a container be read.
func (f *follower) want(id string, read reading) {
	switch read {
	case now:
		f.urgent.push(id)
	case later:
		f.idle.push(id)
	case no:
	}
}

// ask asks what is to be asked, as far as may be at a time.
func (f *follower) ask(ctx context.Context) {
	if f.due && !f.failed && f.listing == nil {
		f.due, f.listing = false, &[]engine.Event{}
		go func() {
			all, err := f.list(ctx)
			f.answer(ctx, func() { f.takeList(all, err) })
		}()
	}
	for len(f.urgent.ids) > 0 && len(f.reading) < parallel {
		f.read(ctx, f.urgent.pop(), true)
	}
	for len(f.idle.ids) > 0 && !f.idling {
		if id := f.idle.pop(); f.known.containers[id] != nil && !f.urgent.has[id] {
			f.read(ctx, id, false)
		}
	}
}

// read asks for a container, unless that is done already.
func (f *follower) read(ctx context.Context, id string, urgent bool) {
	if f.reading[id] != nil {
		return
	}
	f.reading[id] = &[]engine.Event{}
	f.idling = f.idling || !urgent
	go func() {
		c, how, err := f.inspect(ctx, id)
		f.answer(ctx, func() {
			f.idling = f.idling && urgent
			f.take(id, urgent, c, how, err)
		})
	}()
}

// answer hands over what takes an answer.
func (f *follower) answer(ctx context.Context, take func()) {
	select {
	case f.answers <- take:
	case <-ctx.Done():
	}
}

// takeList takes the answer to a list. What failed changes nothing of what is known.
func (f *follower) takeList(all []Container, err error) {
	since := *f.listing
	f.listing = nil
	if err != nil {
		f.health(err)
		f.opt.Log.Warn("the containers cannot be listed; what is known of them is kept, and events of them count",
			zap.String("docker", f.opt.Host), zap.Duration("again_after", f.pause), zap.Error(err))
		f.failed = true
		f.when.Reset(f.pause)
		f.pause = min(2*f.pause, f.opt.Relist)
		return
	}
	f.known.list(all, since, time.Now())
	for id, x := range f.known.containers {
		if !x.asked && x.State == "running" && labels.ReadBasics(x.Labels).Enabled {
			f.idle.push(id)
		}
	}
	f.listed, f.pause = true, shortPause
	f.when.Reset(f.opt.Relist)
	f.health(nil)
}

// take takes the answer about one container. Where there was none, because a filter between refuses it or is of another
// version, or the engine cannot, a list has to say what an event did not.
func (f *follower) take(id string, urgent bool, c *Container, how stop, err error) {
	since := *f.reading[id]
	delete(f.reading, id)
	said := c
	if said == nil {
		said = &Container{}
	}
	again, gone := said.followAll(since)
	if gone {
		return
	}
	if c != nil {
		f.known.put(*c)
	} else if urgent {
		f.due = true
	}
	var answered *engine.StatusError
	switch x := f.known.containers[id]; {
	case x == nil:
	case err == nil:
		x.stop, x.asked = how, true
	case errors.As(err, &answered) && answered.Status < http.StatusInternalServerError:
		x.asked = true // it is gone, or is not let through; engines' own ways are assumed
	}
	f.want(id, again)
}
