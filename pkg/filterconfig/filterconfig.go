// Package filterconfig asks a filter itself whether it would take a configuration: it runs the module that Envoy runs,
// and has it read the text. So what is checked before a write is what an Envoy checks after it, by the same code.
package filterconfig

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	filters "github.com/marchproxy/marchproxy/wasm-filters"
)

const (
	// memoryPages is what a VM may take at most, 256 MiB: the largest text that the filters read, with what they make
	// of it.
	memoryPages = 4096
	// keptMemory is how much of it a VM may keep for the next text.
	keptMemory = 8 << 20
	// ok and bad are statuses of proxy-wasm.
	ok, bad = 0, 2
)

// reader is one filter. It reads one text at a time.
type reader struct {
	name    string
	mu      sync.Mutex
	runtime wazero.Runtime
	module  wazero.CompiledModule
	vm      api.Module
	// text is what is being read, and logged what the filter says of it.
	text   []byte
	logged string
}

// readers are compiled when they are needed first, or by [Prepare]: that takes a tenth of a second.
var readers = struct {
	sync.Mutex
	byName map[string]*reader
}{byName: map[string]*reader{}}

// Prepare compiles the filters, so that the first write does not wait for it.
func Prepare() error {
	var all error
	for _, name := range filters.Names() {
		_, err := get(name)
		all = errors.Join(all, err)
	}
	return all
}

func get(name string) (*reader, error) {
	readers.Lock()
	defer readers.Unlock()
	if r := readers.byName[name]; r != nil {
		return r, nil
	}
	r := &reader{name: name}
	if err := r.compile(context.Background()); err != nil {
		return nil, fmt.Errorf("filter %s: %w", name, err)
	}
	readers.byName[name] = r
	return r, nil
}

// Refused says why a filter (auth, license or metrics) refuses a configuration, in its own words, or returns "".
// What cannot be found out counts as refused.
func Refused(filter string, text []byte) string {
	r, err := get(filter)
	if err != nil {
		return err.Error()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.read(context.Background(), text)
}

func (r *reader) compile(ctx context.Context) error {
	code, err := filters.Code(r.name)
	if err != nil {
		return err
	}
	r.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithMemoryLimitPages(memoryPages))
	if r.module, err = r.runtime.CompileModule(ctx, code); err != nil {
		return err
	}
	hosts := map[string]wazero.HostModuleBuilder{}
	for _, f := range r.module.ImportedFunctions() {
		module, name, _ := f.Import()
		if hosts[module] == nil {
			hosts[module] = r.runtime.NewHostModuleBuilder(module)
		}
		hosts[module].NewFunctionBuilder().WithGoModuleFunction(r.host(name), f.ParamTypes(), f.ResultTypes()).Export(name)
	}
	for _, h := range hosts {
		if _, err := h.Instantiate(ctx); err != nil {
			return err
		}
	}
	return nil
}

// host is what a call of the filter does here: it gets its configuration, and says what is wrong with it. Figures that
// it defines are kept nowhere, and nothing else is to be had while it reads.
func (r *reader) host(name string) api.GoModuleFunc {
	return func(ctx context.Context, m api.Module, stack []uint64) {
		status := uint64(bad)
		switch name {
		case "proxy_log":
			if text, there := m.Memory().Read(api.DecodeU32(stack[1]), api.DecodeU32(stack[2])); there {
				r.logged, status = string(text), ok
			}
		case "proxy_get_buffer_bytes":
			status = r.give(ctx, m, api.DecodeU32(stack[3]), api.DecodeU32(stack[4]))
		case "proxy_define_metric", "proxy_set_tick_period_milliseconds":
			status = ok
		}
		if len(stack) > 0 {
			stack[0] = status
		}
	}
}

// give writes the text into memory that the filter allocates for it, and says where.
func (r *reader) give(ctx context.Context, m api.Module, data, size uint32) uint64 {
	at := uint32(0)
	if len(r.text) > 0 {
		got, err := m.ExportedFunction("proxy_on_memory_allocate").Call(ctx, uint64(len(r.text)))
		if err != nil || got[0] == 0 || !m.Memory().Write(uint32(got[0]), r.text) {
			return bad
		}
		at = uint32(got[0])
	}
	if !m.Memory().WriteUint32Le(data, at) || !m.Memory().WriteUint32Le(size, uint32(len(r.text))) {
		return bad
	}
	return ok
}

// root is the root context that every text is for: each takes the place of the one before, of which nothing stays.
const root = 1

func (r *reader) read(ctx context.Context, text []byte) string {
	if r.vm == nil {
		config := wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize")
		vm, err := r.runtime.InstantiateModule(ctx, r.module, config)
		if err != nil {
			return "the filter does not start: " + err.Error()
		}
		r.vm = vm
	}
	r.text, r.logged = text, ""
	took, err := r.configure(ctx)
	r.text = nil
	if err != nil || r.vm.Memory().Size() > keptMemory {
		_ = r.vm.Close(ctx) // its memory is all that it has
		r.vm = nil
	}
	switch {
	case err != nil:
		return "the filter fails on it"
	case took:
		return ""
	case r.logged == "":
		return "the filter refuses it"
	default:
		// "marchproxy auth: configuration refused: jwt: keys: from 1 to 16"
		_, why, _ := strings.Cut(r.logged, "refused: ")
		return why
	}
}

func (r *reader) configure(ctx context.Context) (bool, error) {
	if create := r.vm.ExportedFunction("proxy_on_context_create"); create != nil {
		if _, err := create.Call(ctx, root, 0); err != nil {
			return false, err
		}
	}
	got, err := r.vm.ExportedFunction("proxy_on_configure").Call(ctx, root, uint64(len(r.text)))
	return err == nil && got[0] == 1, err
}
