package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

// bare is a command that runs another in a mount namespace where nothing is mounted at /sys/fs/bpf and /run is
// empty, after a shell's words of preparation.
func bare(preparation string) []string {
	return []string{"unshare", "--mount", "--propagation", "private", "sh", "-ec", `
		while mountpoint -q /sys/fs/bpf; do umount -l /sys/fs/bpf; done
		mount -t tmpfs none /run
		` + preparation + `
		exec "$@"`, "sh"}
}

// TestBPFFileSystem: the agent brings the file system that it needs, says where, and where it cannot, who must.
func TestBPFFileSystem(t *testing.T) {
	s := start(t, "--no-demo")
	nats, err := s.NATS()
	if err != nil {
		t.Fatal(err)
	}
	call(t, s, "PUT", s.API+"/v1/rate-limit-policies/p", `{"spec":{"packets_per_second":1000000}}`, 201)
	own := "/run/marchproxy/bpffs"
	for _, c := range []struct {
		name, preparation string
		command, env      []string
		guards            bool
		says              []string // in the log
		warns             string   // in the status, beside that of a mount namespace of its own
	}{
		{
			name: "nothing is mounted", guards: true,
			says:  []string{`mounted a BPF file system, which was not there","at":"/sys/fs/bpf"`},
			warns: "is pinned in /sys/fs/bpf/marchproxy, on a file system of this container's own",
		},
		{
			name: "nothing is mounted, and a directory is asked for", env: []string{"XDP_PIN_DIR=/sys/fs/bpf/mine"},
			guards: true,
			says:   []string{`"at":"/sys/fs/bpf"`}, warns: "is pinned in /sys/fs/bpf/mine,",
		},
		{name: "one is mounted", preparation: "mount -t bpf bpf /sys/fs/bpf", guards: true},
		{
			name: "another file system is there", preparation: "mount -t tmpfs none /sys/fs/bpf", guards: true,
			says: []string{`"at":"` + own + `"`},
			warns: "is pinned in " + own + "/marchproxy, not in /sys/fs/bpf/marchproxy: not a BPF file system: " +
				"/sys/fs/bpf is a tmpfs",
		},
		{
			name: "another file system is there, and an earlier agent has found its place", guards: true,
			preparation: "mount -t tmpfs none /sys/fs/bpf; mkdir -p " + own + "; mount -t bpf bpf " + own + "; mkdir " + own +
				"/marchproxy; umount /sys/fs/bpf",
			warns: "is pinned in " + own + "/marchproxy, where an earlier agent put it",
		},
		{
			name: "it cannot be written", preparation: "mount -t bpf -o ro bpf /sys/fs/bpf", guards: true,
			says: []string{`"at":"` + own + `"`}, warns: "the BPF file system cannot be written",
		},
		{
			name: "another file system is there, and it is asked for", preparation: "mount -t tmpfs none /sys/fs/bpf",
			env:  []string{"XDP_PIN_DIR=/sys/fs/bpf/mine"},
			says: []string{"pin /sys/fs/bpf/mine: not a BPF file system: /sys/fs/bpf is a tmpfs", "leave XDP_PIN_DIR unset"},
		},
		{
			name: "nothing is mounted, and it may not", command: []string{"setpriv", "--bounding-set=-sys_admin"},
			says: []string{
				"pin /sys/fs/bpf/marchproxy: not a BPF file system: nothing is mounted at /sys/fs/bpf",
				"root must run: mount -t bpf bpf /sys/fs/bpf;",
			},
		},
		{
			name: "another is there, and it may not", preparation: "mount -t tmpfs none /sys/fs/bpf",
			command: []string{"setpriv", "--bounding-set=-sys_admin"},
			says: []string{"/sys/fs/bpf is a tmpfs, and " + own + " cannot have one", "root must run: mount -t bpf bpf " +
				own + ";"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := harness.NewWire()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = w.Close() }) // the namespace is this test's own
			a, err := harness.StartAgent(append([]string{
				"NATS_URL=" + nats, "XDP_INTERFACE=" + w.Interface, "MARCHPROXY_STATE_DIR=" + t.TempDir(),
				"AGENT_ID=" + w.Namespace,
			}, c.env...), append(bare(c.preparation), c.command...)...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = a.Stop(syscall.SIGKILL) }) // it would go on
			words := c.says
			if c.guards {
				words = append(words, "the interface is guarded")
			}
			for _, w := range words {
				if err := a.Says(within(t), w); err != nil {
					t.Fatal(err)
				}
			}
			for line := range strings.Lines(a.Log()) { // one sentence each
				if strings.Contains(line, `\n`) {
					t.Errorf("two lines of an error: %s", line)
				}
			}
			var state struct {
				Limits struct {
					Mode     string
					Warnings []string
				}
			}
			if _, err := a.Get(t.Context(), "/v1/state", &state); err != nil {
				t.Fatal(err)
			}
			l := state.Limits
			if guards := l.Mode == "native"; guards != c.guards {
				t.Errorf("mode %q", l.Mode)
			}
			if got := strings.Join(l.Warnings, "\n"); (c.warns == "") != (got == "") || !strings.Contains(got, c.warns) {
				t.Errorf("warnings %q, want %q\n%s", got, c.warns, a.Log())
			}
		})
	}
}
