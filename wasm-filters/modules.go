// Package filters holds the compiled filters, so that programs carry them: users need no Rust.
//
// Envoy loads a module from a file. A file's name has the digest of its content, so that a new version is
// another file: an Envoy that runs keeps what it has loaded, and two versions of the control plane do not
// write over one another.
package filters

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Dir is where the images of the proxy have the modules.
const Dir = "/var/lib/envoy/wasm"

// Names lists the filters.
func Names() []string { return []string{"metrics", "license", "auth", "connections"} }

//go:embed dist/*.wasm
var dist embed.FS

// Code is a filter's module.
func Code(name string) ([]byte, error) { return dist.ReadFile("dist/" + name + ".wasm") }

// Files names the files of all filters: auth-0123456789ab.wasm for auth.
func Files() (map[string]string, error) {
	out := map[string]string{}
	for _, name := range Names() {
		code, err := Code(name)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(code)
		out[name] = name + "-" + hex.EncodeToString(sum[:6]) + ".wasm"
	}
	return out, nil
}

// Install writes the modules that a directory lacks. A file appears with its whole content or not at all.
func Install(dir string) error {
	files, err := Files()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("install the filters: %w", err)
	}
	for name, file := range files {
		code, err := Code(name)
		if err != nil {
			return err
		}
		if err := install(filepath.Join(dir, file), code); err != nil {
			return fmt.Errorf("install filter %s: %w", name, err)
		}
	}
	return nil
}

func install(path string, code []byte) error {
	if has, err := os.ReadFile(path); err == nil && bytes.Equal(has, code) {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(code)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
