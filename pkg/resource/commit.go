package resource

// Commit is the message after each transaction: everything up to its revision has been published.
type Commit struct {
	// Epoch is a UUID; another one means that an older backup of the database was restored, and that
	// revisions may be lower than before.
	Epoch    string `json:"epoch"`
	Revision int64  `json:"revision"`
	// State is the count and hash of each kind that has objects.
	State       map[string]KindState `json:"state,omitempty"`
	Changes     []ChangedResource    `json:"changes,omitempty"`
	Actor       string               `json:"actor,omitempty"`
	Message     string               `json:"message,omitempty"`
	RequestID   string               `json:"request_id,omitempty"`
	At          string               `json:"at,omitempty"`
	Traceparent string               `json:"traceparent,omitempty"`
}

// ChangedResource is one resource that a commit changed.
type ChangedResource struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Deleted bool   `json:"deleted,omitempty"`
}

// MaxChanges is how many changes a commit lists, so that it stays below NATS's limit of 1 MiB a
// message; a larger transaction's commit lists none, and its resources' own events say it all.
const MaxChanges = 4000

// Update is what a consumer is handed at a commit.
type Update struct {
	Commit Commit
	// Changed are the last versions of what differs from the update before, tombstones included; only of
	// the kinds that are followed. The first update differs from what a consumer began with.
	Changed []*Object
}
