// Package status is the way back: each xDS server says on NATS which revision its Envoys serve and what
// they refused, each agent what its node's kernel enforces, and the api adds them up.
//
// A report is the last value of its sender's subject, in a memory stream: it is about now, and after a
// restart of NATS it is said again within the heartbeat. Reports are coalesced: while one is on its way
// the next ones become one.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/pkg/bus"
)

// Names on NATS.
const (
	StreamName    = "MARCHPROXY_STATUS"
	SubjectPrefix = "marchproxy.status.v1."
	xdsPrefix     = SubjectPrefix + "xds."
)

// Heartbeat is the longest time between two reports of a sender; one that has been silent for three of
// them is taken for gone.
const Heartbeat = 5 * time.Second

// Stale is how old a report may be.
const Stale = 3 * Heartbeat

// Return is how long an Envoy whose xDS server went is expected back: it still serves, what it had, and comes to that
// server again or to another one.
const Return = 30 * time.Second

// calm is how long news may wait that nobody waits for: a revision goes through several states on its way to
// the Envoys, and each report costs every reader.
const calm = 25 * time.Millisecond

// XdsStatus is one xDS server's report.
type XdsStatus struct {
	// ID of the server, a NATS token.
	ID       string `json:"id"`
	Epoch    string `json:"epoch"`
	Revision int64  `json:"revision"`
	// State is the digest ([resource.Digest]) of the configuration at that revision. The number alone does not name a
	// state: after an older backup of the database was restored, it counts the same numbers again. "" of a server of an
	// older version.
	State string `json:"state,omitempty"`
	// At in RFC 3339, and when the server was started: to another process of it, its Envoys have to come
	// back.
	At        string             `json:"at"`
	StartedAt string             `json:"started_at,omitempty"`
	Proxies   []ProxyStatus      `json:"proxies,omitempty"`
	Rejected  []RejectedResource `json:"rejected,omitempty"`
	// Stopping is true in a server's last report.
	Stopping bool `json:"stopping,omitempty"`
	// Live is the revision that every connected Envoy of a gateway serves; the server's own without any.
	Live map[string]int64 `json:"live,omitempty"`
	// Absent are the Envoys that were connected here and are not any more, the last one first.
	Absent []AbsentProxy `json:"absent,omitempty"`
	// Unsaved is why the last good state cannot be written to disk; "" where it can.
	Unsaved string `json:"unsaved,omitempty"`
	// Unresolved are the names of services' endpoints that have no address yet, in order: where a service was
	// changed to have one, it is served as it was before. What is wrong with them is in [NamesStatus].
	Unresolved []string `json:"unresolved,omitempty"`
	// Pages is the digest of the pages ([XdsPage]) that have the Envoys, the refusals, the absent Envoys and the names;
	// "" of a server of an older version, whose reports have all of that themselves.
	Pages string `json:"pages,omitempty"`
	// Number counts the reports of a process.
	Number int64 `json:"number,omitempty"`
	// Connected counts the connected Envoys by gateway.
	Connected map[string]int32 `json:"connected,omitempty"`
	// Lagging are the Envoys that have lacked something for more than [Noticed], the longest first, [MaxLagging] at most.
	Lagging []LaggingEnvoy `json:"lagging,omitempty"`
	// Rest is what all but those serve, by gateway, where that is not what Live says.
	Rest map[string]int64 `json:"rest,omitempty"`
	// LaggingProxies counts the Envoys that have lacked something for more than five seconds.
	LaggingProxies int32 `json:"lagging_proxies,omitempty"`
	// Behind is what the server is busy with that is behind the configuration's stream; nil where it is not.
	Behind *Behind `json:"behind,omitempty"`
	// Document is the last document that was accepted at POST /v1/config, by this server or by one that it has heard of
	// it; nil where none is known.
	Document *Document `json:"document,omitempty"`
}

// Document is a configuration document that some xDS server has accepted.
type Document struct {
	Version string `json:"version"`
	// Epoch and Revision are what the document became, and At is when it was accepted, as [resource.Time] has it.
	Epoch    string `json:"epoch"`
	Revision int64  `json:"revision"`
	At       string `json:"at"`
}

// After says whether a document came after another one, at whichever server. Revisions are counted anew in each epoch,
// and a document that changes nothing has the revision of the one before.
func (d Document) After(o Document) bool {
	if d.Epoch == o.Epoch && d.Revision != o.Revision {
		return d.Revision > o.Revision
	}
	return d.At > o.At
}

const (
	// Noticed is how long an Envoy lacks something before reports name it.
	Noticed = 250 * time.Millisecond
	// Long is how long it does before that is spoken of. So is a part that is behind the stream, and what the relay does.
	Long = 5 * time.Second
	// MaxLagging is how many of them a report names.
	MaxLagging = 20
)

// LaggingEnvoy is a connected Envoy that lacks something.
type LaggingEnvoy struct {
	ID              string `json:"id"`
	Gateway         string `json:"gateway"`
	Address         string `json:"address,omitempty"`
	ConnectedAt     string `json:"connected_at,omitempty"`
	AppliedRevision int64  `json:"applied_revision"`
	// Since when it lacks something of a later revision, RFC 3339.
	Since string `json:"since"`
	// Resource is the type and name of what it lacks first; Sent says that the Envoy has not answered it.
	Resource string `json:"resource,omitempty"`
	Sent     bool   `json:"sent,omitempty"`
}

// Behind is what a server does that is behind the configuration's stream.
type Behind struct {
	What string `json:"what"`
	// Done of Total messages are read; both are 0 where nobody can say.
	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"`
	Since string `json:"since,omitempty"`
}

// ProxyStatus is one connected Envoy.
type ProxyStatus struct {
	ID              string `json:"id"`
	Gateway         string `json:"gateway"`
	Address         string `json:"address,omitempty"`
	AppliedRevision int64  `json:"applied_revision"`
	Version         string `json:"version,omitempty"`
	ConnectedAt     string `json:"connected_at,omitempty"`
	// DrainTimeSeconds is the Envoy's --drain-time-s; 0 where it does not say.
	DrainTimeSeconds int32 `json:"drain_time_seconds,omitempty"`
	// OverLimit says that it has no seat under its gateway's license.
	OverLimit bool `json:"surplus,omitempty"`
	// Since is its seniority where seats are assigned: when it first connected to any xDS server, short absences
	// aside.
	Since string `json:"since,omitempty"`
}

// AbsentProxy is an Envoy that was connected and is not any more.
type AbsentProxy struct {
	Proxy ProxyStatus `json:"proxy"`
	// LastSeenAt in RFC 3339.
	LastSeenAt string `json:"last_seen_at"`
	// Awaited says that its server was restarted, and that it is expected back.
	Awaited bool `json:"awaited,omitempty"`
}

// RejectedResource is an Envoy resource that was refused.
type RejectedResource struct {
	Gateway string `json:"gateway"`
	// Resource is the type's short name and the resource's.
	Resource string      `json:"resource,omitempty"`
	Reason   string      `json:"reason"`
	Objects  []ObjectRef `json:"objects,omitempty"`
}

// ObjectRef is a user's object.
type ObjectRef struct {
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Revision int64  `json:"revision,omitempty"`
}

// Ensure creates the stream that keeps the last reports.
func Ensure(ctx context.Context, js jetstream.JetStream) error {
	_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: StreamName, Description: "MarchProxy's xDS servers and agents: what has been applied",
		Subjects: []string{SubjectPrefix + ">"}, Storage: jetstream.MemoryStorage, MaxMsgsPerSubject: 1, AllowDirect: true,
		MaxAge: 10 * Heartbeat, Replicas: bus.Replicas(ctx, js, StreamName),
	})
	if err != nil {
		return fmt.Errorf("ensure status stream: %w", err)
	}
	return nil
}

// sent is a report of somebody, by which its subject is made.
type sent interface {
	prefix() string
	id() string
}

// report is what [Report] sends: M itself.
type report[M any] interface {
	sent
	last() M
	// urgent says whether somebody may be waiting for what is new since another report.
	urgent(since M) bool
}

func (XdsStatus) prefix() string { return xdsPrefix }
func (s XdsStatus) id() string   { return s.ID }

// Applied is the revision that an Envoy serves in full by this report, of a server that reports in pages.
func (s XdsStatus) Applied(p ProxyStatus) int64 {
	if l, lags := s.Lags(p); lags {
		return l.AppliedRevision
	}
	if rest, differs := s.Rest[p.Gateway]; differs {
		return rest
	}
	return s.Live[p.Gateway]
}

// Lags is what an Envoy lacks, where the report names it.
func (s XdsStatus) Lags(p ProxyStatus) (LaggingEnvoy, bool) {
	i := slices.IndexFunc(s.Lagging, func(l LaggingEnvoy) bool {
		return l.ID == p.ID && l.Gateway == p.Gateway && l.Address == p.Address && l.ConnectedAt == p.ConnectedAt
	})
	if i < 0 {
		return LaggingEnvoy{}, false
	}
	return s.Lagging[i], true
}

// Report publishes what current returns whenever changed is signalled, and at each heartbeat, until the
// context ends; then once more, as stopping. What is not urgent may come a little later.
func Report[M report[M]](
	ctx context.Context, nc *nats.Conn, changed <-chan struct{}, current func(now time.Time) M,
) error {
	beat := time.NewTicker(Heartbeat)
	defer beat.Stop()
	for now := current(time.Now()); ; {
		if err := publish(nc, now); err != nil && ctx.Err() == nil {
			// NATS is away; the client buffers, and the heartbeat says it again.
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		said := now
		var later <-chan time.Time
		for due := false; !due; {
			select {
			case <-changed:
			case <-later:
				due = true
			case <-beat.C:
				due = true
			case <-ctx.Done():
				_ = publish(nc, current(time.Now()).last()) // its silence will say so too
				_ = nc.FlushTimeout(time.Second)
				return nil
			}
			now = current(time.Now())
			due = due || now.urgent(said)
			if later == nil {
				later = time.After(calm)
			}
		}
	}
}

func publish(nc *nats.Conn, s sent) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("report status: %w", err)
	}
	return nc.Publish(s.prefix()+s.id(), b)
}

// Last is a sender's last report; not ok where none is kept. It waits for NATS as long as the context lasts.
func Last[M sent](ctx context.Context, js jetstream.JetStream, id string) (last M, ok bool) {
	for {
		s, err := js.Stream(ctx, StreamName)
		if err == nil {
			var m *jetstream.RawStreamMsg
			if m, err = s.GetLastMsgForSubject(ctx, last.prefix()+id); err == nil {
				err = json.Unmarshal(m.Data, &last)
				return last, err == nil
			}
		}
		if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrMsgNotFound) {
			return last, false
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return last, false
		}
	}
}

// rarely is the time between two looks whether the stream is there, unless NATS was away in between.
const rarely = 12 * Heartbeat

// Watch hands over every report of a sort, beginning with the last known ones, until the context ends. Fresh are those
// that come as they are sent, so that their time can be compared with the receiver's clock.
func Watch[M sent](ctx context.Context, nc *nats.Conn, js jetstream.JetStream, take func(s M, fresh bool)) error {
	var sort M
	receive := func(data []byte, fresh bool) {
		var s M
		if json.Unmarshal(data, &s) == nil && s.id() != "" {
			take(s, fresh)
		}
	}
	sub, err := nc.Subscribe(sort.prefix()+"*", func(m *nats.Msg) { receive(m.Data, true) })
	if err != nil {
		return fmt.Errorf("watch status: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	beat := time.NewTicker(Heartbeat)
	defer beat.Stop()
	if !ensure(ctx, js) {
		return nil
	}
	if s, err := js.Stream(ctx, StreamName); err == nil {
		if info, err := s.Info(ctx, jetstream.WithSubjectFilter(sort.prefix()+"*")); err == nil {
			for subject := range info.State.Subjects {
				if m, err := s.GetLastMsgForSubject(ctx, subject); err == nil {
					receive(m.Data, false)
				}
			}
		}
	}
	there := newPresence(nc)
	for {
		select {
		case now := <-beat.C:
			there.look(ctx, js, now)
		case <-ctx.Done():
			return nil
		}
	}
}

// presence sees to it that the stream is there. To make it where it is missing costs NATS as much as everything else
// that is idle: a NATS that was restarted shows by the connection, and what somebody has deleted may wait.
type presence struct {
	nc         *nats.Conn
	ensured    time.Time
	reconnects uint64
}

// newPresence begins with a stream that was ensured just now.
func newPresence(nc *nats.Conn) *presence { return &presence{nc, time.Now(), nc.Stats().Reconnects} }

// look ensures the stream where that is due.
func (p *presence) look(ctx context.Context, js jetstream.JetStream, now time.Time) {
	n := p.nc.Stats().Reconnects
	if n == p.reconnects && now.Sub(p.ensured) < rarely {
		return
	}
	if Ensure(ctx, js) == nil { // NATS is away: the next beat tries again
		p.ensured, p.reconnects = now, n
	}
}
