package ads

import (
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// An ECDS filter config holds the policies of many people, and Envoy ACKs or NACKs all of it. Where it NACKs one, the
// policies that differ from what Envoys have ACKed are closed at once: they refuse every request. All other policies
// stay as they are and go on changing. Then the closed ones are opened again, half of them at a time, until those at
// fault are alone. They stay closed until somebody corrects them.
//
// Where a filter config is NACKed although all of these are closed, no policy is at fault (a filter's file is missing,
// for instance). The last good version is then served, as of every other resource.

// bisection is the search for the policies at fault in a rejected filter config.
type bisection struct {
	// form is what is served meanwhile, and afterwards: the filter config with some policies closed.
	form *translate.Resource
	// closed are these policies, each with the digest of what was rejected. groups are those of them that are still to
	// be tried open, one group after the other.
	closed map[string]string
	groups [][]string
	// canary is the Envoy that sent the last NACK. Its answer to the form decides how the search goes on, so that Envoys
	// that answer at different times do not mix up the steps.
	canary reviewer
	// done says that every closed policy is at fault.
	done bool
}

// searching says whether it is not known yet which policies are at fault.
func (b *bisection) searching() bool { return b != nil && !b.done }

// suspects are the policies that a version holds otherwise than what Envoys have ACKed.
func (e *entry) suspects(r *translate.Resource) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(r.Parts)) {
		if e.goodParts[name] != r.Parts[name] {
			out = append(out, name)
		}
	}
	return out
}

// closePolicies closes policies, and has each half of them tried open by itself where they are several.
func (e *entry) closePolicies(names []string) {
	b := e.bisection
	for _, name := range names {
		b.closed[name] = e.desired.Parts[name]
	}
	if half := len(names) / 2; half > 0 {
		b.groups = append([][]string{names[:half], names[half:]}, b.groups...)
	}
	e.buildForm()
}

// buildForm builds the form without what is closed now.
func (e *entry) buildForm() {
	closed := map[string]bool{}
	for name := range e.bisection.closed {
		closed[name] = true
	}
	e.bisection.form = e.desired.Without(closed)
}

// bisect begins the search after the configured filter config was NACKed. It says whether there is something to close.
func (t *table) bisect(e *entry, by reviewer) bool {
	if e.desired.Without == nil {
		return false
	}
	suspects := e.suspects(e.desired)
	if len(suspects) == 0 {
		return false
	}
	e.bisection = &bisection{closed: map[string]string{}, canary: by}
	e.closePolicies(suspects)
	t.serveForm(e, by)
	return true
}

// rejectForm goes on after the form was NACKed: it closes what no Envoy has ACKed. Where there is nothing of that, no
// policy is at fault.
func (t *table) rejectForm(e *entry, by reviewer, now time.Time) {
	b := e.bisection
	suspects := e.suspects(b.form)
	if len(suspects) == 0 {
		if e.lastGood.Is(b.form.Version) {
			e.lastGood = nil // one Envoy ACKed it, another NACKed it: nothing is known to be good
		}
		e.bisection = nil
		// It may be the Envoy's own fault: the others try it at once, this one later.
		e.rejection.by, e.rejection.at = by, now
		e.rejection.others = e.rejection.tries == 0
		t.changed(e, 0)
		t.quarantine()
		return
	}
	b.canary, b.done = by, false
	e.closePolicies(suspects)
	t.serveForm(e, by)
}

// serveForm has the form sent. Where the canary has it already, because closing made it equal to an earlier version,
// it counts as ACKed.
func (t *table) serveForm(e *entry, by reviewer) {
	t.changed(e, 0)
	if have := by.has(e); have != nil && e.bisection.form.Is(have.Version) {
		t.formAcked(e, by)
	}
}

// formAcked goes on after an Envoy has ACKed the form: what is open in it is good, and the next group is opened.
func (t *table) formAcked(e *entry, by reviewer) {
	b := e.bisection
	if !b.searching() || (b.canary != by && b.canary.connected()) {
		return
	}
	e.goodParts = b.form.Parts
	if len(b.groups) > 0 {
		for _, name := range b.groups[0] {
			delete(b.closed, name)
		}
		b.groups = b.groups[1:]
		e.buildForm()
		t.serveForm(e, by)
		return
	}
	b.done = true
	t.warn("policies that envoy refuses are closed: they refuse every request until they are corrected",
		zap.String("filter_config", e.Name), zap.Strings("policies", b.names()), zap.String("reason", e.rejection.Reason))
	t.changed(e, 0)
}

// replaceDesired sets a new desired version. Of a filter config, those policies stay closed that it holds as they were
// rejected.
func (e *entry) replaceDesired(r *translate.Resource) {
	was, rejection := e.bisection, e.rejection
	e.desired, e.bisection, e.rejection = r, nil, nil
	if was == nil || r.Without == nil {
		return
	}
	now := &bisection{closed: map[string]string{}, canary: was.canary, done: was.done}
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
	same := *rejection
	same.Resource = r
	e.bisection, e.rejection = now, &same
	e.buildForm()
}

// restoreClosed closes the policies that were closed before a restart.
func (e *entry) restoreClosed(closed []string) {
	if e.desired.Without == nil {
		return
	}
	b := &bisection{closed: map[string]string{}, done: true}
	for _, name := range closed {
		if digest, there := e.desired.Parts[name]; there {
			b.closed[name] = digest
		}
	}
	if len(b.closed) > 0 {
		e.bisection = b
		e.buildForm()
		e.goodParts = b.form.Parts
	}
}

// names are those of the closed policies.
func (b *bisection) names() []string {
	if b == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(b.closed))
}

// blamed are the closed policies to report: not those that are corrected, and only still there for routes that are
// about to go.
func (e *entry) blamed() []string {
	return slices.DeleteFunc(e.bisection.names(), func(name string) bool { return e.desired.Leaving[name] })
}
