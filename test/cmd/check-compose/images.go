package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// images builds the images as a release does, twice, and for the other architecture, and looks into them.
func (c *checker) images(ctx context.Context, tmp string) error {
	var sums [2]map[string]string
	for i := range sums {
		dir := filepath.Join(tmp, fmt.Sprint("images-", i))
		if err := c.release(ctx, dir, c.made, "amd64", "api-server xds-server proxy-l7 cli"); err != nil {
			return err
		}
		var err error
		if sums[i], err = sumsOf(dir); err != nil {
			return err
		}
	}
	for name, sum := range sums[0] {
		if sums[1][name] != sum {
			return fmt.Errorf("two builds of %s differ: %s and %s", name, sum, sums[1][name])
		}
	}
	if len(sums[0]) != 4 {
		return fmt.Errorf("there are %d images", len(sums[0]))
	}
	c.say("a second build has the same bytes: %v", sums[0])
	// Without a base image for it nothing can be run for the other architecture while it is built: the proxy's packages are.
	arm, which := c.made, "api-server xds-server cli"
	if c.made == "" {
		which += " proxy-l7"
	} else {
		arm = filepath.Join(tmp, "build-arm64")
		if err := c.programs(ctx, arm, "arm64"); err != nil {
			return err
		}
	}
	if err := c.release(ctx, filepath.Join(tmp, "images-arm64"), arm, "arm64", which); err != nil {
		return err
	}
	c.say("%s are built for arm64", which)
	for _, image := range []string{"api-server", "xds-server", "proxy-l7", "cli"} {
		if err := c.look(ctx, image); err != nil {
			return fmt.Errorf("%s: %w", image, err)
		}
	}
	c.say("their users, health checks and labels are as promised")
	return nil
}

// release runs scripts/images; made is where the programs are, "" to build them in the image.
func (c *checker) release(ctx context.Context, dir, made, arch, which string) error {
	args := append([]string{"--no-cache"}, c.args...)
	if made != "" {
		args = append(args, "--build-context", "build="+made, "--build-context", "envoy="+made)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(c.root, "scripts", "images"), dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "PLATFORMS=linux/"+arch, "IMAGES="+which, "VERSION=check",
		"BUILD_ARGS="+strings.Join(args, " "))
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("scripts/images for %s: %w", arch, err)
	}
	for image := range strings.FieldsSeq(which) {
		raw, err := os.ReadFile(filepath.Join(dir, image+"-linux-"+arch+".spdx.json"))
		if err != nil {
			return err
		}
		var sbom struct{ Packages []struct{ Name string } }
		if err := json.Unmarshal(raw, &sbom); err != nil || len(sbom.Packages) < 10 {
			return fmt.Errorf("the SBOM of %s has %d packages: %w", image, len(sbom.Packages), err)
		}
	}
	return nil
}

func sumsOf(dir string) (map[string]string, error) {
	all, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, path := range all {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		_ = f.Close() // read only
		if err != nil {
			return nil, err
		}
		out[filepath.Base(path)] = fmt.Sprintf("%x", h.Sum(nil)[:6])
	}
	return out, nil
}

// look looks into an image that compose has built: who runs in it, what asks how it is, and what is said of it.
func (c *checker) look(ctx context.Context, image string) error {
	name := "marchproxy/" + image + ":dev"
	cmd := exec.CommandContext(ctx, filepath.Join(c.root, "scripts", "docker"), "image", "inspect", name)
	cmd.Stderr = os.Stderr
	raw, err := cmd.Output()
	if err != nil {
		return err
	}
	var is []struct {
		Config struct {
			User        string
			Labels      map[string]string
			Healthcheck *struct{ Test []string }
		}
	}
	if err := json.Unmarshal(raw, &is); err != nil || len(is) != 1 {
		return fmt.Errorf("inspect: %w", err)
	}
	config := is[0].Config
	root := config.User == "" || strings.HasPrefix(config.User, "0")
	if proxy := image == "proxy-l7"; root != proxy { // the kernel lets root alone guard an interface
		return fmt.Errorf("its user is %q", config.User)
	}
	if (config.Healthcheck == nil) != (image == "cli") {
		return fmt.Errorf("its health check is %v", config.Healthcheck)
	}
	if h := config.Healthcheck; h != nil && (h.Test[0] != "CMD" || h.Test[len(h.Test)-1] != "health") {
		return fmt.Errorf("its health is asked by %v", h.Test)
	}
	for _, label := range []string{"title", "description", "version", "licenses", "source", "vendor"} {
		if config.Labels["org.opencontainers.image."+label] == "" {
			return fmt.Errorf("it has no label %s", label)
		}
	}
	if image == "proxy-l7" {
		return nil
	}
	out, err := exec.CommandContext(ctx, filepath.Join(c.root, "scripts", "docker"), "run", "--rm", "--network", "none",
		"--entrypoint", "/bin/sh", name, "-c", "true").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("no such file")) {
		return fmt.Errorf("it has a shell: %s", out)
	}
	return nil
}
