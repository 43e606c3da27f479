package laststate_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/services/xds/internal/laststate"
)

// TestLatencies: what was written last is found again; a torn file, or another key's, is nothing.
func TestLatencies(t *testing.T) {
	j := open(t, t.TempDir())
	want := []laststate.Latency{{
		Service: "web", From: locality.Place{Cloud: "aws", Zone: "a"}, To: locality.Place{Cloud: "gcp"}, Milliseconds: 1.5,
	}}
	if got, err := j.file.Latencies(); err != nil || got != nil {
		t.Errorf("before anything was written: %v, %v", got, err)
	}
	for _, all := range [][]laststate.Latency{nil, want} {
		if err := j.file.SaveLatencies(all); err != nil {
			t.Fatal(err)
		}
	}
	again, _, _, err := laststate.Open(j.dir, secret)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Latencies(); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	files, err := filepath.Glob(filepath.Join(j.dir, "*.latencies"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.Truncate(files[0], 20); err != nil {
		t.Fatal(err)
	}
	if got, err := again.Latencies(); err != nil || got != nil {
		t.Errorf("torn: %v, %v", got, err)
	}
}
