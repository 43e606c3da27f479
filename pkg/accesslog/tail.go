package accesslog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	logsv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	otlpv1 "go.opentelemetry.io/proto/otlp/logs/v1"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/envoyadmin"
)

const (
	// look is how often the share is looked at while somebody watches.
	look = 250 * time.Millisecond
	// soonest is how often at most, where more has come by then than is asked for in a second.
	soonest = 20 * time.Millisecond
	// flood is how many entries are no accident, however few are asked for.
	flood = 100
	// settles is how long an Envoy goes on sending what it gathered under the share before.
	settles = 300 * time.Millisecond
	// again is how often the share is said though it has not changed: an Envoy that was started anew has forgotten it.
	again = 2 * time.Second
	// pause is how long an Envoy is left alone that has not answered when it was to sleep.
	pause = time.Second
	// whole is the runtime key's value for every request: it is in millionths.
	whole = 1_000_000
	// askFor is how long the admin interface may take.
	askFor = 2 * time.Second
)

// Tail has one Envoy tell of its requests while somebody watches. Its fields are set before [Tail.Run].
type Tail struct {
	// ID is the NATS token by which who runs the Envoy is known.
	ID string
	// Proxy and Gateway are the Envoy's.
	Proxy, Gateway string
	Admin          envoyadmin.Admin
	// Socket is what the Envoy's bootstrap has as [bootstrap.Config.TailSocket].
	Socket string
	// Requests is how many requests a second the Envoy has had lately, 0 where that is not known: the first share is
	// chosen by it.
	Requests func() float64
	Log      *zap.Logger

	logsv1.UnimplementedLogsServiceServer

	mu      sync.Mutex
	filters []Filter // none while nobody watches
	share   int      // of the requests, in millionths
	rate    int
	seen    int // entries since the share was looked at
	pending []Entry
	wake    chan struct{}

	// By Run alone.
	watches map[string]watch
	reason  string
}

// watch is what an api has said, and until when it holds.
type watch struct {
	Watch
	until time.Time
}

// set is what an Envoy has been told; the zero value is an Envoy that is asleep.
type set struct{ share, least int }

// Run serves until the context ends, and leaves the Envoy asleep. An error says why it cannot begin.
func (t *Tail) Run(ctx context.Context, nc *nats.Conn) error {
	t.wake, t.watches = make(chan struct{}, 1), map[string]watch{}
	server, err := t.listen(ctx)
	if err != nil {
		return err
	}
	defer server.Stop()
	asked := make(chan Watch, 64)
	sub, err := nc.Subscribe(WatchSubject, func(m *nats.Msg) {
		var w Watch
		if json.Unmarshal(m.Data, &w) != nil || w.ID == "" {
			return // of a version to come
		}
		select {
		case asked <- w:
		default: // it is said again in a second
		}
	})
	if err != nil {
		return fmt.Errorf("NATS: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // the connection ends with the process anyway
	// Who ran this Envoy before may have been killed while somebody watched.
	told, tick := set{share: -1}, time.NewTicker(look)
	defer tick.Stop()
	// Of what was told, of the last change of the share, of the last look at it and of the last message.
	var at, changed, looked, published time.Time
	tell := func(ctx context.Context, s set) {
		err := t.tell(ctx, s)
		t.reason = ""
		if err != nil {
			t.reason, s = "Envoy does not answer who runs it: "+err.Error(), set{share: -1}
		}
		told, at = s, time.Now()
	}
	for {
		select {
		case <-ctx.Done():
			if told != (set{}) {
				limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), askFor)
				defer cancel()
				_ = t.tell(limit, set{}) // an Envoy that does not answer is about to end too
			}
			return nil
		case w := <-asked:
			asleep, least := len(t.watches) == 0, t.wanted().least
			t.asked(w, time.Now())
			if len(t.watches) > 0 && (asleep || t.wanted().least < least) { // how much will come is not known
				t.begin()
				tell(ctx, t.wanted())
				changed, looked = time.Time{}, time.Now()
				tick.Reset(look)
			}
		case <-t.wake:
		case <-tick.C:
		}
		now := time.Now()
		t.expire(now)
		if len(t.watches) == 0 {
			t.sleep()
			if told == (set{}) {
				tick.Stop() // until somebody watches
			} else if told.share >= 0 || now.Sub(at) > pause {
				tell(ctx, set{})
			}
			continue
		}
		switch d := now.Sub(looked); {
		case now.Sub(changed) < settles: // what comes was drawn with the share before
			t.forget()
			looked = now
		case d >= t.window() || d >= soonest && t.flooded():
			t.weigh(max(d, look)) // an Envoy sends what it has gathered at once
			looked = now
		}
		switch want := t.wanted(); {
		case want != told && (told.share >= 0 || now.Sub(at) >= look):
			tell(ctx, want)
			changed = time.Now()
		case now.Sub(at) >= again:
			tell(ctx, want)
		}
		if entries := t.take(); len(entries) > 0 || now.Sub(published) >= Renew {
			t.publish(nc, entries)
			published = now
		}
	}
}

// listen takes what the Envoy sends.
func (t *Tail) listen(ctx context.Context) (*grpc.Server, error) {
	if err := os.Remove(t.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the socket of the access log's live tail: %w", err)
	}
	lis, err := (&net.ListenConfig{}).Listen(ctx, "unix", t.Socket)
	if err != nil {
		return nil, fmt.Errorf("the socket of the access log's live tail: %w", err)
	}
	if err := os.Chmod(t.Socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("the socket of the access log's live tail: %w", err), lis.Close())
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(1 << 20))
	logsv1.RegisterLogsServiceServer(server, t)
	go func() {
		if err := server.Serve(lis); err != nil {
			t.Log.Error("the access log cannot be watched any more", zap.Error(err))
		}
	}()
	return server, nil
}

// asked notes what an api says.
func (t *Tail) asked(w Watch, now time.Time) {
	var mine []Filter
	for _, f := range w.Filters {
		if f.Of(t.Gateway, t.Proxy) {
			mine = append(mine, f)
		}
	}
	if len(mine) == 0 {
		delete(t.watches, w.ID)
	} else {
		w.Filters = mine
		t.watches[w.ID] = watch{w, now.Add(Lease)}
	}
	t.changed()
}

func (t *Tail) expire(now time.Time) {
	n := len(t.watches)
	for id, w := range t.watches {
		if now.After(w.until) {
			delete(t.watches, id)
		}
	}
	if n != len(t.watches) {
		t.changed()
	}
}

// changed adds the watches up.
func (t *Tail) changed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.filters, t.rate = nil, 0
	for _, w := range t.watches {
		t.filters = append(t.filters, w.Filters...)
		t.rate = max(t.rate, min(max(w.Rate, 1), MaxRate))
	}
}

// begin chooses the first share, by what the Envoy had lately.
func (t *Tail) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.share, t.seen, t.pending = whole, 0, nil
	if t.Requests != nil {
		if r := t.Requests(); r > float64(t.rate) {
			t.share = max(1, int(whole*float64(t.rate)/r))
		}
	}
}

func (t *Tail) sleep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.filters, t.pending, t.seen = nil, nil, 0
}

// window is how long to count before the share is changed: by a few entries nothing can be told.
func (t *Tail) window() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return min(Lease, max(look, 20*time.Second/time.Duration(max(1, t.rate))))
}

// flooded says whether more has come since the last look than is asked for in a second.
func (t *Tail) flooded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen > max(t.rate, flood)
}

func (t *Tail) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = 0
}

// weigh has the share follow what has come in a time: lower at once where it is too much, and up again by no more than
// twice, since what comes then is not known.
func (t *Tail) weigh(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rate, limit := float64(t.seen)/d.Seconds(), float64(t.rate)
	t.seen = 0
	switch {
	case rate > 1.25*limit:
		t.share = max(1, int(float64(t.share)*limit/rate))
	case rate < 0.6*limit && t.share < whole:
		up := 2.0
		if rate > 0 {
			up = min(up, 0.9*limit/rate)
		}
		t.share = min(whole, int(float64(t.share)*up)+1)
	}
}

// wanted is what the Envoy is to be told.
func (t *Tail) wanted() set {
	t.mu.Lock()
	defer t.mu.Unlock()
	least := -1
	for _, f := range t.filters {
		if s := f.LeastStatus(); least < 0 || s < least {
			least = s
		}
	}
	return set{t.share, max(0, least)}
}

// tell changes the Envoy's runtime; without values the keys are taken away.
func (t *Tail) tell(ctx context.Context, s set) error {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	value := func(n int) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(n)
	}
	q := url.Values{bootstrap.RuntimeTail: {value(s.share)}, bootstrap.RuntimeTailStatus: {value(s.least)}}
	code, raw, err := t.Admin.Do(ctx, http.MethodPost, "/runtime_modify?"+q.Encode())
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return fmt.Errorf("%d %.200s", code, raw)
	}
	return nil
}

// take is what has come since, which is one message.
func (t *Tail) take() []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(t.pending), maxBatch)
	out := t.pending[:n:n]
	if t.pending = t.pending[n:]; len(t.pending) > 0 {
		t.knock()
	}
	return out
}

func (t *Tail) publish(nc *nats.Conn, entries []Entry) {
	t.mu.Lock()
	b := Batch{
		Proxy: t.Proxy, Gateway: t.Gateway, Share: float64(t.share) / whole, Reason: t.reason, Entries: entries,
	}
	t.mu.Unlock()
	raw, err := json.Marshal(b)
	if err != nil {
		t.Log.Error("an entry of the access log cannot be written", zap.Error(err))
		return
	}
	if err := nc.Publish(EntriesPrefix+t.ID, raw); err != nil { // as where NATS is away for long
		t.Log.Debug("nobody is told of the access log", zap.Error(err))
	}
}

func (t *Tail) knock() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Export implements [logsv1.LogsServiceServer]. It answers at once: what is too much is dropped.
func (t *Tail) Export(
	_ context.Context, r *logsv1.ExportLogsServiceRequest,
) (*logsv1.ExportLogsServiceResponse, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, of := range r.GetResourceLogs() {
		for _, scope := range of.GetScopeLogs() {
			for _, l := range scope.GetLogRecords() {
				if t.seen++; len(t.filters) == 0 || len(t.pending) >= MaxRate {
					continue
				}
				e := entry(l)
				e.Share = float64(t.share) / whole
				for _, f := range t.filters {
					if f.Takes(t.Gateway, t.Proxy, &e) {
						t.pending = append(t.pending, e)
						break
					}
				}
			}
		}
	}
	if len(t.pending) > 0 || t.seen > max(t.rate, flood) {
		t.knock()
	}
	return &logsv1.ExportLogsServiceResponse{}, nil
}

// entry reads one; Envoy writes - for what there is not.
func entry(l *otlpv1.LogRecord) (e Entry) {
	number := func(s string) int64 {
		n, _ := strconv.ParseInt(s, 10, 64) // 0 of what is no number
		return n
	}
	texts := map[string]*string{
		"time": &e.Time, "method": &e.Method, "scheme": &e.Scheme, "host": &e.Host, "path": &e.Path,
		"protocol": &e.Protocol, "server_name": &e.ServerName, "flags": &e.Flags, "details": &e.Details,
		"listener": &e.Listener, "route": &e.Route, "service": &e.Service, "upstream": &e.Upstream, "client": &e.Client,
		"user_agent": &e.UserAgent, "request_id": &e.RequestID,
	}
	for _, a := range l.GetAttributes() {
		v := a.GetValue().GetStringValue()
		if v == "" || v == "-" {
			continue
		}
		switch name := a.GetKey(); name {
		case "status":
			e.Status = int32(number(v))
		case "bytes_received":
			e.BytesReceived = number(v)
		case "bytes_sent":
			e.BytesSent = number(v)
		case "duration_ms":
			e.DurationMS = number(v)
		case "upstream_ms":
			e.UpstreamMS = number(v)
		default:
			if to := texts[name]; to != nil {
				*to = v
			}
		}
	}
	return e
}
