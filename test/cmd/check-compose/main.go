// Command check-compose brings up deployments/compose as its users do: it builds the images, makes the secrets, waits
// for `up --wait`, runs the integration guide's tests against it, and takes it down. With -ha it does the same with two
// of everything, kills one container of each kind under load, and upgrades all of them.
//
// It takes the Docker engine that answers, and where none does, as root, one that scripts/docker builds. Base images
// that cannot be pulled are replaced by stand-ins, and the programs in the images are then built on this machine with
// the same flags: the Dockerfile and the compose files stay as they are.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

const project = "marchproxy-check"

func main() {
	ha := flag.Bool("ha", false, "two of everything as well: kills and an upgrade under load")
	guide := flag.Bool("guide", true, "run the integration guide's tests")
	images := flag.Bool("images", false, "build the images twice and for both architectures as well, and look into them")
	keep := flag.Bool("keep", false, "leave it running at the end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, options{*ha, *guide, *images, *keep}); err != nil {
		fmt.Fprintln(os.Stderr, "check-compose:", err)
		stop()
		os.Exit(1)
	}
}

type options struct{ ha, guide, images, keep bool }

// checker is a copy of deployments/compose, with its own secrets, as one project.
type checker struct {
	root, dir string
	// files are the arguments that name the compose files.
	files []string
	env   []string
	// args are docker build's, and made where the programs are that it is given where a base image stands in.
	args []string
	made string
	// began is when nothing was there yet.
	began time.Time
}

func (c *checker) say(format string, args ...any) {
	fmt.Printf("%6.1f s  %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
}

func run(ctx context.Context, o options) (err error) {
	root, err := harness.Root()
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "marchproxy-compose-")
	if err != nil {
		return err
	}
	if o.keep { // what runs has files of it
		fmt.Println("the copy of deployments, with its secrets, stays in", tmp)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	}
	c := &checker{root: root, dir: filepath.Join(tmp, "compose"), began: time.Now()}
	if err := os.CopyFS(tmp, os.DirFS(filepath.Join(root, "deployments"))); err != nil {
		return err
	}
	c.say("looking for an engine")
	if err := c.command(ctx, filepath.Join(root, "scripts", "docker"), "engine", "up"); err != nil {
		return err
	}
	c.say("an engine answers")
	if err := c.build(ctx, tmp, "dev"); err != nil {
		return err
	}
	c.say("the images are built")
	if o.images {
		if err := c.images(ctx, tmp); err != nil {
			return err
		}
	}
	if err := c.compose(ctx, "run", "--rm", "init"); err != nil {
		return err
	}
	if !o.keep {
		defer func() { err = errors.Join(err, c.down()) }()
	}
	begin := time.Now()
	if err := c.compose(ctx, "--profile", "demo", "up", "--wait", "--wait-timeout", "300"); err != nil {
		return errors.Join(err, c.logs())
	}
	if err := served(ctx, "Hello from backend"); err != nil {
		return err
	}
	c.say("a request is served, %.1f s after up --wait was called: %.1f s from nothing",
		time.Since(begin).Seconds(), time.Since(c.began).Seconds())
	if err := c.compose(ctx, "run", "--rm", "cli", "status"); err != nil {
		return err
	}
	if o.guide {
		if err := c.guide(ctx); err != nil {
			return errors.Join(err, c.logs())
		}
	}
	if o.ha {
		return c.highAvailability(ctx, tmp)
	}
	return nil
}

// guide runs the integration guide's tests on the system without the demo, whose route has the guide's place.
func (c *checker) guide(ctx context.Context) error {
	if err := c.compose(ctx, "--profile", "demo", "rm", "-sf", "demo", "demo-route", "demo-served"); err != nil {
		return err
	}
	for _, object := range []string{"Route/demo", "Service/demo"} {
		if err := c.compose(ctx, "run", "--rm", "cli", "delete", object); err != nil {
			return err
		}
	}
	args := append([]string{c.dir}, c.files...)
	if err := c.command(ctx, filepath.Join(c.root, "scripts", "guide-compose"), args...); err != nil {
		return err
	}
	c.say("the guide's four tests have passed")
	return nil
}

// served waits until the proxy answers with a text.
func served(ctx context.Context, want string) error {
	return await(ctx, 10*time.Second, "the proxy to answer "+want, func(ctx context.Context) error {
		status, body, err := get(ctx, http.DefaultClient, "http://localhost:10000/")
		if err == nil && (status != http.StatusOK || !strings.Contains(body, want)) {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
}

// await tries something until it works.
func await(ctx context.Context, limit time.Duration, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %v for %s: %w", limit, what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

var pinned = regexp.MustCompile(`(?m)(DEBIAN_IMAGE|POSTGRES_IMAGE|NATS_IMAGE)(?:=|:-)([^\s}]+)`)

// build makes the images with a version as their tag.
func (c *checker) build(ctx context.Context, tmp, version string) error {
	var bases []string
	for _, f := range []string{"docker/Dockerfile", "compose/compose.yaml"} {
		raw, err := os.ReadFile(filepath.Join(c.root, "deployments", f))
		if err != nil {
			return err
		}
		for _, m := range pinned.FindAllStringSubmatch(string(raw), -1) {
			bases = append(bases, m[1]+"="+m[2])
		}
	}
	if len(bases) != 3 {
		return fmt.Errorf("%d base images are found: %v", len(bases), bases)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(c.root, "scripts", "docker"),
		append([]string{"engine", "standins"}, bases...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("the base images: %w", err)
	}
	c.args = nil
	override := "services:\n"
	contexts := ""
	for one := range strings.FieldsSeq(string(out)) {
		name, image, _ := strings.Cut(one, "=")
		if name != "DEBIAN_IMAGE" {
			c.env = append(c.env, one)
			continue
		}
		c.args = append(c.args, "--build-arg", one)
		if strings.HasPrefix(image, "marchproxy-standin/") {
			c.args = append(c.args, "--build-arg", "SNAPSHOT=")
			c.made = filepath.Join(tmp, "build")
			if err := c.programs(ctx, c.made, runtime.GOARCH); err != nil {
				return err
			}
			// A context of a stage's name takes the stage's place.
			contexts = fmt.Sprintf("      additional_contexts: {build: %q, envoy: %q}\n", c.made, c.made)
		}
	}
	for _, service := range []string{"init", "api", "xds", "proxy"} {
		override += "  " + service + ":\n    build:\n      context: " + c.root + "\n" + contexts
	}
	path := filepath.Join(c.dir, "compose.check.yaml")
	if err := os.WriteFile(path, []byte(override), 0o644); err != nil {
		return err
	}
	c.files = []string{"-f", filepath.Join(c.dir, "compose.yaml"), "-f", path}
	c.env = append(c.env, "COMPOSE_PROJECT_NAME="+project, "MARCHPROXY_VERSION="+version)
	args := slices.Concat([]string{"build", "--build-arg", "VERSION=" + version}, c.args)
	return c.compose(ctx, append(args, "init", "api", "xds", "proxy")...)
}

// programs makes in dir what the Dockerfile's stages build and envoy have for an architecture, with this machine's Go.
func (c *checker) programs(ctx context.Context, dir, arch string) error {
	for _, d := range []string{"out/bin", "out/state/xds", "out/wasm"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	run := func(name string, args ...string) error {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir, cmd.Stderr = c.root, os.Stderr
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOARCH="+arch)
		return cmd.Run()
	}
	bin := filepath.Join(dir, "out/bin") + "/"
	if err := run("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "./services/..."); err != nil {
		return err
	}
	marchproxy := filepath.Join(c.made, "out/bin/marchproxy") // the one of this machine
	if err := run(marchproxy, "filters", "install", "--dir", filepath.Join(dir, "out/wasm")); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, marchproxy, "dev", "envoy-path", "--arch", arch)
	cmd.Stderr = os.Stderr
	envoy, err := cmd.Output()
	if err != nil {
		return err
	}
	return errors.Join(
		run("install", "-m", "0755", strings.TrimSpace(string(envoy)), filepath.Join(dir, "out/envoy")),
		run("install", "-m", "0644", "/etc/ssl/certs/ca-certificates.crt", filepath.Join(dir, "out/ca-certificates.crt")),
	)
}

// command runs a program and shows what it says.
func (c *checker) command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return nil
}

func (c *checker) docker(ctx context.Context, args ...string) error {
	return c.command(ctx, filepath.Join(c.root, "scripts", "docker"), args...)
}

func (c *checker) compose(ctx context.Context, args ...string) error {
	all := append([]string{"compose", "--project-directory", c.dir, "--progress", "plain"}, c.files...)
	return c.docker(ctx, append(all, args...)...)
}

// logs shows what the containers said last, for whoever looks why.
func (c *checker) logs() error {
	return c.compose(context.Background(), "--profile", "*", "logs", "--tail", "15", "--no-color")
}

func (c *checker) down() error {
	return c.compose(context.Background(), "--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "20")
}
