package live_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
)

// history is a database: its digests by revision, and those of them that the api remembers.
type history struct {
	epoch          string
	head           int64
	seen, database map[int64]string
	err            error
	asked          int
}

func (h *history) Epoch() string               { return h.epoch }
func (h *history) Revision() int64             { return h.head }
func (h *history) State(revision int64) string { return h.seen[revision] }

func (h *history) StateAt(_ context.Context, revision int64) (string, error) {
	h.asked++
	return h.database[revision], h.err
}

// TestHistory: what is live is so in a state that the database has had, whatever the numbers say. Who waits has the
// database asked; who only looks is told that something is pending where a report is of a state that is not known.
func TestHistory(t *testing.T) {
	serves := func(revision int64, digest string) status.XdsStatus {
		s := report("a", revision, revision, 1)
		s.State = digest
		return s
	}
	seen := map[int64]string{7: "seven"}
	for name, c := range map[string]struct {
		database  map[int64]string
		report    status.XdsStatus
		now, wait string
		asked     bool
	}{
		"the write itself":                  {nil, serves(7, "seven"), "live", "live", false},
		"another write of that number":      {nil, serves(7, "another"), "pending", "timeout", false},
		"a later one of before the restore": {nil, serves(9, "nine"), "pending", "timeout", true},
		"a later one, with a number taken again": {
			map[int64]string{9: "another"},
			serves(9, "nine"), "pending",
			"timeout", true,
		},
		"a later one of another api":      {map[int64]string{9: "nine"}, serves(9, "nine"), "pending", "live", true},
		"a server of an older version":    {nil, serves(7, ""), "live", "live", false},
		"the same, later":                 {map[int64]string{9: "nine"}, serves(9, ""), "pending", "live", true},
		"the same, of before the restore": {nil, serves(9, ""), "pending", "timeout", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &history{epoch: "e", head: 7, seen: seen, database: c.database}
				b := live.NewBoard(time.Now)
				b.History = h
				b.Report(c.report, true)
				if l := b.Now(target(7)); l.State != c.now || h.asked > 0 {
					t.Errorf("now %+v, the database was asked %d times", l, h.asked)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
				defer cancel()
				to := target(7)
				to.State = "seven"
				if l := b.Wait(ctx, to); l.State != c.wait || l.Live != (c.wait == "live") || (h.asked > 0) != c.asked {
					t.Errorf("%+v, want %s; the database was asked %d times", l, c.wait, h.asked)
				}
			})
		})
	}
}

// TestHistoryWhileWaiting: who waits is told when it is so: after a restore, in the epoch that is new then. What the
// restore has taken back is never live, and nothing is while the database does not answer.
func TestHistoryWhileWaiting(t *testing.T) {
	for name, c := range map[string]struct {
		change func(h *history)
		state  string
	}{
		"nothing":          {func(*history) {}, "timeout"},
		"the epoch is new": {func(h *history) { h.epoch = "new" }, "live"},
		"the write is gone": {
			func(h *history) { h.epoch, h.seen, h.database = "new", nil, map[int64]string{9: "nine"} },
			"timeout",
		},
		"no database":        {func(h *history) { h.epoch, h.seen, h.err = "new", nil, errors.New("away") }, "timeout"},
		"it is only unknown": {func(h *history) { h.epoch, h.seen = "new", nil }, "live"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &history{
					epoch: "e", head: 7, seen: map[int64]string{7: "seven"},
					database: map[int64]string{7: "seven", 9: "nine"},
				}
				b := live.NewBoard(time.Now)
				b.History = h
				lost := report("a", 1415, 1415, 1)
				lost.State = "lost"
				b.Report(lost, true)
				answers := make(chan api.Live, 1)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				to := target(7)
				to.State = "seven"
				go func() { answers <- b.Wait(ctx, to) }()
				time.Sleep(1500 * time.Millisecond)
				synctest.Wait()
				if len(answers) > 0 {
					t.Fatalf("%+v while an Envoy serves what is lost", <-answers)
				}
				c.change(h)
				is := report("a", 9, 9, 1)
				is.Epoch, is.State = "new", "nine"
				b.Report(is, true)
				if l := <-answers; l.State != c.state || l.Reason == "" != l.Live {
					t.Errorf("%+v, want %s", l, c.state)
				}
			})
		})
	}
}

// TestHistoryOfNodes: a node's policies count as little as an Envoy's routes where the database has not had them.
func TestHistoryOfNodes(t *testing.T) {
	for digest, state := range map[string]string{"nine": "live", "lost": "pending"} {
		b := live.NewBoard(time.Now)
		b.History = &history{epoch: "e", head: 9, seen: map[int64]string{9: "nine"}}
		b.ReportAgent(status.AgentStatus{ID: "n", Epoch: "e", Revision: 9, State: digest, Interface: "eth0", Mode: "native"},
			true)
		l := b.Now(live.Target{
			Epoch: "e", Revision: 9,
			Limits: []live.Limit{{Name: "p", Revision: 9, Selectors: []map[string]string{nil}}},
		})
		if l.State != state {
			t.Errorf("%s: %+v, want %s", digest, l, state)
		}
	}
}
