package laststate_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/xds/internal/laststate"
)

// TestReadsGob: a file of the version before, testdata/gob, whose frames are gobs, is read, and goes on in the form
// that frames have now. It has two routes, notes, a third route, the addresses of two names, one of which nobody has
// any more, and the removal of the first route.
func TestReadsGob(t *testing.T) {
	raw, err := os.ReadFile("testdata/gob")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "last-state"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	names := map[string][]netip.Addr{"a.example.com": addrs("192.0.2.1", "2001:db8::1")}
	expect := func(when string, revision int64, text string) *laststate.File {
		t.Helper()
		f, saved, found, err := laststate.Open(dir, secret)
		if err != nil || !found || saved.Commit.Revision != revision || saved.Notes.ConfigVersion != "7" ||
			!reflect.DeepEqual(saved.Names, names) || len(saved.Objects) != 2 {
			t.Fatalf("%s: found %v, revision %d, %v, %v, %d objects, %v",
				when, found, saved.Commit.Revision, saved.Notes, saved.Names, len(saved.Objects), err)
		}
		if got := texts(saved.Objects); !strings.Contains(got["r2"], "text 2") || !strings.Contains(got["r3"], text) {
			t.Errorf("%s: %v", when, got)
		}
		return f
	}
	f := expect("as it was written", 3, "text 3")
	changed := []*resource.Object{object(t, "r3", "text 4", 4)}
	next := resource.Update{Commit: resource.Commit{Epoch: "e", Revision: 4}, Changed: changed}
	if err := f.Append(next); err != nil {
		t.Fatal(err)
	}
	names["c.example.com"] = addrs("192.0.2.3")
	if err := f.Resolved(map[string][]netip.Addr{"c.example.com": names["c.example.com"]}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := expect("with what was added", 4, "text 4").Close(); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkAppend is what a change of one route costs.
func BenchmarkAppend(b *testing.B) {
	j := open(b, b.TempDir())
	j.commit(object(b, "r", "x", 1))
	state := map[string]resource.KindState{"Route": {Count: 1, Hash: strings.Repeat("0", 64)}}
	u := resource.Update{
		Commit:  resource.Commit{Epoch: "e", Revision: 2, State: state},
		Changed: []*resource.Object{object(b, "r", "y", 2)},
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := j.file.Append(u); err != nil {
			b.Fatal(err)
		}
	}
}

// TestNothingQuarantined: where nothing is refused nothing is written, but where something was; a restart knows the
// same.
func TestNothingQuarantined(t *testing.T) {
	dir := t.TempDir()
	reopen := func(want int) *laststate.File {
		t.Helper()
		f, _, _, err := laststate.Open(dir, secret)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := f.Quarantine(); err != nil || len(got) != want {
			t.Fatalf("%d quarantined, not %d, %v", len(got), want, err)
		}
		return f
	}
	for round, n := range []int{0, 0, 2, 0, 1} {
		f := reopen(0)
		for _, amount := range []int{0, n, n, 0, 0, n} {
			records := make([]laststate.Quarantined, amount)
			for i := range records {
				records[i] = laststate.Quarantined{Gateway: "g", Name: fmt.Sprint(round, i)}
			}
			if err := f.SaveQuarantine(records); err != nil {
				t.Fatal(err)
			}
			reopen(amount)
		}
		if err := f.SaveQuarantine(nil); err != nil {
			t.Fatal(err)
		}
	}
}
