package server

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/pkg/tracing"
	"github.com/marchproxy/marchproxy/services/xds/internal/fleet"
	"github.com/marchproxy/marchproxy/services/xds/internal/laststate"
)

// retry is how long what could not be written down is not tried again.
const retry = 5 * time.Second

// keeper applies updates to the fleet after writing them down.
type keeper struct {
	fleet   *fleet.Fleet
	log     *zap.Logger
	initial laststate.Saved
	// mismatch is true while what was read of the stream has not its commit's hash.
	mismatch atomic.Bool

	// turn is held by who brings fleet and file forward, as long as that takes, so that the file is written anew from a
	// configuration that has every commit which it holds. Where several are held they are taken in this order.
	turn   sync.Mutex
	failed time.Time // when the file could not be written anew
	// mu guards the file, and is held while it is written.
	mu   sync.Mutex
	file *laststate.File
	// grown is signalled when it is time for a new snapshot.
	grown chan struct{}
	// said guards what reports and the HTTP door read, who wait for neither a build nor the disk.
	said sync.Mutex
	// unsaved is why what is served, or what is quarantined, is not written down.
	unsaved string
	// behind is what it is busy with.
	behind *status.Behind
	// document is the last one that was accepted at /v1/config, at any server as far as this one knows; without a time
	// where only its version is known.
	document *status.Document
}

// openKeeper reads the last good state and has the fleet serve it at once.
func openKeeper(cfg Config, f *fleet.Fleet, log *zap.Logger) (*keeper, error) {
	file, saved, found, err := laststate.Open(cfg.StateDir, cfg.SecretKey)
	if err != nil {
		return nil, err
	}
	k := &keeper{
		fleet: f, log: log, file: file, initial: saved, document: &status.Document{},
		grown: make(chan struct{}, 1),
	}
	if n := file.Notes(); n.Document == "" || json.Unmarshal([]byte(n.Document), k.document) != nil {
		k.document.Version = n.ConfigVersion // by a server of an older version
	}
	if found {
		latencies, err := file.Latencies()
		if err != nil {
			return nil, err
		}
		f.RestoreLatencies(latencies) // before what they order is built
		log.Info("serving the last good state", zap.Int64("revision", saved.Commit.Revision),
			zap.Int("objects", len(saved.Objects)))
		f.Apply(resource.Update{Commit: saved.Commit, Changed: saved.Objects})
		quarantined, err := file.Quarantine()
		if err != nil {
			return nil, err
		}
		f.RestoreQuarantine(quarantined, time.Now())
		f.Restore(saved.Names)
	}
	k.note(file.Behind())
	return k, nil
}

// begin is where the replay begins. The keeper forgets it: what changes need not stay in memory as it was.
func (k *keeper) begin() stream.Options {
	saved := k.initial
	k.initial = laststate.Saved{}
	return stream.Options{
		Initial: saved.Objects, InitialCommit: saved.Commit, OnUpdate: k.update, OnProgress: k.progress,
		OnMismatch: k.mismatch.Store, Log: k.log,
	}
}

// run writes down what is quarantined, and what could not be written before, and the file anew when that is due, until
// the context ends.
func (k *keeper) run(ctx context.Context) error {
	again := time.NewTicker(retry / 5)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.fleet.QuarantineChanged():
			k.save(true)
		case <-k.grown:
			k.renew()
		case <-again.C:
			k.save(k.Unsaved() != "")
		}
	}
}

// save writes down what is not, where there is a reason to.
func (k *keeper) save(due bool) {
	if !due {
		return
	}
	k.turn.Lock()
	defer k.turn.Unlock()
	quarantined := k.fleet.Quarantine()
	k.mu.Lock()
	defer k.mu.Unlock()
	var err error
	if c, ready := k.fleet.Head(); ready && k.file.Behind() != nil {
		err = k.compact(c)
	}
	if saved := k.file.SaveQuarantine(quarantined); err == nil {
		err = saved
	}
	k.note(err)
}

// renew writes the file anew, which takes as long as there is configuration. No change waits for that.
func (k *keeper) renew() {
	k.turn.Lock()
	c, _ := k.fleet.Head()
	objects := k.fleet.Objects()
	k.mu.Lock()
	due := k.file.Grown() && k.file.Behind() == nil && time.Since(k.failed) > retry
	var s *laststate.Snapshot
	if due {
		s = k.file.Begin(c, objects)
	}
	k.mu.Unlock()
	k.turn.Unlock()
	if !due {
		return
	}
	err := s.Write()
	k.turn.Lock()
	defer k.turn.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.file.Finish(s, err); err != nil {
		k.failed = time.Now()
		k.log.Warn("the last good state cannot be written anew; what is added to it still is", zap.Error(err))
	}
}

// note says why nothing can be written down, or that it can again. Serving goes on; only a restart with everything
// else down would find an older state.
func (k *keeper) note(err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	k.said.Lock()
	was := k.unsaved
	k.unsaved = now
	k.said.Unlock()
	if err != nil {
		k.log.Error("the last good state cannot be written; what is served is not touched by that", zap.Error(err))
	} else if was != "" {
		k.log.Info("the last good state is written again")
	}
	if was != now {
		k.fleet.Signal()
	}
}

// progress takes note of how far the replay is.
func (k *keeper) progress(p *stream.Progress) {
	k.said.Lock()
	k.behind = nil
	if p != nil {
		k.behind = &status.Behind{What: p.What, Done: p.Done, Total: p.Total, Since: resource.Time(p.Since)}
	}
	k.said.Unlock()
	k.fleet.Signal()
}

// Behind is what the server is busy with that has been behind the event stream for some seconds; nil where it is not.
func (k *keeper) Behind() *status.Behind {
	k.said.Lock()
	defer k.said.Unlock()
	return k.behind
}

// Unsaved is why what is served is not written down; "" where it is.
func (k *keeper) Unsaved() string {
	k.said.Lock()
	defer k.said.Unlock()
	return k.unsaved
}

func (k *keeper) update(u resource.Update) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	// Written before it is served, so that no Envoy has what a restart would not find.
	began := tracing.Now()
	k.mu.Lock()
	_ = k.file.Append(u) // compact says so
	unsaved := k.file.Behind()
	k.mu.Unlock()
	if tracing.On() {
		tracing.Span(tracing.Parent(u.Commit.Traceparent), "write down", began, time.Now(), unsaved,
			attribute.Int64("marchproxy.revision", u.Commit.Revision))
	}
	k.fleet.Apply(u)
	k.log.Debug("serving", zap.Int64("revision", u.Commit.Revision), zap.Int("objects", len(u.Changed)),
		zap.String("request_id", u.Commit.RequestID), tracing.ID(u.Commit.Traceparent))
	k.mu.Lock()
	defer k.mu.Unlock()
	_ = k.file.Resolved(k.fleet.Unsaved()) // of names that nobody has any more; compact says it
	k.note(k.compact(u.Commit))
	return nil
}

// saveNames writes down the addresses of names before they are served.
func (k *keeper) saveNames() {
	k.turn.Lock()
	defer k.turn.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.file.Resolved(k.fleet.Unsaved())
	if c, ready := k.fleet.Head(); ready {
		err = k.compact(c)
	}
	k.note(err)
}

// saveLatencies writes down by what places are ordered, before the order is served: an Envoy that comes back to another
// process of this server finds the same.
func (k *keeper) saveLatencies() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.file.SaveLatencies(k.fleet.Latencies()); err != nil {
		k.log.Warn("the latencies by which places are ordered cannot be written down; after a restart they are measured again",
			zap.Error(err))
	}
}

// compact writes the file anew where something could not be written; where it has only grown, that is done beside.
// What has failed is not tried again at once: it costs the time of writing all of it. Call it with turn and mu held.
func (k *keeper) compact(c resource.Commit) error {
	switch err := k.file.Behind(); {
	case err != nil && time.Since(k.failed) < retry:
		return err
	case err == nil && k.file.Grown():
		select {
		case k.grown <- struct{}{}:
		default:
		}
		return nil
	}
	err := k.file.Compact(c, k.fleet.Objects)
	if err != nil {
		k.failed = time.Now()
	}
	return err
}

// Version is that of the document last accepted at /v1/config.
func (k *keeper) Version() string {
	k.said.Lock()
	defer k.said.Unlock()
	return k.document.Version
}

// Document is that document, for a report; nil where there is none, or only its version is known.
func (k *keeper) Document() *status.Document {
	k.said.Lock()
	defer k.said.Unlock()
	if k.document.At == "" {
		return nil
	}
	return k.document
}

// Accepted keeps a document that this server or another one has accepted, unless a later one is known.
func (k *keeper) Accepted(d status.Document) {
	k.said.Lock()
	if !d.After(*k.document) {
		k.said.Unlock()
		return
	}
	k.document = &d
	k.said.Unlock()
	k.fleet.Signal()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.said.Lock()
	d = *k.document // a later one may have overtaken this one on the way here
	k.said.Unlock()
	raw, _ := json.Marshal(d) // it cannot fail
	k.note(k.file.Note(laststate.Notes{ConfigVersion: d.Version, Document: string(raw)}))
}

// listener takes other servers' reports, for the documents in them.
type listener struct {
	*fleet.Peers
	k *keeper
}

// Report implements [status.Follower].
func (l listener) Report(s status.XdsStatus, fresh bool) (missing bool) {
	if s.Document != nil {
		l.k.Accepted(*s.Document)
	}
	return l.Peers.Report(s, fresh)
}

// Close makes the last good state durable.
func (k *keeper) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.file.Close()
}
