package nomad

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marchproxy/marchproxy/test/harness"
)

// node is a client: a network of its own, with an address that the others reach.
type node struct {
	name, namespace, address, bpf string
}

// cluster is some clients on one bridge, and what runs on them.
type cluster struct {
	t      *testing.T
	bridge string
	// host is this machine's address on the bridge.
	host  string
	nodes []*node
	vault vault
	bin   string
	envoy string
	wasm  string
	// pace is what the jobs' times are multiplied with.
	pace float64

	mu     sync.Mutex
	allocs []*alloc
}

// alloc is a task that runs on a node.
type alloc struct {
	job   job
	node  *node
	dir   string
	cmd   *exec.Cmd
	ended chan struct{}
	err   error
	log   *said

	mu sync.Mutex
	// offered is whether its services are registered, and passing whether its checks pass.
	offered, passing bool
}

type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func ip(t testing.TB, command string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", command, err, out)
	}
}

// forward has packets between the nodes of a bridge pass: where a Docker engine runs, or has run, all that it does not know
// is dropped, what crosses other bridges, too.
func forward(t *testing.T, bridge string) {
	t.Helper()
	if _, err := exec.LookPath("iptables"); err != nil {
		return // and nobody has such rules
	}
	rule := []string{"FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT"}
	if out, err := exec.Command("iptables", append([]string{"-w", "-I"}, rule...)...).CombinedOutput(); err != nil {
		t.Fatalf("iptables: %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("iptables", append([]string{"-w", "-D"}, rule...)...).Run() })
}

// newCluster makes nodes. It needs root.
func newCluster(t *testing.T, n int) *cluster {
	t.Helper()
	id := os.Getpid() % 10000
	c := &cluster{t: t, bridge: fmt.Sprint("mpb", id), bin: filepath.Dir(harness.ProgramForTest(t, "marchproxy"))}
	// Of the block for benchmarks (RFC 2544), the half that harness.NewWire does not use.
	block := fmt.Sprintf("198.19.%d.", id%250)
	c.host = block + "1"
	ip(t, "link add "+c.bridge+" type bridge")
	t.Cleanup(func() { ip(t, "link del "+c.bridge) })
	ip(t, "addr add "+c.host+"/24 dev "+c.bridge)
	ip(t, "link set "+c.bridge+" up")
	forward(t, c.bridge)
	for i := range n {
		x := &node{
			name: fmt.Sprint("client-", i+1), namespace: fmt.Sprintf("mp-nomad-%d-%d", id, i), address: block + strconv.Itoa(10+i),
			bpf: t.TempDir(),
		}
		veth, far := fmt.Sprintf("mpv%d-%d", id, i), fmt.Sprintf("mpw%d-%d", id, i)
		ip(t, "netns add "+x.namespace)
		t.Cleanup(func() { ip(t, "netns del "+x.namespace) })
		ip(t, "link add "+veth+" type veth peer name "+far+" netns "+x.namespace)
		ip(t, "link set "+veth+" master "+c.bridge+" up")
		ip(t, "-n "+x.namespace+" link set lo up")
		ip(t, "-n "+x.namespace+" link set "+far+" name eth0")
		ip(t, "-n "+x.namespace+" addr add "+x.address+"/24 dev eth0")
		ip(t, "-n "+x.namespace+" link set eth0 up")
		if err := unix.Mount("bpf", x.bpf, "bpf", 0, ""); err != nil {
			t.Fatal("mount a BPF file system: ", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(x.bpf, unix.MNT_DETACH) }) // the directory is the test's
		c.nodes = append(c.nodes, x)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, a := range c.allocs {
				t.Logf("%s on %s:\n%s", a.job.ID, a.node.name, a.log)
			}
		}
		c.close()
	})
	return c
}

// close ends whatever runs, the proxies first.
func (c *cluster) close() {
	for _, a := range slices.Backward(slices.Clone(c.allocs)) {
		c.stop(a)
	}
}

// start runs a job's task on a node: its files are rendered, its environment filled in, and the process confined as
// the job says. Nothing is inherited from this process.
func (c *cluster) start(j job, n *node) *alloc {
	c.t.Helper()
	g, x := j.TaskGroups[0], j.TaskGroups[0].Tasks[0]
	a := &alloc{job: j, node: n, dir: c.t.TempDir(), log: &said{}, ended: make(chan struct{})}
	uid := 65532
	image, _, _ := strings.Cut(filepath.Base(x.Config.Image), ":")
	if image == "proxy-l7" {
		uid = 0
	}
	// As Nomad has them: the allocation's directory is everybody's, the secrets are the task's.
	for dir, mode := range map[string]os.FileMode{"alloc": 0o777, "alloc/data": 0o777, "secrets": 0o755, "local": 0o777} {
		path := filepath.Join(a.dir, dir)
		if err := os.MkdirAll(path, mode); err != nil {
			c.t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			c.t.Fatal(err)
		}
	}
	known := map[string]string{
		"NOMAD_SECRETS_DIR": "/secrets", "NOMAD_ALLOC_DIR": "/alloc", "NOMAD_TASK_DIR": "/local", "node.unique.name": n.name,
	}
	for _, x := range g.Networks {
		for _, p := range append(slices.Clone(x.DynamicPorts), x.ReservedPorts...) {
			known["NOMAD_IP_"+p.Label], known["NOMAD_PORT_"+p.Label] = n.address, strconv.Itoa(p.Value)
		}
	}
	for _, f := range x.Templates {
		text, err := c.vault.render(f.EmbeddedTmpl, j.ID, known)
		if err != nil {
			c.t.Fatalf("%s: %s: %v", j.ID, f.DestPath, err)
		}
		mode, err := strconv.ParseUint(f.Perms, 8, 32)
		if err != nil {
			c.t.Fatal(err)
		}
		path := filepath.Join(a.dir, f.DestPath)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			c.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), os.FileMode(mode)); err != nil {
			c.t.Fatal(err)
		}
		if err := os.Chown(path, f.Uid, f.Gid); err != nil {
			c.t.Fatal(err)
		}
	}
	b := box{
		Namespace: n.namespace, Root: c.t.TempDir(), UID: uid, Capabilities: numbers(c.t, x.Config.CapAdd),
		Command: append(c.command(image), x.Config.Args...), Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin"},
	}
	for k, v := range x.Env {
		b.Env = append(b.Env, k+"="+os.Expand(v, func(name string) string {
			out, is := known[name]
			if !is {
				c.t.Errorf("%s: nobody fills in ${%s}", j.ID, name)
			}
			return out
		}))
	}
	etc := filepath.Join(a.dir, "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		c.t.Fatal(err)
	}
	for name, text := range map[string]string{
		"hosts": c.names(), "resolv.conf": "", "nsswitch.conf": "hosts: files\n",
	} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			c.t.Fatal(err)
		}
	}
	b.Binds = []bind{
		{filepath.Join(a.dir, "alloc"), "/alloc", false},
		{filepath.Join(a.dir, "secrets"), "/secrets", false},
		{filepath.Join(a.dir, "local"), "/local", false},
		{etc, "/etc", true},
	}
	base := []string{"/lib", "/lib64"} // make build links with the machine's libraries, unlike the images
	if image == "proxy-l7" {           // what Debian's image has, and Envoy takes of it
		base = append([]string{"/usr", "/bin"}, base...)
		b.Binds = append(b.Binds, bind{c.wasm, "/var/lib/envoy/wasm", true})
	}
	for _, dir := range base {
		if _, err := os.Stat(dir); err == nil {
			b.Binds = append(b.Binds, bind{dir, dir, true})
		}
	}
	b.Binds = append(b.Binds, bind{c.bin, "/usr/local/bin", true})
	for _, m := range x.Config.Mount {
		switch m.Type {
		case "tmpfs":
			b.Tmpfs = append(b.Tmpfs, m)
		case "bind":
			if m.Source != "/sys/fs/bpf" || m.Target != m.Source {
				c.t.Errorf("%s: a mount of %s that nobody makes here", j.ID, m.Source)
			}
			b.BPF = n.bpf
		default:
			c.t.Errorf("%s: a mount of the type %s", j.ID, m.Type)
		}
	}
	raw, err := json.Marshal(b)
	spec := filepath.Join(a.dir, "box.json")
	if err == nil {
		err = os.WriteFile(spec, raw, 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	own, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	a.cmd = exec.Command(own, word, spec)
	a.cmd.Env, a.cmd.Stdout, a.cmd.Stderr = []string{}, a.log, a.log
	if err := a.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() { a.err = a.cmd.Wait(); close(a.ended) }()
	c.mu.Lock()
	c.allocs = append(c.allocs, a)
	c.mu.Unlock()
	a.mu.Lock()
	a.offered = true
	a.mu.Unlock()
	go c.check(a)
	return a
}

// command is the image's entry point, with its usual arguments where the job has none.
func (c *cluster) command(image string) []string {
	switch image {
	case "api-server": // the image's CMD with-xds is the same where no port of xDS is set
		return []string{"/usr/local/bin/marchproxy-api"}
	case "xds-server":
		return []string{"/usr/local/bin/marchproxy-xds"}
	case "proxy-l7":
		return []string{"/usr/local/bin/marchproxy-agent"}
	default:
		c.t.Fatalf("no such image: %s", image)
		return nil
	}
}

// names are what the network's DNS has: xds.internal is where there are xDS servers now. Each task has them as its
// /etc/hosts, which is looked at for each question.
func (c *cluster) names() string {
	out := "127.0.0.1 localhost\n" + c.host + " db.internal nats.internal\n"
	for _, address := range c.offered("marchproxy-xds") {
		out += address + " xds.internal\n"
	}
	return out
}

// times is a time of a job, as this test keeps it.
func (c *cluster) times(d time.Duration) time.Duration { return time.Duration(float64(d) * c.pace) }

// check runs a task's checks until it ends, at the node's address, as a client of Nomad does.
func (c *cluster) check(a *alloc) {
	client := &http.Client{Timeout: 2 * time.Second}
	ports := map[string]int{}
	for _, x := range a.job.TaskGroups[0].Networks {
		for _, p := range append(slices.Clone(x.DynamicPorts), x.ReservedPorts...) {
			ports[p.Label] = p.Value
		}
	}
	for {
		passing := true
		for _, s := range a.job.TaskGroups[0].Services {
			for _, k := range s.Checks {
				label := k.PortLabel
				if label == "" {
					label = s.PortLabel
				}
				addr := net.JoinHostPort(a.node.address, strconv.Itoa(ports[label]))
				if k.Type == "tcp" {
					conn, err := net.DialTimeout("tcp", addr, k.Timeout)
					if err == nil {
						_ = conn.Close() // it has answered
					}
					passing = passing && err == nil
					continue
				}
				resp, err := client.Get("http://" + addr + k.Path)
				if err == nil {
					_ = resp.Body.Close() // its status is all
				}
				passing = passing && err == nil && resp.StatusCode == http.StatusOK
			}
		}
		a.mu.Lock()
		a.passing = passing
		a.mu.Unlock()
		hosts := filepath.Join(a.dir, "etc", "hosts")
		if err := os.WriteFile(hosts+".new", []byte(c.names()), 0o644); err == nil {
			_ = os.Rename(hosts+".new", hosts) // the next look writes it again
		}
		select {
		case <-a.ended:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// healthy waits until a task's checks have passed for a while.
func (c *cluster) healthy(a *alloc) {
	c.t.Helper()
	enough := 100 * time.Millisecond
	if u := a.update(); u != nil {
		enough = c.times(u.MinHealthyTime)
	}
	var since time.Time
	for limit := time.Now().Add(3 * time.Minute); time.Now().Before(limit); {
		a.mu.Lock()
		passing := a.passing
		a.mu.Unlock()
		switch {
		case !passing:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= enough:
			return
		}
		select {
		case <-a.ended:
			c.t.Fatalf("%s on %s has ended: %v\n%s", a.job.ID, a.node.name, a.err, a.log)
		case <-time.After(50 * time.Millisecond):
		}
	}
	c.t.Fatalf("%s on %s does not get healthy\n%s", a.job.ID, a.node.name, a.log)
}

func (a *alloc) update() *update {
	if u := a.job.TaskGroups[0].Update; u != nil {
		return u
	}
	return a.job.Update
}

// stop ends a task as Nomad does: its services go, shutdown_delay passes, SIGTERM, and SIGKILL after kill_timeout.
func (c *cluster) stop(a *alloc) {
	c.t.Helper()
	a.mu.Lock()
	a.offered = false
	a.mu.Unlock()
	if !c.t.Failed() {
		time.Sleep(c.times(a.job.TaskGroups[0].ShutdownDelay)) // this is what the delay is
	}
	_ = a.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	limit := a.job.TaskGroups[0].Tasks[0].KillTimeout
	select {
	case <-a.ended:
	case <-time.After(limit):
		c.t.Errorf("%s on %s does not end within %v\n%s", a.job.ID, a.node.name, limit, a.log)
		_ = a.cmd.Process.Kill() // as Nomad does
		<-a.ended
	}
	if a.err != nil && !c.t.Failed() {
		c.t.Errorf("%s on %s ended with %v\n%s", a.job.ID, a.node.name, a.err, a.log)
	}
	c.mu.Lock()
	c.allocs = slices.DeleteFunc(c.allocs, func(x *alloc) bool { return x == a })
	c.mu.Unlock()
}

// of are the tasks of a job that run.
func (c *cluster) of(id string) (out []*alloc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.allocs {
		if a.job.ID == id {
			out = append(out, a)
		}
	}
	return out
}

// offered are the addresses of a job's tasks that are registered and pass their checks.
func (c *cluster) offered(id string) (out []string) {
	for _, a := range c.of(id) {
		a.mu.Lock()
		if a.offered && a.passing {
			out = append(out, a.node.address)
		}
		a.mu.Unlock()
	}
	return out
}

// free is a node that has no task of a job: distinct_hosts.
func (c *cluster) free(id string) *node {
	c.t.Helper()
	taken := map[*node]bool{}
	for _, a := range c.of(id) {
		taken[a.node] = true
	}
	for _, n := range c.nodes {
		if !taken[n] {
			return n
		}
	}
	c.t.Fatalf("no client is left for %s", id)
	return nil
}

// run brings a job to as many tasks as it asks for, or a system job to each of some nodes.
func (c *cluster) run(j job, nodes ...*node) {
	c.t.Helper()
	if j.Type == "system" {
		for _, n := range nodes {
			c.healthy(c.start(j, n))
		}
		return
	}
	for range j.TaskGroups[0].Count {
		c.healthy(c.start(j, c.free(j.ID)))
	}
}

// batch runs a task to its end.
func (c *cluster) batch(ctx context.Context, j job) {
	c.t.Helper()
	a := c.start(j, c.nodes[0])
	select {
	case <-a.ended:
	case <-ctx.Done():
	}
	if a.err != nil {
		c.t.Fatalf("%s: %v\n%s", j.ID, a.err, a.log)
	}
	c.mu.Lock()
	c.allocs = slices.DeleteFunc(c.allocs, func(x *alloc) bool { return x == a })
	c.mu.Unlock()
}

// replace brings a job to a new version, in the order that its update block asks for.
func (c *cluster) replace(j job) {
	c.t.Helper()
	old := c.of(j.ID)
	if j.Type == "system" { // a client after another, because max_parallel is 1
		for _, a := range old {
			c.stop(a)
			c.healthy(c.start(j, a.node))
		}
		return
	}
	u := (&alloc{job: j}).update()
	left := j.TaskGroups[0].Count
	for range u.Canary { // beside the old ones, and promoted when it is healthy
		c.healthy(c.start(j, c.free(j.ID)))
		left--
	}
	for i, a := range old {
		c.stop(a)
		if i < left {
			c.healthy(c.start(j, c.free(j.ID)))
		}
	}
}
