// Package wasm tests the filters of wasm-filters/dist, as they are shipped, in a host of our own and in Envoy.
package wasm

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/wasm/host"
)

var programs struct {
	sync.Mutex
	byName map[string]*host.Program
}

// module gives the bytes of a filter as it is shipped.
func module(t testing.TB, name string) []byte {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "wasm-filters", "dist", name+".wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// program compiles a filter once for all tests.
func program(t testing.TB, name string) *host.Program {
	t.Helper()
	programs.Lock()
	defer programs.Unlock()
	if p := programs.byName[name]; p != nil {
		return p
	}
	p, err := host.Compile(context.Background(), module(t, name))
	if err != nil {
		t.Fatal(err)
	}
	if programs.byName == nil {
		programs.byName = make(map[string]*host.Program)
	}
	programs.byName[name] = p
	return p
}

// object is JSON to be.
type object = map[string]any

// start makes a VM of a filter with a configuration that it must take. Its clock says now.
func start(t testing.TB, name string, configuration any) *host.VM {
	t.Helper()
	vm, err := program(t, name).Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = vm.Close(context.Background()) })
	vm.Now = now.UnixNano()
	configure(t, vm, configuration)
	return vm
}

func configure(t testing.TB, vm *host.VM, configuration any) {
	t.Helper()
	b, err := json.Marshal(configuration)
	if err != nil {
		t.Fatal(err)
	}
	took, err := vm.Configure(t.Context(), b)
	if err != nil || !took {
		t.Fatalf("the configuration was refused: %v %v", err, vm.Logs)
	}
}

// now is the filters' clock in most tests.
var now = time.Unix(1_800_000_000, 0)

func request(target string, more ...string) host.Headers {
	h := host.Headers{
		{":authority", "example.com"},
		{":path", target},
		{":method", "GET"},
		{":scheme", "http"},
		{"user-agent", "test"},
	}
	for i := 0; i+1 < len(more); i += 2 {
		h = append(h, [2]string{more[i], more[i+1]})
	}
	return h
}

func send(t testing.TB, vm *host.VM, h host.Headers) host.Outcome {
	t.Helper()
	o, err := vm.Request(t.Context(), h)
	if err != nil {
		t.Fatalf("%v with %q", err, h)
	}
	if !o.Passed && o.Response == nil {
		t.Fatalf("neither passed nor answered: %q", h)
	}
	return o
}

// refusedFor is the reason that the auth filter names in the access log, or "" for a request that passed.
func refusedFor(o host.Outcome) string {
	if o.Passed {
		return ""
	}
	return o.Response.Details
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
