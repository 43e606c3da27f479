package accesslog

import (
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
)

// Names on NATS. Messages are those of NATS itself, not JetStream's: nobody stores them.
const (
	SubjectPrefix = "marchproxy.access_log.v1."
	// WatchSubject is where apis say what is watched.
	WatchSubject = SubjectPrefix + "watch"
	// EntriesPrefix is followed by the id of who runs the Envoy.
	EntriesPrefix = SubjectPrefix + "entries."
)

const (
	// Renew is how often an api says that it still watches.
	Renew = time.Second
	// Lease is how long what is watched is told of after an api has said so.
	Lease = 4 * time.Second
	// MaxRate is how many entries a second one Envoy tells of at most.
	MaxRate = 500
	// MaxFilters is how many filters a [Watch] has; with more of them everything is asked for.
	MaxFilters = 32
	// maxBatch is how many entries one message has: each may be 2 KiB, and a NATS of somebody's own takes 1 MiB.
	maxBatch = 200
)

// Watch is what an api says while somebody watches there.
type Watch struct {
	// ID of the api's process.
	ID string `json:"id"`
	// Filters are what is watched: an entry that one of them takes is wanted. None ends the watch.
	Filters []Filter `json:"filters,omitempty"`
	// Rate is how many entries a second each Envoy is to tell of at most, up to [MaxRate].
	Rate int `json:"rate,omitempty"`
}

// Batch is what an Envoy tells, at least once a second while it is watched.
type Batch struct {
	// Proxy is the Envoy's node id, and Gateway the gateway that it belongs to.
	Proxy   string `json:"proxy"`
	Gateway string `json:"gateway"`
	// Share of the requests that are told of now, up to 1.
	Share float64 `json:"share"`
	// Reason why the Envoy tells nothing, in a sentence; "" where nothing is wrong.
	Reason  string  `json:"reason,omitempty"`
	Entries []Entry `json:"entries,omitempty"`
}

// Entry is one request at its end. On NATS it has neither Proxy nor Gateway, which are the [Batch]'s.
type Entry = api.AccessLogEntry
