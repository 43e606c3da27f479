package nomad

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

// job is what is looked at of a job, as Nomad's API has it.
type job struct {
	ID, Type    string
	Constraints []struct{ LTarget, RTarget, Operand string }
	Update      *update
	TaskGroups  []group
}

type update struct {
	MaxParallel, Canary             int
	MinHealthyTime, HealthyDeadline time.Duration
	HealthCheck                     string
	AutoRevert, AutoPromote         bool
}

type group struct {
	Name          string
	Count         int
	ShutdownDelay time.Duration
	Update        *update
	Networks      []struct {
		Mode                        string
		DynamicPorts, ReservedPorts []struct {
			Label     string
			Value, To int
		}
	}
	Services []service
	Tasks    []task
}

type service struct {
	Name, PortLabel, Provider string
	Checks                    []struct {
		Type, Path, PortLabel string
		Interval, Timeout     time.Duration
	}
}

type task struct {
	Name        string
	Config      config
	Env         map[string]string
	KillTimeout time.Duration
	Templates   []struct {
		DestPath, EmbeddedTmpl, Perms, ChangeMode string
		Uid, Gid                                  int
	}
}

type config struct {
	Image       string          `json:"image"`
	Args        []string        `json:"args"`
	NetworkMode string          `json:"network_mode"`
	ReadOnly    bool            `json:"readonly_rootfs"`
	Privileged  bool            `json:"privileged"`
	CapAdd      []string        `json:"cap_add"`
	CapDrop     []string        `json:"cap_drop"`
	SecurityOpt []string        `json:"security_opt"`
	PidsLimit   int             `json:"pids_limit"`
	Mount       []mount         `json:"mount"`
	Volumes     json.RawMessage `json:"volumes"`
}

type mount struct {
	Type    string `json:"type"`
	Source  string `json:"source"`
	Target  string `json:"target"`
	Options []struct {
		Size int64  `json:"size"`
		Mode uint32 `json:"mode"`
	} `json:"tmpfs_options"`
}

// repository is found once: a test may go to another directory.
var repository = sync.OnceValues(harness.Root)

func root(t testing.TB) string {
	t.Helper()
	dir, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// reader builds tools/nomadjob, once.
var reader = sync.OnceValues(func() (string, error) {
	dir, err := repository()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, ".cache", "bin", "nomadjob")
	cmd := exec.Command("go", "build", "-o", bin, ".")
	cmd.Dir = filepath.Join(dir, "tools", "nomadjob")
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build nomadjob: %w\n%s", err, out)
	}
	return bin, nil
})

// read decodes a file as strictly as Nomad does, with values of its variables.
func read(t testing.TB, path string, vars ...string) (job, error) {
	t.Helper()
	bin, err := reader()
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, v := range vars {
		args = append(args, "-var", v)
	}
	cmd := exec.CommandContext(t.Context(), bin, append(args, path)...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return job{}, fmt.Errorf("%w\n%s", err, complaint.String())
	}
	var j job
	if err := json.Unmarshal(out.Bytes(), &j); err != nil {
		t.Fatal(err)
	}
	return j, nil
}

// values of the variables that have no default.
var values = map[string][]string{
	"migrate": {"database=db.internal:5432"},
	"api":     {"database=db.internal:5432", "nats_url=tls://nats.internal:4222"},
	"xds":     {"nats_url=tls://nats.internal:4222"},
	"proxy":   {"nats_url=tls://nats.internal:4222", "xds_server=xds.internal:18000"},
}

func file(t testing.TB, name string) string {
	return filepath.Join(root(t), "deployments", "nomad", name+".nomad.hcl")
}

func load(t testing.TB, name string, more ...string) job {
	t.Helper()
	j, err := read(t, file(t, name), append(slices.Clone(values[name]), more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TestConfined: a task gets what it needs and nothing else, as in docker compose.
func TestConfined(t *testing.T) {
	for name := range values {
		j := load(t, name)
		for _, x := range j.TaskGroups[0].Tasks {
			c := x.Config
			if !c.ReadOnly || c.Privileged || !slices.Equal(c.CapDrop, []string{"all"}) || c.PidsLimit == 0 ||
				!slices.Equal(c.SecurityOpt, []string{"no-new-privileges"}) || c.Volumes != nil {
				t.Errorf("%s: %+v", name, c)
			}
			var want []string
			if name == "proxy" {
				want = []string{"bpf", "net_admin", "net_bind_service", "perfmon"}
			}
			if !slices.Equal(c.CapAdd, want) {
				t.Errorf("%s is given %v, want %v", name, c.CapAdd, want)
			}
			for _, f := range x.Templates {
				if f.Perms != "0400" || !strings.HasPrefix(f.DestPath, "secrets/") {
					t.Errorf("%s: %s has mode %s", name, f.DestPath, f.Perms)
				}
			}
			for k, v := range x.Env {
				if strings.HasSuffix(k, "KEY") && !strings.HasPrefix(v, "${NOMAD_SECRETS_DIR}/") {
					t.Errorf("%s: a secret in the environment: %s", name, k)
				}
			}
		}
	}
}

// TestExamples: those of NATS and PostgreSQL are read as strictly, and their images are those of docker compose.
func TestExamples(t *testing.T) {
	compose, err := os.ReadFile(filepath.Join(root(t), "deployments", "compose", "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"nats", "postgres"} {
		j, err := read(t, filepath.Join(root(t), "deployments", "nomad", "examples", name+".nomad.hcl"))
		if err != nil {
			t.Error(err)
			continue
		}
		c := j.TaskGroups[0].Tasks[0].Config
		if !strings.Contains(string(compose), c.Image) {
			t.Errorf("%s has another image than docker compose: %s", name, c.Image)
		}
		if !c.ReadOnly || c.Privileged || !slices.Equal(c.CapDrop, []string{"all"}) || c.CapAdd != nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// TestReplaced: how each job is replaced is what docs/deploy-nomad.md promises.
func TestReplaced(t *testing.T) {
	for _, name := range []string{"api", "xds", "proxy"} {
		j := load(t, name)
		u, g := j.Update, j.TaskGroups[0]
		if g.Update != nil {
			u = g.Update
		}
		if u == nil || u.MaxParallel != 1 || !u.AutoRevert || u.HealthCheck != "checks" || u.MinHealthyTime < 10*time.Second {
			t.Errorf("%s: %+v", name, u)
		}
		if g.ShutdownDelay <= 0 || g.Tasks[0].KillTimeout < 15*time.Second {
			t.Errorf("%s: shutdown_delay %v, kill_timeout %v", name, g.ShutdownDelay, g.Tasks[0].KillTimeout)
		}
		if name != "proxy" && (u.Canary != 1 || !u.AutoPromote) {
			t.Errorf("%s has no canary: %+v", name, u)
		}
		for _, s := range g.Services {
			if s.Provider != "nomad" || len(s.Checks) == 0 {
				t.Errorf("%s: service %s: %+v", name, s.Name, s)
			}
			for _, c := range s.Checks { // Nomad's own services take no others
				if c.Type != "tcp" && c.Type != "http" {
					t.Errorf("%s: a check of the type %s", name, c.Type)
				}
			}
		}
	}
	if u := load(t, "api", "canary=0").TaskGroups[0].Update; u != nil && (u.Canary != 0 || u.AutoPromote) {
		t.Errorf("canary=0: %+v", u)
	}
}

// TestSettingsAreKnown: a setting that a job gives is one that docs/operations.md has.
func TestSettingsAreKnown(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(root(t), "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	for name := range values {
		for _, x := range load(t, name).TaskGroups[0].Tasks {
			for k := range x.Env {
				if !strings.Contains(string(raw), "`"+strings.TrimSuffix(k, "_FILE")+"`") {
					t.Errorf("%s sets %s, which docs/operations.md does not have", name, k)
				}
			}
		}
	}
}

// mistakes are each refused, with its place.
var mistakes = []struct{ file, old, new, says string }{
	{"api", "auto_revert ", "autorevert ", "autorevert"},
	{"api", "min_healthy_time ", "min_healthy_tim ", "min_healthy_tim"},
	{"api", `"10s"`, `"10 s"`, "not a duration"},
	{"api", "max_parallel      = 1", `max_parallel      = "one"`, "max_parallel"},
	{"api", "change_mode", "change_moda", "change_moda"},
	{"api", "readonly_rootfs", "read_only_rootfs", "read_only_rootfs"},
	{"api", "pids_limit      = 1024", `pids_limit      = "many"`, "pids_limit"},
	{"api", "var.nats_url", "var.nats", "nats"},
	{"api", "${NOMAD_SECRETS_DIR}/secret-key", "${NOMED_SECRETS_DIR}/secret-key", "NOMED_SECRETS_DIR"},
	{"api", `operator = "distinct_hosts"`, `operator = "distinct_host"`, "distinct_host"},
	{"api", "provider = ", "provder = ", "provder"},
	{"xds", "static = 18000", `static = "grpc"`, "static"},
	{"proxy", "tmpfs_options {", "tmpfs_option {", "tmpfs_option"},
	{"proxy", `target = "/tmp"`, `targat = "/tmp"`, "targat"},
	{"proxy", `cap_drop        = ["all"]`, `cap_drop        = "all"`, "cap_drop"},
	{"migrate", "args            =", "argv            =", "argv"},
}

// TestMistakesAreFound: what is misspelt in a job is found, so that the jobs as they are have nothing misspelt.
func TestMistakesAreFound(t *testing.T) {
	for _, m := range mistakes {
		raw, err := os.ReadFile(file(t, m.file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(raw), m.old) {
			t.Errorf("%s has no %q any more", m.file, m.old)
			continue
		}
		path := filepath.Join(t.TempDir(), m.file+".nomad.hcl")
		if err := os.WriteFile(path, []byte(strings.Replace(string(raw), m.old, m.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := read(t, path, values[m.file]...); err == nil || !strings.Contains(err.Error(), m.says) {
			t.Errorf("%s with %q: %v", m.file, m.new, err)
		}
	}
	if _, err := read(t, file(t, "api")); err == nil || !strings.Contains(err.Error(), "-var") {
		t.Errorf("without its variables: %v", err)
	}
}

// vault is what Nomad's variables have, by path.
type vault map[string]map[string]string

// render makes a file of a template as a client does. Go's templates are what Nomad's are made of; nomadVar and env are
// this test's own, and a function that it does not have is a mistake here.
func (v vault) render(text, jobID string, env map[string]string) (string, error) {
	t, err := template.New("").Option("missingkey=error").Funcs(template.FuncMap{
		"nomadVar": func(path string) (map[string]string, error) {
			if path != "nomad/jobs" && path != "nomad/jobs/"+jobID {
				return nil, fmt.Errorf("a task of %s may not read %s", jobID, path)
			}
			if v[path] == nil {
				return nil, fmt.Errorf("there is no variable %s", path)
			}
			return v[path], nil
		},
		"env": func(name string) string { return env[name] },
	}).Parse(text)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = t.Execute(&out, nil)
	return out.String(), err
}

// filled runs deployments/nomad/variables with a command `nomad` that notes what it is told to put.
func filled(t *testing.T, pki, secrets string) vault {
	t.Helper()
	dir := t.TempDir()
	const noting = "#!/bin/sh\nprintf '%s\\n' \"$@\" >\"$NOTES/$(basename \"$4\")\"\n"
	if err := os.WriteFile(filepath.Join(dir, "nomad"), []byte(noting), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(root(t), "deployments", "nomad", "variables"), pki, secrets)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "NOTES="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	v := vault{}
	form := regexp.MustCompile(`^([a-z_]+[A-Za-z0-9_.-]*)=@(.+)$`)
	for name := range values {
		raw, err := os.ReadFile(filepath.Join(dir, "marchproxy-"+name))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
		if !slices.Equal(lines[:4], []string{"var", "put", "-force", "nomad/jobs/marchproxy-" + name}) {
			t.Fatalf("nomad is called with %v", lines[:4])
		}
		items, size := map[string]string{}, 0
		for _, l := range lines[4:] {
			m := form.FindStringSubmatch(l)
			if m == nil {
				t.Fatalf("nomad would not understand %q", l)
			}
			raw, err := os.ReadFile(m[2])
			if err != nil {
				t.Fatal(err)
			}
			items[m[1]] = string(raw)
			size += len(m[1]) + len(raw)
		}
		if size > 64<<10 {
			t.Errorf("the variable of %s has %d bytes; Nomad takes 65,536", name, size)
		}
		v["nomad/jobs/marchproxy-"+name] = items
	}
	return v
}
