package ads

import (
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// A slot holds the policies of many people, and Envoy takes or refuses all of it. Where it refuses one, what differs
// from what it has taken is closed at once: these policies refuse every request, all others are what they are, and go
// on changing. Then the closed ones are opened again, half of them at a time, until those at fault stand alone. They
// stay closed until they are written anew.
//
// Where a slot is refused with all of these closed, no policy is at fault (a filter's file is missing), and the last
// good version is served as of every other resource.

// containment is what is served of a slot whose configured content was refused.
type containment struct {
	// form is the slot with some policies closed.
	form *translate.Resource
	// closed are they, by name, each with the digest of what was refused; groups are those of them that are still to
	// be judged, each group by itself.
	closed map[string]string
	groups [][]string
	// judge is the Envoy that has refused something last, whose answer to the form counts; judged says that all that
	// is closed is at fault.
	judge  *stream
	judged bool
}

// judging says whether it is not known yet which policies are at fault.
func (c *containment) judging() bool { return c != nil && !c.judged }

// suspects are the policies that a version of a slot holds otherwise than what Envoys have taken of it.
func (e *entry) suspects(r *translate.Resource) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(r.Parts)) {
		if e.parts[name] != r.Parts[name] {
			out = append(out, name)
		}
	}
	return out
}

// close closes policies, and has each half of them judged by itself where they are several.
func (e *entry) close(names []string) {
	c := e.contained
	for _, name := range names {
		c.closed[name] = e.desired.Parts[name]
	}
	if half := len(names) / 2; half > 0 {
		c.groups = append([][]string{names[:half], names[half:]}, c.groups...)
	}
	e.reclose()
}

// reclose makes the form of what is closed now.
func (e *entry) reclose() {
	closed := map[string]bool{}
	for name := range e.contained.closed {
		closed[name] = true
	}
	e.contained.form = e.desired.Without(closed)
}

// contain takes the refusal of a slot's configured content, by s. It says whether there is something to close.
func (g *Gateway) contain(e *entry, s *stream) bool {
	if e.contained != nil {
		return true // of what another Envoy has refused already
	}
	if e.desired.Without == nil {
		return false
	}
	suspects := e.suspects(e.desired)
	if len(suspects) == 0 {
		return false
	}
	e.contained = &containment{closed: map[string]string{}, judge: s}
	e.close(suspects)
	g.ask(e, s)
	return true
}

// divide takes the refusal of a contained form: it closes what no Envoy has taken. Where there is nothing of that, no
// policy is at fault.
func (g *Gateway) divide(e *entry, s *stream) {
	c := e.contained
	suspects := e.suspects(c.form)
	if len(suspects) == 0 {
		if e.good.Is(c.form.Version) {
			e.good = nil // one Envoy took it, another did not: nothing is known good
		}
		e.contained = nil
		// It may be the Envoy's own fault: the others try it at once, this one later.
		e.bad.by, e.bad.at = s, time.Now()
		e.bad.others = e.bad.tries == 0
		g.changed(e, 0)
		g.repin()
		g.wake()
		return
	}
	c.judge, c.judged = s, false
	e.close(suspects)
	g.ask(e, s)
}

// ask has the form sent, or takes it as accepted where the judge has it.
func (g *Gateway) ask(e *entry, s *stream) {
	g.changed(e, 0)
	if have := s.have(e); have != nil && e.contained.form.Is(have.Version) {
		g.cleared(e, s)
		return
	}
	g.wake()
}

// cleared notes that an Envoy has taken the form: what is open in it is good, and the next group is opened.
func (g *Gateway) cleared(e *entry, s *stream) {
	c := e.contained
	if _, here := g.streams[c.judge]; !c.judging() || (here && c.judge != s) {
		return
	}
	e.parts = c.form.Parts
	if len(c.groups) > 0 {
		for _, name := range c.groups[0] {
			delete(c.closed, name)
		}
		c.groups = c.groups[1:]
		e.reclose()
		g.ask(e, s)
		return
	}
	c.judged = true
	g.opt.Log.Warn("policies that envoy refuses are closed: they refuse every request until they are corrected",
		zap.String("gateway", g.name), zap.String("slot", e.Name), zap.Strings("policies", c.names()),
		zap.String("reason", e.bad.Reason))
	g.changed(e, 0)
	g.wake()
}

// carry keeps closed, in a slot's new content, what is as it was refused.
func (e *entry) carry(r *translate.Resource) {
	was, bad := e.contained, e.bad
	e.desired, e.contained, e.bad = r, nil, nil
	if was == nil || r.Without == nil {
		return
	}
	now := &containment{closed: map[string]string{}, judge: was.judge, judged: was.judged}
	for name, digest := range was.closed {
		if r.Parts[name] == digest {
			now.closed[name] = digest
		}
	}
	if len(now.closed) == 0 {
		return
	}
	for _, group := range was.groups {
		still := slices.DeleteFunc(slices.Clone(group), func(name string) bool { return now.closed[name] == "" })
		if len(still) > 0 {
			now.groups = append(now.groups, still)
		}
	}
	same := *bad
	same.Resource = r
	e.contained, e.bad = now, &same
	e.reclose()
}

// recall closes what was closed before a restart.
func (e *entry) recall(closed []string) {
	if e.desired.Without == nil {
		return
	}
	c := &containment{closed: map[string]string{}, judged: true}
	for _, name := range closed {
		if digest, there := e.desired.Parts[name]; there {
			c.closed[name] = digest
		}
	}
	if len(c.closed) > 0 {
		e.contained = c
		e.reclose()
		e.parts = c.form.Parts
	}
}

// names are those of the closed policies.
func (c *containment) names() []string {
	if c == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(c.closed))
}

// blamed are the policies to report: not what was corrected, and is there only until the routes are that no longer
// need it.
func (e *entry) blamed() []string {
	return slices.DeleteFunc(e.contained.names(), func(name string) bool { return e.desired.Leaving[name] })
}
