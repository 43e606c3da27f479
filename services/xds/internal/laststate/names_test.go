package laststate_test

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/xds/internal/laststate"
)

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, x := range texts {
		out = append(out, netip.MustParseAddr(x))
	}
	return out
}

// TestNames: the last addresses of names are found again, with the newest ones in the place of older ones, without
// those of names that nobody has any more, and before as after the journal is written anew.
func TestNames(t *testing.T) {
	j := open(t, t.TempDir())
	say := func(names map[string][]netip.Addr) {
		t.Helper()
		if err := j.file.Resolved(names); err != nil {
			t.Fatal(err)
		}
	}
	say(map[string][]netip.Addr{"early": addrs("192.0.2.9")}) // before the first commit
	j.commit(object(t, "r", "x", 1))
	say(map[string][]netip.Addr{
		"db": addrs("192.0.2.1"), "web": addrs("192.0.2.2", "2001:db8::1"),
		"gone": addrs("192.0.2.3"),
	})
	j.commit(object(t, "r", "y", 2))
	say(map[string][]netip.Addr{"db": addrs("192.0.2.4"), "gone": nil})
	want := map[string][]netip.Addr{
		"early": addrs("192.0.2.9"), "db": addrs("192.0.2.4"),
		"web": addrs("192.0.2.2", "2001:db8::1"),
	}
	for range 3 { // each opening writes the file anew
		_, saved, found, err := laststate.Open(j.dir, secret)
		if err != nil || !found || !reflect.DeepEqual(saved.Names, want) || saved.Commit.Revision != 2 ||
			len(saved.Objects) != 1 {
			t.Fatalf("found %v at revision %d with %d objects and the names %v, %v", found, saved.Commit.Revision,
				len(saved.Objects), saved.Names, err)
		}
	}
}

// TestNamesThatKeepChanging: a name whose answer alternates for ever does not make the file grow for ever.
func TestNamesThatKeepChanging(t *testing.T) {
	j := open(t, t.TempDir())
	j.commit(object(t, "r", "x", 1))
	all := func() []*resource.Object {
		var out []*resource.Object
		for o := range maps.Values(j.now) {
			out = append(out, o)
		}
		return out
	}
	largest := int64(0)
	for i := range 30000 {
		if err := j.file.Resolved(map[string][]netip.Addr{"db": addrs(fmt.Sprintf("192.0.2.%d", i%250))}); err != nil {
			t.Fatal(err)
		}
		if err := j.file.Compact(resource.Commit{Epoch: "e", Revision: 1}, all); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			info, err := os.Stat(filepath.Join(j.dir, "last-state"))
			if err != nil {
				t.Fatal(err)
			}
			largest = max(largest, info.Size())
		}
	}
	if largest > 5<<20 || largest < 1<<20 {
		t.Errorf("the file grew to %d bytes", largest)
	}
	_, saved, found, err := laststate.Open(j.dir, secret)
	if err != nil || !found || !reflect.DeepEqual(saved.Names["db"], addrs(fmt.Sprintf("192.0.2.%d", 29999%250))) {
		t.Errorf("found %v: %v, %v", found, saved.Names, err)
	}
}
