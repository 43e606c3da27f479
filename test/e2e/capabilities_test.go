package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
)

// capabilities is a set of them as /proc shows it.
func capabilities(of ...int) string {
	var set uint64
	for _, c := range of {
		set |= 1 << c
	}
	return fmt.Sprintf("%016x", set)
}

// wanted is what /proc/PID/status has to say; what it does not name may be anything.
type wanted map[string]string

// check looks at every thread of a process.
func (w wanted) check(t *testing.T, who string, pid int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("%s has no threads: %v", who, err)
	}
	for _, path := range threads {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that has ended meanwhile
		}
		got := map[string]string{}
		for line := range strings.Lines(string(raw)) {
			name, value, _ := strings.Cut(line, ":")
			got[name] = strings.TrimSpace(value)
		}
		for name, value := range w {
			if got[name] != value {
				t.Errorf("%s: %s of %s is %s, want %s", who, name, path, got[name], value)
			}
		}
	}
}

// wantedOf is what a process with these capabilities shows, which passes one on at most.
func wantedOf(permitted ...int) wanted {
	passed := capabilities(unix.CAP_NET_BIND_SERVICE)
	set := capabilities(permitted...)
	return wanted{"CapPrm": set, "CapEff": set, "CapInh": passed, "CapAmb": passed, "NoNewPrivs": "1"}
}

// reservedPort is one below 1024 that is free.
func reservedPort(t *testing.T) int {
	t.Helper()
	for port := 1000; port > 600; port-- {
		if l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			_ = l.Close() // Envoy takes it
			return port
		}
	}
	t.Fatal("no port below 1024 is free")
	return 0
}

// stranger is a user of no rights, whose programs get capabilities by their file alone: a copy of the agent, and
// an Envoy that it can reach.
type stranger struct {
	home, agent, envoy string
}

const strangersID = 65534

func newStranger(t *testing.T, envoy string, given ...int) stranger {
	t.Helper()
	home, err := os.MkdirTemp("/var/tmp", "marchproxy-stranger-") // every user enters it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) }) // nobody asks for it again
	s := stranger{home, filepath.Join(home, "marchproxy-agent"), filepath.Join(home, "envoy")}
	for from, to := range map[string]string{harness.ProgramForTest(t, "marchproxy-agent"): s.agent, envoy: s.envoy} {
		if out, err := exec.CommandContext(t.Context(), "install", "-m", "755", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := os.Chown(home, strangersID, strangersID); err != nil {
		t.Fatal(err)
	}
	// struct vfs_cap_data (linux/capability.h): VFS_CAP_REVISION_2, and effective.
	var file [20]byte
	binary.LittleEndian.PutUint32(file[:], 0x02000000|1)
	for _, c := range given {
		word := file[4+8*(c/32):]
		binary.LittleEndian.PutUint32(word, binary.LittleEndian.Uint32(word)|1<<(c%32))
	}
	if err := unix.Setxattr(s.agent, "security.capability", file[:], 0); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCapabilitiesAreGivenUp: from when the interface is guarded on, the agent has what larger maps and low ports take,
// and its Envoy the latter alone, whoever they run as; and with that all goes on: rules, an interface that was made
// anew, Envoy's restarts and an upgrade.
func TestCapabilitiesAreGivenUp(t *testing.T) {
	const bpf, low = unix.CAP_BPF, unix.CAP_NET_BIND_SERVICE
	envoy, err := harness.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, "--no-demo")
	for i, c := range []struct {
		name  string
		as    []string // to start with
		owner int
		agent wanted
		bound bool // whether it may shrink the bounding set
	}{
		{name: "root", agent: wantedOf(bpf, low), bound: true},
		{
			name:  "root of a container with few capabilities",
			as:    []string{"setpriv", "--bounding-set=-all,+bpf,+net_admin,+perfmon,+net_bind_service"},
			agent: wantedOf(bpf, low),
		},
		{
			name:  "root of a container whose engine does not know CAP_BPF",
			as:    []string{"setpriv", "--bounding-set=-all,+sys_admin,+net_bind_service"},
			agent: wantedOf(unix.CAP_SYS_ADMIN, low),
		},
		{
			name: "a user, by the program's file", owner: strangersID,
			as:    []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"},
			agent: wantedOf(bpf, low),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newWire(t, s)
			key, err := g.ClusterKey()
			if err != nil {
				t.Fatal(err)
			}
			dir, envoy, wrap := t.TempDir(), envoy, c.as
			if c.owner != 0 {
				s := newStranger(t, envoy, bpf, unix.CAP_NET_ADMIN, unix.CAP_PERFMON, low)
				dir, envoy, wrap = s.home, s.envoy, append(wrap, "sh", "-c", `exec "$0"`, s.agent)
				if err := os.Chown(filepath.Dir(g.Pins), c.owner, c.owner); err != nil {
					t.Fatal(err)
				}
			}
			port, gateway := reservedPort(t), fmt.Sprint("edge", i)
			admin, err := porttest.Take(1)
			if err != nil {
				t.Fatal(err)
			}
			call(t, g.System, "PUT", g.API+"/v1/gateways/"+gateway, map[string]any{"spec": map[string]any{
				"listeners": []any{map[string]any{"name": "http", "port": port, "address": "127.0.0.1"}},
				"api_keys":  keys(t, g.System),
			}}, 201)
			g.begin(t, []string{
				"MARCHPROXY_STATE_DIR=" + filepath.Join(dir, "state"), "XDS_SERVER=" + g.GRPC, "CLUSTER_API_KEY=" + key,
				"GATEWAY=" + gateway, "ENVOY_PATH=" + envoy, "ENVOY_CONCURRENCY=1",
				"ENVOY_ADMIN_ADDR=127.0.0.1:" + strconv.Itoa(admin[0]), "MARCHPROXY_RUN_DIR=" + filepath.Join(dir, "run"),
				"LOGLEVEL=info",
			}, wrap...)
			limited := func() (envoy int) {
				t.Helper()
				var s struct {
					Envoy  struct{ Pid int }
					Limits struct{ Mode string }
				}
				if err := g.Ready(within(t)); err != nil {
					t.Fatal(err)
				}
				eventually(t, func() string {
					if _, err := g.Get(t.Context(), "/v1/state", &s); err != nil || s.Envoy.Pid == 0 || s.Limits.Mode != "native" {
						return fmt.Sprintf("%+v %v\n%s", s, err, g.Log())
					}
					return ""
				})
				agent, child := c.agent, wantedOf(low)
				if c.bound {
					agent["CapBnd"], child["CapBnd"] = capabilities(low), capabilities(low)
				}
				agent.check(t, "the agent", g.Cmd.Process.Pid)
				child.check(t, "Envoy", s.Envoy.Pid)
				for range 2 { // each generation's maps
					g.put(t, "deny", `{"deny":["`+g.Clients[0].String()+`"]}`, 201)
					if n := g.send(t, 0, 10); n != 0 {
						t.Errorf("%d packets of a denied source got through", n)
					}
					call(t, g.System, "DELETE", g.policies+"deny?wait=live", nil, 200)
					if n := g.send(t, 0, 10); n != 10 {
						t.Errorf("%d of 10 packets got through after the deny list was gone", n)
					}
				}
				g.doctor(t)
				return s.Envoy.Pid
			}
			limited()

			many := make([]string, 3000) // too many for the maps that are there
			for i := range many {
				many[i] = fmt.Sprintf("%q", netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}))
			}
			g.put(t, "many", `{"deny":[`+strings.Join(many, ",")+`]}`, 201)
			limited()

			// An upgrade: another program, whose maps have another size.
			if err := g.Agent.Stop(syscall.SIGTERM); err != nil {
				t.Fatalf("the agent ended with %v\n%s", err, g.Log())
			}
			g.Agent.Setenv("XDP_SOURCES=65536")
			if err := g.Agent.Start(); err != nil {
				t.Fatal(err)
			}
			pid := limited()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() string {
				var s struct{ Envoy struct{ Pid int } }
				if _, err := g.Get(t.Context(), "/v1/state", &s); err != nil || s.Envoy.Pid == 0 || s.Envoy.Pid == pid {
					return fmt.Sprintf("Envoy is not started again: %+v %v", s, err)
				}
				return ""
			})
			limited()

			if err := g.Again(); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() string {
				out, err := exec.CommandContext(t.Context(), "ip", "link", "show", g.Interface).CombinedOutput()
				if err != nil || !strings.Contains(string(out), "xdp") {
					return fmt.Sprintf("the interface that was made anew is not guarded: %v %s\n%s", err, out, g.Log())
				}
				return ""
			})
			pid = limited()
			call(t, s, "DELETE", g.policies+"many?wait=live", nil, 200)

			// Killed, the agent takes its Envoy along.
			_ = g.Agent.Stop(syscall.SIGKILL) // that is how it ends
			gone(t, "Envoy, without its agent,", pid)
		})
	}
}

// TestMissingCapabilities: an agent that must guard says at once what it lacks.
func TestMissingCapabilities(t *testing.T) {
	s := start(t, "--no-demo")
	nats, err := s.NATS()
	if err != nil {
		t.Fatal(err)
	}
	w, err := harness.NewWire()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() }) // the namespace is this test's own
	for set, says := range map[string]string{
		"-net_admin,-sys_admin":    "this process lacks CAP_NET_ADMIN:",
		"-bpf,-perfmon,-sys_admin": "this process lacks CAP_BPF and CAP_PERFMON:",
	} {
		a, err := harness.StartAgent([]string{
			"NATS_URL=" + nats, "XDP_INTERFACE=" + w.Interface, "XDP_PIN_DIR=" + w.Pins, "MARCHPROXY_STATE_DIR=" + t.TempDir(),
			"AGENT_ID=" + w.Namespace, "XDP_REQUIRED=true",
		}, "setpriv", "--bounding-set="+set)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Stop(syscall.SIGKILL) }) // it has ended
		if err := a.Says(within(t), says); err != nil {
			t.Error(err)
		}
	}
}
