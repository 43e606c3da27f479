package compose

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/marchproxy/marchproxy/test/harness"
)

// setups are how the files are put together.
var setups = map[string][]string{
	"one machine": {"compose.yaml"},
	"ha":          {"compose.yaml", "compose.ha.yaml"},
}

// capabilities are all that any container is given, with the reason in the compose file.
var capabilities = map[string][]string{
	"init":    {"CHOWN", "DAC_OVERRIDE", "FOWNER"},
	"proxy":   {"BPF", "NET_ADMIN", "PERFMON"},
	"proxy-2": {"BPF", "NET_ADMIN", "PERFMON"},
}

// once are the services that do their work and end.
var once = []string{"init", "migrate", "cli", "demo-route"}

var (
	own    = regexp.MustCompile(`^marchproxy/(api-server|xds-server|proxy-l7|cli):`)
	digest = regexp.MustCompile(`@sha256:[0-9a-f]{64}$`)
)

func root(t *testing.T) string {
	t.Helper()
	dir, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// load reads the files as docker compose does, with nothing set.
func load(t *testing.T, files []string, profiles ...string) *types.Project {
	t.Helper()
	dir := filepath.Join(root(t), "deployments", "compose")
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = filepath.Join(dir, f)
	}
	o, err := cli.NewProjectOptions(paths, cli.WithWorkingDirectory(dir), cli.WithProfiles(profiles),
		cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.LoadProject(t.Context())
	if err != nil {
		t.Fatalf("docker compose would not take %v: %v", files, err)
	}
	return p
}

func each(t *testing.T, check func(t *testing.T, p *types.Project, s types.ServiceConfig)) {
	for name, files := range setups {
		t.Run(name, func(t *testing.T) {
			p := load(t, files, "*")
			if len(p.Services) < 11 {
				t.Fatalf("only %d services are there", len(p.Services))
			}
			for _, s := range p.Services {
				check(t, p, s)
			}
		})
	}
}

// TestConfined: a container gets what it needs and nothing else.
func TestConfined(t *testing.T) {
	each(t, func(t *testing.T, _ *types.Project, s types.ServiceConfig) {
		if !s.ReadOnly {
			t.Errorf("%s can write to its root", s.Name)
		}
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.CapAdd, capabilities[s.Name]) {
			t.Errorf("%s drops %v and adds %v, want ALL and %v", s.Name, s.CapDrop, s.CapAdd, capabilities[s.Name])
		}
		if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged || s.Pid != "" ||
			s.NetworkMode == "host" {
			t.Errorf("%s may get more than it was given: %v", s.Name, s.SecurityOpt)
		}
		for _, v := range s.Volumes {
			if strings.HasSuffix(v.Source, "docker.sock") {
				t.Errorf("%s has the engine's socket", s.Name)
			}
		}
	})
}

// TestLoopback: no port is open to other machines unless it is asked for.
func TestLoopback(t *testing.T) {
	type port struct{ setup, number string }
	seen := map[port]string{}
	each(t, func(t *testing.T, _ *types.Project, s types.ServiceConfig) {
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes %s on %q", s.Name, p.Published, p.HostIP)
			}
			at := port{t.Name(), p.Published}
			if other, taken := seen[at]; taken {
				t.Errorf("%s and %s both publish %s", other, s.Name, p.Published)
			}
			seen[at] = s.Name
		}
	})
	if len(seen) != 2*6-1 { // with two of everything nobody publishes an Envoy's admin interface
		t.Errorf("these are published: %v", seen)
	}
}

// TestImages: what is not built here is pinned by its digest, and what is built is a target of the Dockerfile.
func TestImages(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(root(t), "deployments", "docker", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	dockerfile := string(raw)
	each(t, func(t *testing.T, _ *types.Project, s types.ServiceConfig) {
		m := own.FindStringSubmatch(s.Image)
		switch {
		case m == nil && !digest.MatchString(s.Image):
			t.Errorf("%s has the image %s, which is not pinned", s.Name, s.Image)
		case m != nil && s.Build != nil && s.Build.Target != m[1]:
			t.Errorf("%s builds %s and calls it %s", s.Name, s.Build.Target, s.Image)
		case m != nil && !strings.Contains(dockerfile, " AS "+m[1]+"\n"):
			t.Errorf("the Dockerfile has no target %s", m[1])
		}
	})
	bases := regexp.MustCompile(`(?m)^ARG \w+_IMAGE=(.+)$`).FindAllStringSubmatch(dockerfile, -1)
	if len(bases) != 2 {
		t.Errorf("%d base images are named", len(bases))
	}
	for _, b := range bases {
		if !digest.MatchString(b[1]) {
			t.Errorf("the base image %s is not pinned", b[1])
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^FROM (?:--platform=\S+ )?(\S+)`).FindAllStringSubmatch(dockerfile, -1) {
		if !strings.HasPrefix(m[1], "${") && m[1] != "scratch" && !strings.Contains(dockerfile, " AS "+m[1]+"\n") {
			t.Errorf("FROM %s is neither a stage nor one of the pinned images", m[1])
		}
	}
}

// TestBuildsAll: each command that builds the images, where it is written, builds all of them. A profile's services are
// left out where it is not named, and an image that is not built anew is the one of the version before.
func TestBuildsAll(t *testing.T) {
	line := regexp.MustCompile(`docker compose((?: --profile \S+)*) build`)
	for _, doc := range []string{"docs/deploy-compose.md", "docs/operations.md", "docs/upgrade.md"} {
		raw, err := os.ReadFile(filepath.Join(root(t), doc))
		if err != nil {
			t.Fatal(err)
		}
		found := line.FindAllStringSubmatch(string(raw), -1)
		if doc == "docs/deploy-compose.md" && len(found) < 2 {
			t.Errorf("%s has %d commands that build", doc, len(found))
		}
		for _, m := range found {
			profiles := slices.DeleteFunc(strings.Fields(m[1]), func(s string) bool { return s == "--profile" })
			var targets []string
			for _, s := range load(t, setups["one machine"], profiles...).Services {
				if s.Build != nil {
					targets = append(targets, s.Build.Target)
				}
			}
			slices.Sort(targets)
			if want := []string{"api-server", "cli", "proxy-l7", "xds-server"}; !slices.Equal(targets, want) {
				t.Errorf("%s: %q builds %v, want %v", doc, m[0], targets, want)
			}
		}
	}
}

// TestHealth: what runs says how it is, by a program and not a shell, and what starts later waits for it.
func TestHealth(t *testing.T) {
	each(t, func(t *testing.T, _ *types.Project, s types.ServiceConfig) {
		if slices.Contains(once, s.Name) {
			if s.Restart != "" && s.Restart != "no" {
				t.Errorf("%s is started again when it has done its work", s.Name)
			}
			return
		}
		if s.HealthCheck == nil || len(s.HealthCheck.Test) < 2 || s.HealthCheck.Test[0] != "CMD" {
			t.Errorf("%s has no health check, or one that takes a shell", s.Name)
		}
		if s.Restart != "unless-stopped" {
			t.Errorf("%s is not started again where it ends", s.Name)
		}
		for on, d := range s.DependsOn {
			want := types.ServiceConditionHealthy
			if slices.Contains(once, on) {
				want = types.ServiceConditionCompletedSuccessfully
			}
			if d.Condition != want {
				t.Errorf("%s waits for %s to be %s, want %s", s.Name, on, d.Condition, want)
			}
		}
	})
	// The guide's order: the database, the api, the xDS server, the proxy.
	p := load(t, setups["one machine"], "*")
	for _, pair := range [][2]string{
		{"migrate", "postgres"},
		{"api", "migrate"},
		{"api", "nats"},
		{"xds", "api"},
		{"proxy", "xds"},
	} {
		if _, ok := p.Services[pair[0]].DependsOn[pair[1]]; !ok {
			t.Errorf("%s does not wait for %s", pair[0], pair[1])
		}
	}
}

// TestSettings: what a container is told is a setting of its program, and no secret stands in the environment.
func TestSettings(t *testing.T) {
	manual, err := os.ReadFile(filepath.Join(root(t), "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	section := func(title string) string {
		_, rest, ok := strings.Cut(string(manual), "\n### "+title)
		if !ok {
			t.Fatalf("docs/operations.md has no section %q", title)
		}
		text, _, _ := strings.Cut(rest, "\n#")
		return text
	}
	all := section("Every program")
	programs := map[string]string{
		"api-server": all + section("marchproxy-api\n"), "xds-server": all + section("marchproxy-xds\n"),
		"proxy-l7": all + section("marchproxy-agent\n"), "cli": all + section("marchproxy (the command line)\n"),
	}
	checked := 0
	each(t, func(t *testing.T, _ *types.Project, s types.ServiceConfig) {
		for name, value := range s.Environment {
			if regexp.MustCompile(`(KEY|TOKEN|PASSWORD|SECRET|NKEY)$`).MatchString(name) && value != nil && *value != "" &&
				!strings.HasPrefix(*value, "/") {
				t.Errorf("%s: the secret %s stands in the environment", s.Name, name)
			}
			m := own.FindStringSubmatch(s.Image)
			if m == nil {
				continue
			}
			checked++
			text := programs[m[1]]
			if !strings.Contains(text, "`"+name+"`") && !strings.Contains(text, "`"+strings.TrimSuffix(name, "_FILE")+"`") {
				t.Errorf("%s: %s is no setting of %s", s.Name, name, m[1])
			}
		}
	})
	if checked < 60 {
		t.Errorf("only %d settings were found", checked)
	}
}

// TestFiles: what is mounted from this directory is there, and each part has its own identity and no other.
func TestFiles(t *testing.T) {
	dir := filepath.Join(root(t), "deployments", "compose")
	seen := map[string]string{}
	each(t, func(t *testing.T, _ *types.Project, s types.ServiceConfig) {
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			path, err := filepath.Rel(dir, v.Source)
			if err != nil {
				t.Fatal(err)
			}
			if !v.ReadOnly && s.Name != "init" {
				t.Errorf("%s can write to %s", s.Name, path)
			}
			identity, ok := strings.CutPrefix(path, "secrets/pki/issued/")
			if !ok {
				if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
					t.Errorf("%s: %v", s.Name, err)
				}
				continue
			}
			who := s.Name
			if who == "migrate" {
				who = "api"
			}
			if was, ok := seen[identity]; ok && was != who && !strings.HasPrefix(identity, "operator-") {
				t.Errorf("%s and %s are both %s", who, was, identity)
			}
			seen[identity] = who
		}
	})
	if len(seen) != 12 {
		t.Errorf("%d identities are used: %v", len(seen), seen)
	}
}
