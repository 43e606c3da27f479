package laststate_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/xds/internal/laststate"
)

const secret = "a secret of the test's own"

func object(t testing.TB, name, text string, rev int64) *resource.Object {
	t.Helper()
	o, err := resource.ParsePayload(fmt.Appendf(nil, `{"kind":"Route","name":%q,"revision":%d,`+
		`"spec":{"direct_response":{"status":200,"body":%q}}}`, name, rev, text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// journal is a file, and what every prefix of its commits amounts to.
type journal struct {
	t     testing.TB
	dir   string
	file  *laststate.File
	now   map[resource.Ref]*resource.Object
	after []map[string]string // by commit
}

func open(t testing.TB, dir string) *journal {
	t.Helper()
	f, saved, _, err := laststate.Open(dir, secret)
	if err != nil {
		t.Fatal(err)
	}
	j := &journal{t: t, dir: dir, file: f, now: map[resource.Ref]*resource.Object{}}
	for _, o := range saved.Objects {
		j.now[o.Ref()] = o
	}
	return j
}

func (j *journal) commit(objects ...*resource.Object) {
	j.t.Helper()
	u := resource.Update{Commit: resource.Commit{Epoch: "e", Revision: int64(len(j.after) + 1)}, Changed: objects}
	if err := j.file.Append(u); err != nil {
		j.t.Fatal(err)
	}
	for _, o := range objects {
		if o.Deleted {
			delete(j.now, o.Ref())
		} else {
			j.now[o.Ref()] = o
		}
	}
	all := func() []*resource.Object {
		var out []*resource.Object
		for _, o := range j.now {
			out = append(out, o)
		}
		return out
	}
	if err := j.file.Compact(u.Commit, all); err != nil {
		j.t.Fatal(err)
	}
	j.after = append(j.after, texts(all()))
}

func texts(objects []*resource.Object) map[string]string {
	out := map[string]string{}
	for _, o := range objects {
		out[o.Name] = string(o.Payload())
	}
	return out
}

// written makes a journal of ten commits and returns its bytes.
func written(t testing.TB) (*journal, []byte) {
	t.Helper()
	j := open(t, t.TempDir())
	for i := range 9 {
		j.commit(object(t, fmt.Sprint("r", i%4), fmt.Sprint("text ", i), int64(i+1)))
	}
	j.commit(resource.Tombstone(resource.Ref{Kind: "Route", Name: "r1"}, 10))
	if err := j.file.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(j.dir, "last-state"))
	if err != nil {
		t.Fatal(err)
	}
	return j, raw
}

// read opens bytes as a journal, and fails unless they amount to one of the states that there were, at its commit.
func read(t testing.TB, j *journal, raw []byte) int64 {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "last-state"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	f, saved, found, err := laststate.Open(dir, secret)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if !found {
		if len(saved.Objects) > 0 {
			t.Errorf("nothing found, with %d objects", len(saved.Objects))
		}
		return 0
	}
	rev := saved.Commit.Revision
	if rev < 1 || rev > int64(len(j.after)) || !maps.Equal(texts(saved.Objects), j.after[rev-1]) {
		t.Errorf("revision %d with %v", rev, texts(saved.Objects))
	}
	// It goes on from there, and the next start finds that.
	if err := f.Append(resource.Update{
		Commit:  resource.Commit{Epoch: "e", Revision: 100},
		Changed: []*resource.Object{object(t, "next", "x", 100)},
	}); err != nil {
		t.Fatal(err)
	}
	_, again, found, err := laststate.Open(dir, secret)
	if err != nil || !found || again.Commit.Revision != 100 || len(again.Objects) != len(saved.Objects)+1 {
		t.Errorf("after a commit on top of revision %d: found %v, revision %d, %d objects, %v", rev, found,
			again.Commit.Revision, len(again.Objects), err)
	}
	return rev
}

func TestWhole(t *testing.T) {
	j, raw := written(t)
	if rev := read(t, j, raw); rev != 10 {
		t.Errorf("revision %d", rev)
	}
}

// TestTorn: the process dies in the middle of a write, at any byte of it.
func TestTorn(t *testing.T) {
	j, raw := written(t)
	last := int64(0)
	for n := 0; n < len(raw); n += 7 {
		rev := read(t, j, raw[:n])
		if rev < last {
			t.Errorf("%d bytes hold revision %d, fewer had %d", n, rev, last)
		}
		last = rev
	}
	if last < 8 {
		t.Errorf("the longest torn file holds revision %d", last)
	}
}

// TestAltered: bits flip, or frames are cut out or changed about: what was before them is kept, and nothing else.
func TestAltered(t *testing.T) {
	j, raw := written(t)
	for n := 0; n < len(raw); n += 11 {
		bad := append([]byte{}, raw...)
		bad[n] ^= 0x10
		read(t, j, bad)
	}
	if rev := read(t, j, append(append([]byte{}, raw...), raw[len(raw)-200:]...)); rev != 10 {
		t.Errorf("with rubbish behind it: revision %d", rev)
	}
}

// TestOtherKey: a file of another SECRET_KEY is set aside, not lost, and a new one begun.
func TestOtherKey(t *testing.T) {
	j, raw := written(t)
	f, saved, found, err := laststate.Open(j.dir, "another secret of the test's")
	if err != nil || found || len(saved.Objects) > 0 {
		t.Fatalf("found %v, %d objects, %v", found, len(saved.Objects), err)
	}
	if aside, err := os.ReadFile(filepath.Join(j.dir, "last-state.unreadable")); err != nil ||
		string(aside) != string(raw) {
		t.Errorf("the old file is not kept: %v", err)
	}
	c := resource.Commit{Epoch: "e", Revision: 1}
	if err := f.Compact(c, func() []*resource.Object { return []*resource.Object{object(t, "new", "x", 1)} }); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, saved, found, err := laststate.Open(j.dir, "another secret of the test's"); err != nil || !found ||
		len(saved.Objects) != 1 {
		t.Errorf("the new file: found %v, %d objects, %v", found, len(saved.Objects), err)
	}
}

// TestCompact: the journal does not grow for ever, and what it holds is not changed by that.
func TestCompact(t *testing.T) {
	j := open(t, t.TempDir())
	filler := make([]byte, 100<<10)
	for i := range filler {
		filler[i] = 'a' + byte(i%26)
	}
	largest, shrunk := int64(0), false
	for i := range 150 {
		j.commit(object(t, fmt.Sprint("r", i%3), string(filler)+fmt.Sprint(i), int64(i+1)))
		info, err := os.Stat(filepath.Join(j.dir, "last-state"))
		if err != nil {
			t.Fatal(err)
		}
		shrunk = shrunk || info.Size() < largest
		largest = max(largest, info.Size())
	}
	if !shrunk || largest > 5<<20 {
		t.Errorf("the largest of 150 commits' files has %d bytes; compacted %v", largest, shrunk)
	}
	if err := j.file.Close(); err != nil {
		t.Fatal(err)
	}
	_, saved, found, err := laststate.Open(j.dir, secret)
	if err != nil || !found || saved.Commit.Revision != 150 || !maps.Equal(texts(saved.Objects), j.after[149]) {
		t.Errorf("found %v, revision %d, %v", found, saved.Commit.Revision, err)
	}
}

// TestNotes: they survive restarts and compaction, and need no commit of their own.
func TestNotes(t *testing.T) {
	j := open(t, t.TempDir())
	j.commit(object(t, "r", "x", 1))
	if err := j.file.Note(laststate.Notes{ConfigVersion: "7", Document: "{}"}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		j = open(t, j.dir)
		if j.file.Notes() != (laststate.Notes{ConfigVersion: "7", Document: "{}"}) || len(j.now) != 1 {
			t.Errorf("notes %+v, %d objects", j.file.Notes(), len(j.now))
		}
		j.commit(object(t, "r", "y", 2))
	}
}

// TestQuarantine: what was refused is kept sealed; another key's is as good as none.
func TestQuarantine(t *testing.T) {
	j := open(t, t.TempDir())
	records := []laststate.Quarantined{{
		Gateway: "default", Type: "t", Name: "n", Version: "v", Reason: "why", Revision: 3,
		Good: &laststate.Body{Name: "n", Bytes: []byte("b")},
	}}
	if err := j.file.SaveQuarantine(records); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, j.dir).file.Quarantine()
	if err != nil || !reflect.DeepEqual(got, records) {
		t.Errorf("%+v %v", got, err)
	}
	other, _, _, err := laststate.Open(j.dir, "another secret of the test's")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := other.Quarantine(); err != nil || len(got) > 0 {
		t.Errorf("with another key: %+v %v", got, err)
	}
	path := filepath.Join(j.dir, "last-state.verdicts")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw[:len(raw)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := j.file.Quarantine(); err != nil || len(got) > 0 {
		t.Errorf("torn: %+v %v", got, err)
	}
}
