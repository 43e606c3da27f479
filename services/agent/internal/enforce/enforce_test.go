package enforce

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/tracing"
)

func object(t *testing.T, name string, p *configv1.RateLimitPolicy) *resource.Object {
	t.Helper()
	o, err := resource.New(resource.Ref{Kind: resource.KindRateLimit, Name: name}, p)
	if err != nil {
		t.Fatal(err)
	}
	o.Revision = 7
	return o
}

func newEnforcer(dir string) *Enforcer {
	return New(Options{
		ID: "n", Labels: map[string]string{"zone": "a"}, StateDir: dir, Log: zap.NewNop(),
		Peers: func(context.Context) []netip.Addr { return nil },
	})
}

// TestLastGoodState: what was taken before is there again, also what is for other nodes: the stream's hash
// is over all of it. A file that cannot be read does not stop the agent.
func TestLastGoodState(t *testing.T) {
	dir := t.TempDir()
	e := newEnforcer(dir)
	mine, theirs := object(t, "mine", &configv1.RateLimitPolicy{PacketsPerSecond: 5}), object(t, "theirs",
		&configv1.RateLimitPolicy{PacketsPerSecond: 5, NodeSelector: map[string]string{"zone": "b"}})
	c := resource.Commit{Epoch: "e", Revision: 7}
	if err := e.Update(resource.Update{Commit: c, Changed: []*resource.Object{mine, theirs}}); err != nil {
		t.Fatal(err)
	}
	again := newEnforcer(dir)
	objects, commit := again.Initial()
	if commit.Revision != 7 || len(objects) != 2 {
		t.Fatalf("revision %d, %v", commit.Revision, objects)
	}
	for _, o := range objects {
		if was := map[string]*resource.Object{
			"mine":   mine,
			"theirs": theirs,
		}[o.Name]; string(was.Payload()) != string(o.Payload()) {
			t.Errorf("%s came back as %s", was.Payload(), o.Payload())
		}
	}
	if len(again.policies) != 1 || again.policies["mine"] == nil {
		t.Errorf("policies of the node: %v", slices.Collect(maps.Keys(again.policies)))
	}
	if err := os.WriteFile(filepath.Join(dir, "policies.jsonl"), []byte(`{"commit":{"revision":9}}`+"\nnonsense"),
		0o600); err != nil {
		t.Fatal(err)
	}
	if objects, commit := newEnforcer(dir).Initial(); len(objects) > 0 || commit.Revision != 0 {
		t.Errorf("half a file was taken: %v %v", objects, commit)
	}
}

// TestLastGoodStateIsAdded: changes are added to the file, which is written anew before it grows without bounds. Cut
// off anywhere it holds a state that there was, whole.
func TestLastGoodStateIsAdded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policies.jsonl")
	e := newEnforcer(dir)
	want := map[int]map[string]int64{} // by the size of the file, the policies and their rates
	var grown, rewritten int
	last := int64(0)
	for i := range int64(3000) {
		o := object(t, string(rune('a'+i%7)), &configv1.RateLimitPolicy{
			PacketsPerSecond: uint32(i + 1),
			Deny:             slices.Repeat([]string{"192.0.2.1"}, 100),
		})
		if i%5 == 4 {
			o = resource.Tombstone(o.Ref(), i)
		}
		if err := e.Update(resource.Update{
			Commit:  resource.Commit{Epoch: "e", Revision: i + 1},
			Changed: []*resource.Object{o},
		}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > last {
			grown++
		} else {
			rewritten++
			clear(want)
		}
		last = info.Size()
		now := map[string]int64{}
		for name, o := range e.all {
			now[name] = int64(o.Message().(*configv1.RateLimitPolicy).GetPacketsPerSecond())
		}
		want[int(last)] = now
	}
	if last > 2<<20 || grown < 1000 || rewritten < 2 {
		t.Errorf("%d bytes after %d additions, written anew %d times", last, grown, rewritten)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sizes := slices.Sorted(maps.Keys(want))
	for _, cut := range []int{
		len(raw), len(raw) - 1, sizes[len(sizes)-2] + 1, sizes[len(sizes)-2],
		sizes[1] - 30, sizes[0],
	} {
		if err := os.WriteFile(path, raw[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		i, whole := slices.BinarySearch(sizes, cut)
		if !whole {
			i--
		}
		again := newEnforcer(dir)
		got := map[string]int64{}
		for name, o := range again.all {
			got[name] = int64(o.Message().(*configv1.RateLimitPolicy).GetPacketsPerSecond())
		}
		if !maps.Equal(got, want[sizes[i]]) {
			t.Errorf("cut off at %d: %v, want %v", cut, got, want[sizes[i]])
		}
	}
}

// TestNoSpansCostNothing: without a receiver of spans an update allocates nothing for them.
func TestNoSpansCostNothing(t *testing.T) {
	e := newEnforcer(t.TempDir())
	e.commit.Traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	if n := testing.AllocsPerRun(1000, func() { e.record(tracing.Now(), tracing.Now()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestNumbersStay: the kernel counts by a policy's number, which is its own while it exists.
func TestNumbersStay(t *testing.T) {
	n := ids{}
	n.assign([]string{"a", "b", "c"})
	b := n["b"]
	n.assign([]string{"b", "c", "d"})
	if n["b"] != b || n["d"] != 0 || len(n) != 3 {
		t.Errorf("%v", n)
	}
}

// TestCombine: policies are added up, and nobody locks the node's peers out.
func TestCombine(t *testing.T) {
	policies := map[string]*policy{}
	numbers := ids{}
	for name, p := range map[string]*configv1.RateLimitPolicy{
		"all": {PacketsPerSecond: 100, Filters: &configv1.AttackFilters{Land: true, AmplificationPorts: []uint32{53}}},
		"few": {
			Cidrs: []string{"10.0.0.0/8"}, PacketsPerSecond: 5, Burst: 9, Action: configv1.RateLimitPolicy_observe,
			SynCookies: true,
		},
		"lists":   {Allow: []string{"192.0.2.1"}, Deny: []string{"192.0.2.2", "198.51.100.0/24"}},
		"lists-2": {Allow: []string{"192.0.2.1", "192.0.2.2"}},
	} {
		policies[name] = parse(object(t, name, p))
	}
	numbers.assign(slices.Sorted(maps.Keys(policies)))
	r, warnings := combine(policies, numbers, []netip.Addr{netip.MustParseAddr("198.51.100.9")})
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	if r.Default == nil || r.Default.Rate != 100 || r.Default.Burst != 100 || len(r.Policies) != 1 ||
		r.Policies[0].Burst != 9 {
		t.Errorf("limits: %+v %+v", r.Default, r.Policies)
	}
	if len(r.Allow) != 3 || len(r.Deny) != 1 || !r.Filters.Land || !r.SYNCookies ||
		len(r.Filters.AmplificationPorts) != 1 {
		t.Errorf("%+v", r)
	}
	if !slices.IsSortedFunc(r.Allow, netip.Prefix.Compare) ||
		slices.Contains(r.Deny, netip.MustParsePrefix("192.0.2.2/32")) {
		t.Errorf("lists: %v %v", r.Allow, r.Deny)
	}
	if len(warnings) != 2 || !strings.Contains(strings.Join(warnings, "\n"), "peer 198.51.100.9") {
		t.Errorf("warnings: %q", warnings)
	}
}

// TestStatusSaysState: a report has the digest of the state that its revision names, also of one that changed no
// policy.
func TestStatusSaysState(t *testing.T) {
	e := newEnforcer(t.TempDir())
	for i, hash := range []string{"one", "another"} {
		c := resource.Commit{Epoch: "e", Revision: int64(7 + i), State: map[string]resource.KindState{
			resource.KindRoute: {Count: 1, Hash: hash},
		}}
		if err := e.Update(resource.Update{Commit: c}); err != nil {
			t.Fatal(err)
		}
		if s := e.Status(time.Now()); s.Revision != c.Revision || s.State != resource.Digest(c.State) {
			t.Errorf("%+v", s)
		}
	}
}

// TestWithoutCookies: a policy that asks for SYN cookies where the kernel makes none is told of, as long as it makes
// none.
func TestWithoutCookies(t *testing.T) {
	runtime.LockOSThread() // and never unlocked: the thread's network namespace goes with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	e := newEnforcer(t.TempDir())
	if err := e.Update(resource.Update{Commit: resource.Commit{Epoch: "e", Revision: 7}, Changed: []*resource.Object{
		object(t, "floods", &configv1.RateLimitPolicy{SynCookies: true}),
		object(t, "plain", &configv1.RateLimitPolicy{PacketsPerSecond: 5}),
	}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		value string
		want  int
	}{{"1", 0}, {"0", 1}, {"2", 0}} {
		if err := os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte(c.value), 0o600); err != nil {
			t.Fatal(err)
		}
		got := e.Status(time.Now()).Warnings
		if len(got) != c.want || (c.want > 0 && !strings.Contains(got[0], `"floods"`)) {
			t.Errorf("tcp_syncookies=%s: warnings %q", c.value, got)
		}
	}
}
