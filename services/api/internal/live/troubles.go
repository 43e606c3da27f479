package live

import (
	"cmp"
	"fmt"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// MaxOffset is how far a clock may be from this api's before it is spoken of. The times in tokens are judged by the
// Envoys' clocks, with a leeway of 60 s unless a policy says otherwise.
const MaxOffset = 5 * time.Second

// clock is how far a sender's is ahead of ours, by its last two reports: one alone may have been on its way for long.
type clock struct {
	offset, before time.Duration
	reports        int
	since          time.Time // of what is too far
}

// heard takes the time that a fresh report was sent at.
func (c clock) heard(at string, now time.Time) clock {
	sent, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return c
	}
	c.before, c.offset, c.reports = c.offset, sent.Sub(now), c.reports+1
	switch {
	case c.off() == 0:
		c.since = time.Time{}
	case c.since.IsZero():
		c.since = now
	}
	return c
}

// off is how far it is ahead, 0 where that is not worth a word.
func (c clock) off() time.Duration {
	least := c.offset
	if c.before.Abs() < least.Abs() {
		least = c.before
	}
	if c.reports < 2 || least.Abs() < MaxOffset {
		return 0
	}
	return c.offset
}

func (c clock) words() string {
	if c.offset > 0 {
		return fmt.Sprintf("its clock is %s ahead of the api's", c.offset.Round(time.Second))
	}
	return fmt.Sprintf("its clock is %s behind the api's", (-c.offset).Round(time.Second))
}

// Troubles are what the xDS servers and the nodes report of their own, and what their clocks show.
func (b *Board) Troubles() []api.Trouble {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []api.Trouble
	add := func(part, reason string, since time.Time) {
		t := api.Trouble{Part: part, Reason: reason}
		if !since.IsZero() {
			t.Since = resource.Time(since)
		}
		out = append(out, t)
	}
	for _, s := range b.fresh() {
		if s.Head.Unsaved != "" {
			add("xds "+s.id, "it serves on, but its last good state cannot be written, so that a restart without NATS would "+
				"serve an older one: "+s.Head.Unsaved, s.unsaved)
		}
		if s.clock.off() != 0 {
			add("xds "+s.id, s.clock.words()+"; set it by NTP", s.clock.since)
		}
	}
	for _, a := range b.freshAgents() {
		if a.Unsaved != "" {
			add("node "+a.ID, "its kernel has the policies, but they cannot be written down, so that a restart without NATS "+
				"would find older ones: "+a.Unsaved, a.unsaved)
		}
		if a.clock.off() != 0 {
			envoy := cmp.Or(a.Envoy, "its Envoy")
			add("node "+a.ID, fmt.Sprintf("%s, so that %s accepts tokens that have ended, or refuses good ones; set it by NTP",
				a.clock.words(), envoy), a.clock.since)
		}
	}
	return out
}

// Offsets are how far the clocks of the xDS servers and the nodes are ahead of this one's, by their part.
func (b *Board) Offsets() map[string]time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string]time.Duration{}
	for _, s := range b.fresh() {
		if s.clock.reports > 0 {
			out["xds "+s.id] = s.clock.offset
		}
	}
	for _, a := range b.freshAgents() {
		if a.clock.reports > 0 {
			out["node "+a.ID] = a.clock.offset
		}
	}
	return out
}

// begun is since when something is so: as before, or now.
func begun(is, was string, since, now time.Time) time.Time {
	switch {
	case is == "":
		return time.Time{}
	case was == "":
		return now
	}
	return since
}
