package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/wasm/envoy"
)

//go:embed floor.rs
var floorSource []byte

// floors gives Envoys with filters that make ours' host calls and do nothing else: what no filter in their place
// can go below. It needs Rust, and puts the modules into dir.
func floors(ctx context.Context, dir string) ([]setup, error) {
	root, err := harness.Root()
	if err != nil {
		return nil, err
	}
	source := filepath.Join(dir, "floor.rs")
	if err := os.WriteFile(source, floorSource, 0o600); err != nil {
		return nil, err
	}
	filters := make(map[string]envoy.Filter)
	for _, kind := range []string{"headers", "metrics", "license", "auth"} {
		file := filepath.Join(dir, kind+".wasm")
		build := exec.CommandContext(ctx, filepath.Join(root, "scripts", "rust"), "rustc", "--edition", "2024", "--target",
			"wasm32-unknown-unknown",
			"-O", "-Cpanic=abort", "-Cstrip=symbols", "--crate-type", "cdylib", "--cfg", kind, "-Aunexpected_cfgs",
			"-o", file, source)
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return nil, fmt.Errorf("compile the floor of %s: %w", kind, err)
		}
		filters[kind] = envoy.Filter{Name: "floor-" + kind, Configuration: object{}, Module: file}
	}
	return []setup{
		{name: "floor: reads the headers", filters: []envoy.Filter{filters["headers"]}},
		{name: "floor of auth", filters: []envoy.Filter{filters["auth"]}},
		{name: "floor of metrics, license, auth", filters: []envoy.Filter{
			filters["metrics"], filters["license"],
			filters["auth"],
		}},
	}, nil
}

// floorBars are the same bars for the floors as for the filters that stand in their place.
var floorBars = []bar{
	{"floor: reads the headers, 1 token", "jwt_authn, its cache on, 1 token", cachedBar},
	{"floor: reads the headers, 1000 tokens", "jwt_authn, its cache on, 1000 tokens", cachedBar},
	{"floor of auth, 1 token", "jwt_authn, its cache on, 1 token", cachedBar},
	{"floor of auth, 1000 tokens", "jwt_authn, its cache on, 1000 tokens", cachedBar},
	{"floor of metrics, license, auth, 1 token", "no filter, 1 token", chainBar},
	{"floor of metrics, license, auth, 1000 tokens", "no filter, 1 token", chainBar},
}
