package docker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/engine"
	"github.com/marchproxy/marchproxy/pkg/labels"

	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// known is what is known of an engine's containers, and the workloads that are made of it. One goroutine has it.
type known struct {
	// address is [Options.Address].
	address    string
	containers map[string]*entry
	// groups are the containers that make one workload, by its key.
	groups map[string]map[string]*entry
	// killed are the containers that were told to end, and until when they drain if they are still there.
	killed map[string]time.Time
	// changed are the groups of which workloads, by their keys, do not tell the newest.
	changed   map[string]bool
	workloads map[string]source.Workload
	// listed says that there has been a whole list; before, what is known is a part.
	listed bool
}

// entry is one container.
type entry struct {
	Container
	key  string // of its group; "" for one that is in none
	stop stop
	// asked says that the engine was asked how it is stopped, whatever the answer was.
	asked bool
}

func newKnown(address string) *known {
	return &known{
		address: address, containers: map[string]*entry{}, groups: map[string]map[string]*entry{},
		killed: map[string]time.Time{}, changed: map[string]bool{}, workloads: map[string]source.Workload{},
	}
}

// put takes what has been read of a container.
func (k *known) put(c Container) *entry {
	x := k.containers[c.ID]
	if x == nil {
		x = &entry{}
		k.containers[c.ID] = x
	}
	key := c.group()
	if key != x.key {
		k.leave(x)
	}
	x.Container, x.key = c, key
	if key != "" {
		if k.groups[key] == nil {
			k.groups[key] = map[string]*entry{}
		}
		k.groups[key][c.ID] = x
		k.changed[key] = true
	}
	return x
}

// leave takes a container out of its group.
func (k *known) leave(x *entry) {
	if x.key == "" {
		return
	}
	delete(k.groups[x.key], x.ID)
	k.changed[x.key] = true
}

// drop takes that a container is gone.
func (k *known) drop(id string) {
	if x := k.containers[id]; x != nil {
		k.leave(x)
		delete(k.containers, id)
	}
	delete(k.killed, id)
}

// reading says whether a container has to be read after an event, since that does not say all of what happened.
type reading int

const (
	no    reading = iota
	later         // when there is nothing else to read
	now
)

// happened takes an event of a container.
func (k *known) happened(id string, e engine.Event, at time.Time) reading {
	x := k.containers[id]
	word, _ := e.Words()
	switch {
	case e.Type == "network":
	case word == "destroy":
		k.drop(id)
		return no
	case word == "start":
		delete(k.killed, id)
	case word == "kill":
		how := stop{}
		if x != nil {
			how = x.stop
		}
		if how.ends(e.Actor.Attributes["signal"]) {
			k.killed[id] = how.until(at)
		}
	}
	if x == nil {
		if quiet(e) {
			return no
		}
		return now
	}
	if x.key != "" {
		k.changed[x.key] = true
	}
	return x.follow(e)
}

// quiet says that an event is of nothing that is told here. Health checks are an exec each; a container is stopped and
// restarted after it has died and started.
func quiet(e engine.Event) bool {
	word, _ := e.Words()
	return e.Type == "container" && (strings.HasPrefix(word, "exec_") ||
		slices.Contains([]string{"top", "attach", "detach", "resize", "stop", "restart"}, word))
}

// follow changes a container as an event of it says. To do so twice is to do so once.
func (c *Container) follow(e engine.Event) reading {
	word, more := e.Words()
	switch {
	case e.Type == "network" && word == "disconnect":
		return later // each end of a container has one, shortly before it is told, and the engine answers only afterwards
	case e.Type == "network":
		return now
	case word == "die":
		c.State = "exited"
	case word == "pause":
		c.State = "paused"
	case word == "unpause":
		c.State = "running"
	case word == "health_status" && slices.Contains([]string{"healthy", "unhealthy", "starting"}, more):
		c.Health = &Health{Status: more}
	case word == "kill", word == "destroy", quiet(e):
	default: // start, of which the address is not said; create, rename, update, and what other engines have
		return now
	}
	return no
}

// followAll follows events in order, and says what is to be read after all of them, and whether the container is gone.
func (c *Container) followAll(all []engine.Event) (read reading, gone bool) {
	for _, e := range all {
		word, _ := e.Words()
		gone = gone || e.Type == "container" && word == "destroy"
		read = max(read, c.follow(e))
	}
	return read, gone
}

// list takes a whole list, and what has happened since it was asked for, in that order.
func (k *known) list(all []Container, since []engine.Event, at time.Time) {
	events := map[string][]engine.Event{}
	for _, e := range since {
		if id := subject(e); id != "" {
			events[id] = append(events[id], e)
		}
	}
	there := map[string]bool{}
	for _, c := range all {
		there[c.ID] = true
		mine := events[c.ID]
		if len(mine) > 0 && k.containers[c.ID] != nil {
			continue // what is known of it is newer
		}
		if _, gone := c.followAll(mine); !gone {
			k.put(c)
		}
	}
	for id := range k.containers {
		if !there[id] && len(events[id]) == 0 {
			k.drop(id)
		}
	}
	for id, until := range k.killed {
		if at.After(until) { // it has taken the signal for something else
			delete(k.killed, id)
		}
	}
	for key := range k.groups {
		k.changed[key] = true
	}
	k.listed = true
}

// subject is the container that an event is about; "" where it is about none.
func subject(e engine.Event) string {
	switch e.Type {
	case "container":
		return e.Actor.ID
	case "network":
		return e.Actor.Attributes["container"]
	}
	return ""
}

// all are the workloads: the compose services, and the containers of no project, whose labels ask for it. What has not
// changed is handed over as it was, so that an event costs its own workload.
func (k *known) all() []source.Workload {
	for key := range k.changed {
		if len(k.groups[key]) == 0 {
			delete(k.groups, key)
		}
		if w, asked := k.workload(key); asked {
			k.workloads[key] = w
		} else {
			delete(k.workloads, key)
		}
	}
	clear(k.changed)
	return slices.Collect(maps.Values(k.workloads))
}

// workload is a group's; false where its labels do not ask for one.
func (k *known) workload(key string) (source.Workload, bool) {
	// The newest says what is wanted: while a new version replaces the old one both are there.
	some := slices.SortedFunc(maps.Values(k.groups[key]), func(a, b *entry) int {
		return cmp.Or(cmp.Compare(b.Created, a.Created), strings.Compare(a.ID, b.ID))
	})
	if len(some) == 0 || !labels.ReadBasics(some[0].Labels).Enabled {
		return source.Workload{}, false
	}
	w := source.Workload{Key: key, Name: strings.ReplaceAll(key, "/", "-"), Labels: some[0].Labels}
	for _, x := range some {
		_, ends := k.killed[x.ID]
		e, err := x.endpoint(k.address, ends)
		switch {
		case e == nil && err == nil:
		case err != nil:
			w.Problems = append(w.Problems, fmt.Sprintf("container %s: %v", x.name(), err))
		default:
			w.Endpoints = append(w.Endpoints, *e)
		}
	}
	slices.SortFunc(w.Endpoints, func(a, b source.Endpoint) int {
		return cmp.Or(strings.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
	})
	return w, true
}
