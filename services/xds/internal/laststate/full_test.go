package laststate_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/disktest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/xds/internal/laststate"
)

func TestMain(m *testing.M) { os.Exit(disktest.Main(m.Run)) }

// TestFullDisk: what is written while the disk is full is not there after a restart, but the state before it is, whole;
// and all of it when there was room again, without a commit in between that is missing.
func TestFullDisk(t *testing.T) {
	disk := disktest.New(t, 1<<20)
	j := open(t, disk.Dir)
	for k := range 5 {
		j.commit(object(t, fmt.Sprint("r", k), "before", int64(k+1)))
	}
	good := maps.Clone(j.after[len(j.after)-1])
	if err := disk.Fill(); err != nil {
		t.Fatal(err)
	}
	all := func() (out []*resource.Object) {
		for _, o := range j.now {
			out = append(out, o)
		}
		return out
	}
	write := func(rev int64, name string) error {
		o := object(t, name, strings.Repeat("x", 8<<10), rev)
		u := resource.Update{Commit: resource.Commit{Epoch: "e", Revision: rev}, Changed: []*resource.Object{o}}
		_ = j.file.Append(u) // Compact says it again
		j.now[o.Ref()] = o
		return j.file.Compact(u.Commit, all)
	}
	for rev := int64(6); rev < 9; rev++ {
		if err := write(rev, fmt.Sprint("full", rev)); err == nil ||
			!strings.Contains(err.Error(), "no space left on device") || j.file.Behind() == nil {
			t.Errorf("revision %d on a full disk: %v, behind %v", rev, err, j.file.Behind())
		}
	}
	if err := j.file.Note(laststate.Notes{ConfigVersion: "8"}); err == nil {
		t.Error("a note on a full disk is no error")
	}
	if err := j.file.SaveQuarantine([]laststate.Quarantined{
		{Gateway: "g", Reason: strings.Repeat("y", 8<<10)},
	}); err == nil {
		t.Error("a quarantine snapshot on a full disk is no error")
	}
	// A restart, on the same full disk.
	again, saved, found, err := laststate.Open(disk.Dir, secret)
	if err != nil || !found || saved.Commit.Revision != 5 || !maps.Equal(texts(saved.Objects), good) ||
		again.Behind() == nil {
		t.Errorf("a restart finds %v, revision %d, %v, behind %v", found, saved.Commit.Revision, err, again.Behind())
	}
	left, err := filepath.Glob(filepath.Join(disk.Dir, "*.new"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left behind, %v", left, err)
	}
	if err := disk.Empty(); err != nil {
		t.Fatal(err)
	}
	if err := write(9, "room"); err != nil || j.file.Behind() != nil {
		t.Fatalf("with room: %v", err)
	}
	if err := j.file.Append(resource.Update{
		Commit:  resource.Commit{Epoch: "e", Revision: 10},
		Changed: []*resource.Object{object(t, "last", "x", 10)},
	}); err != nil {
		t.Fatal(err)
	}
	_, saved, found, err = laststate.Open(disk.Dir, secret)
	if err != nil || !found || saved.Commit.Revision != 10 || len(saved.Objects) != 5+3+1+1 ||
		saved.Notes.ConfigVersion != "8" {
		t.Errorf("with room: found %v, revision %d, %d objects, notes %+v, %v", found, saved.Commit.Revision,
			len(saved.Objects), saved.Notes, err)
	}
}
