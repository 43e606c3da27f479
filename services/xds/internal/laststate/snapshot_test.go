package laststate_test

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/xds/internal/laststate"
)

func (j *journal) all() (out []*resource.Object) {
	for _, o := range j.now {
		out = append(out, o)
	}
	return out
}

// add writes a commit, and no snapshot.
func (j *journal) add(rev int64, o *resource.Object) {
	j.t.Helper()
	if err := j.file.Append(resource.Update{
		Commit:  resource.Commit{Epoch: "e", Revision: rev},
		Changed: []*resource.Object{o},
	}); err != nil {
		j.t.Fatal(err)
	}
	j.now[o.Ref()] = o
}

// TestBeside: commits, notes and addresses that come while a snapshot is written are in the file that takes its place,
// and what comes after that as well; a restart before it is finished finds them in the old one.
func TestBeside(t *testing.T) {
	j := open(t, t.TempDir())
	j.commit(object(t, "first", "x", 1))
	found := func(when string, rev int64) {
		t.Helper()
		_, saved, ok, err := laststate.Open(copied(t, j.dir), secret)
		if err != nil || !ok || saved.Commit.Revision != rev || !maps.Equal(texts(saved.Objects), texts(j.all())) ||
			saved.Notes != j.file.Notes() || len(saved.Names) != int(rev)-1 {
			t.Errorf("%s: found %v, revision %d, %d objects, %v, %v, %v", when, ok, saved.Commit.Revision, len(saved.Objects),
				saved.Notes, saved.Names, err)
		}
	}
	next := func(rev int64) {
		t.Helper()
		j.add(rev, object(t, fmt.Sprint("r", rev), "y", rev))
		if err := j.file.Note(laststate.Notes{ConfigVersion: fmt.Sprint(rev)}); err != nil {
			t.Fatal(err)
		}
		if err := j.file.Resolved(map[string][]netip.Addr{
			fmt.Sprint("n", rev): {netip.MustParseAddr("192.0.2.1")},
		}); err != nil {
			t.Fatal(err)
		}
	}
	s := j.file.Begin(resource.Commit{Epoch: "e", Revision: 1}, j.all())
	next(2)
	found("begun", 2)
	err := s.Write()
	next(3)
	found("written", 3)
	if err := j.file.Finish(s, err); err != nil {
		t.Fatal(err)
	}
	found("finished", 3)
	next(4)
	found("after it", 4)
}

// copied is a directory with the same files, as a process that is killed leaves them.
func copied(t *testing.T, dir string) string {
	t.Helper()
	out := t.TempDir()
	if err := os.CopyFS(out, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestInParts: a snapshot of many objects is several frames, and none at all where one is missing: half a configuration
// would take routes from the Envoys.
func TestInParts(t *testing.T) {
	j := open(t, t.TempDir())
	for i := range 2500 {
		o := object(t, fmt.Sprint("r", i), "x", 1)
		j.now[o.Ref()] = o
	}
	if err := j.file.Compact(resource.Commit{Epoch: "e", Revision: 1}, j.all); err != nil {
		t.Fatal(err)
	}
	j.after = append(j.after, texts(j.all()))
	path := filepath.Join(j.dir, "last-state")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{len(whole) / 3, len(whole) / 2, len(whole) - 1} {
		if rev := read(t, j, whole[:n]); rev != 0 {
			t.Errorf("%d of %d bytes are a snapshot", n, len(whole))
		}
	}
	if rev := read(t, j, whole); rev != 1 {
		t.Error("the whole is none")
	}
}

// TestStartWritesNothing: a start reads the file and goes on with it; writing it anew takes a second with many objects.
func TestStartWritesNothing(t *testing.T) {
	j, raw := written(t)
	path := filepath.Join(j.dir, "last-state")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	open(t, j.dir)
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) || after.Size() != int64(len(raw)) {
		t.Errorf("the file is another one after a start: %v", err)
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			j := open(b, b.TempDir())
			for i := range n {
				o := object(b, fmt.Sprint("r", i), "x", 1)
				j.now[o.Ref()] = o
			}
			if err := j.file.Compact(resource.Commit{Epoch: "e", Revision: 1}, j.all); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, saved, found, err := laststate.Open(j.dir, secret); err != nil || !found || len(saved.Objects) != n {
					b.Fatal(found, err)
				}
			}
		})
	}
}
