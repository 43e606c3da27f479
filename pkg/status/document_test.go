package status_test

import (
	"testing"

	"github.com/marchproxy/marchproxy/pkg/status"
)

// TestDocumentsInOrder: of documents of several servers all take the same one for the last.
func TestDocumentsInOrder(t *testing.T) {
	const early, late = "2026-11-26T10:00:00.000000Z", "2026-11-26T10:00:00.000001Z"
	for what, c := range map[string]struct {
		later, earlier status.Document
	}{
		"a higher revision, of a server whose clock is behind": {
			status.Document{Epoch: "e", Revision: 2, At: early},
			status.Document{Epoch: "e", Revision: 1, At: late},
		},
		"one that has changed nothing": {
			status.Document{Epoch: "e", Revision: 2, At: late},
			status.Document{Epoch: "e", Revision: 2, At: early},
		},
		"one after an older backup of the database": {
			status.Document{Epoch: "f", Revision: 1, At: late},
			status.Document{Epoch: "e", Revision: 9, At: early},
		},
		"any, where only the version is known of a former life": {
			status.Document{Epoch: "e", Revision: 2, At: late},
			status.Document{Version: "v"},
		},
	} {
		if !c.later.After(c.earlier) || c.earlier.After(c.later) || c.later.After(c.later) {
			t.Errorf("%s is not after the other", what)
		}
	}
}
