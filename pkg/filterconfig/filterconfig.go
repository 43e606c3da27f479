// Package filterconfig asks a filter itself whether it would take a configuration, and what it would do with a request:
// it runs the module that Envoy runs. So what is checked before a write is what an Envoy checks after it, and what is
// said of a token is what an Envoy says of it, by the same code.
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
}

// session is what the host knows while a filter reads a text, or decides on a request.
type session struct {
	// text is what is being read, and logged what the filter says of it.
	text   []byte
	logged string
	// request is what is being decided on, nil where a text is read; its headers are as the filter leaves them.
	request *Request
	answer  *Answer
}

// key is that of the session in a context.
type key struct{}

func (s *session) in(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, s) }

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
		hosts[module].NewFunctionBuilder().WithGoModuleFunction(host(name), f.ParamTypes(), f.ResultTypes()).Export(name)
	}
	for _, h := range hosts {
		if _, err := h.Instantiate(ctx); err != nil {
			return err
		}
	}
	return nil
}

// host is what a call of the filter does here: it gets its configuration, and says what is wrong with it. Figures that
// it defines are kept nowhere. What there is beside that while it decides on a request is in decide.go.
func host(name string) api.GoModuleFunc {
	return func(ctx context.Context, m api.Module, stack []uint64) {
		s := ctx.Value(key{}).(*session)
		status := uint64(bad)
		switch name {
		case "proxy_log":
			if text, there := m.Memory().Read(api.DecodeU32(stack[1]), api.DecodeU32(stack[2])); there {
				s.logged, status = string(text), ok
			}
		case "proxy_get_buffer_bytes":
			status = give(ctx, m, s.text, api.DecodeU32(stack[3]), api.DecodeU32(stack[4]))
		case "proxy_define_metric", "proxy_set_tick_period_milliseconds":
			status = ok
		default:
			if s.request != nil {
				status = s.call(ctx, m, name, stack)
			}
		}
		if len(stack) > 0 {
			stack[0] = status
		}
	}
}

// give writes bytes into memory that the filter allocates for them, and says where.
func give(ctx context.Context, m api.Module, text []byte, data, size uint32) uint64 {
	at := uint32(0)
	if len(text) > 0 {
		got, err := m.ExportedFunction("proxy_on_memory_allocate").Call(ctx, uint64(len(text)))
		if err != nil || got[0] == 0 || !m.Memory().Write(uint32(got[0]), text) {
			return bad
		}
		at = uint32(got[0])
	}
	if !m.Memory().WriteUint32Le(data, at) || !m.Memory().WriteUint32Le(size, uint32(len(text))) {
		return bad
	}
	return ok
}

// root is the root context that every text is for: each takes the place of the one before, of which nothing stays.
const root = 1

func (r *reader) read(ctx context.Context, text []byte) string {
	if r.vm == nil {
		vm, err := r.start(ctx)
		if err != nil {
			return "the filter does not start: " + err.Error()
		}
		r.vm = vm
	}
	s := &session{text: text}
	took, err := s.configure(ctx, r.vm)
	if err != nil || r.vm.Memory().Size() > keptMemory {
		_ = r.vm.Close(ctx) // its memory is all that it has
		r.vm = nil
	}
	switch {
	case err != nil:
		return "the filter fails on it"
	case took:
		return ""
	case s.logged == "":
		return "the filter refuses it"
	default:
		// "marchproxy auth: configuration refused: jwt: keys: from 1 to 16"
		_, why, _ := strings.Cut(s.logged, "refused: ")
		return why
	}
}

// start makes a VM, which is in no context: the functions that it calls find their session in that of each call.
func (r *reader) start(ctx context.Context) (api.Module, error) {
	s := &session{}
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize")
	return r.runtime.InstantiateModule(s.in(ctx), r.module, config)
}

func (s *session) configure(ctx context.Context, vm api.Module) (bool, error) {
	ctx = s.in(ctx)
	if create := vm.ExportedFunction("proxy_on_context_create"); create != nil {
		if _, err := create.Call(ctx, root, 0); err != nil {
			return false, err
		}
	}
	got, err := vm.ExportedFunction("proxy_on_configure").Call(ctx, root, uint64(len(s.text)))
	return err == nil && got[0] == 1, err
}
