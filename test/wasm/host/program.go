package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// memoryPages is what a VM may take at most: 64 MiB, beyond which a filter's memory is not bounded.
const memoryPages = 1024

// Program is a compiled filter.
type Program struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
}

// Compile compiles a module. A VM's call ends with an error when its context does, so that an endless
// loop in the module is found. Close the program when it is not needed any more.
func Compile(ctx context.Context, module []byte) (*Program, error) {
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().
		WithCloseOnContextDone(true).
		WithMemoryLimitPages(memoryPages))
	p := &Program{runtime: r}
	if err := p.hostModules(ctx); err != nil {
		_ = r.Close(ctx)
		return nil, err
	}
	c, err := r.CompileModule(ctx, module)
	if err != nil {
		_ = r.Close(ctx)
		return nil, fmt.Errorf("compile the module: %w", err)
	}
	p.compiled = c
	return p, nil
}

// Close ends the program and all its VMs.
func (p *Program) Close(ctx context.Context) error { return p.runtime.Close(ctx) }

// Imports lists the host calls that the module names.
func (p *Program) Imports() []string {
	var names []string
	for _, f := range p.compiled.ImportedFunctions() {
		_, name, _ := f.Import()
		names = append(names, name)
	}
	return names
}

// Exports lists the functions that the module offers.
func (p *Program) Exports() []string {
	var names []string
	for name := range p.compiled.ExportedFunctions() {
		names = append(names, name)
	}
	return names
}

// VM is one running module with one root context.
type VM struct {
	*State
	module api.Module
	root   uint32
	next   uint32
	calls  map[string]api.Function
}

// Start makes a VM. It has no configuration yet.
func (p *Program) Start(ctx context.Context) (*VM, error) {
	m, err := p.runtime.InstantiateModule(ctx, p.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions(
		"_initialize",
	))
	if err != nil {
		return nil, fmt.Errorf("start the module: %w", err)
	}
	return &VM{State: newState(), module: m, calls: make(map[string]api.Function)}, nil
}

// Close ends the VM.
func (v *VM) Close(ctx context.Context) error { return v.module.Close(ctx) }

// Memory gives the bytes of memory that the VM has taken.
func (v *VM) Memory() uint32 { return v.module.Memory().Size() }

// call calls an exported callback; one that the module does not have is not called, as in Envoy.
func (v *VM) call(ctx context.Context, name string, args ...uint64) (uint64, error) {
	f, known := v.calls[name]
	if !known {
		f = v.module.ExportedFunction(name)
		v.calls[name] = f
	}
	if f == nil {
		return 0, nil
	}
	got, err := f.Call(context.WithValue(ctx, stateKey{}, v.State), args...)
	if err != nil {
		return 0, fmt.Errorf("%s trapped: %w", name, err)
	}
	if len(got) == 0 {
		return 0, nil
	}
	return got[0], nil
}

// Configure makes a new root context with that configuration, as Envoy does for every new plugin
// configuration; requests from then on belong to it. It reports whether the filter took it.
func (v *VM) Configure(ctx context.Context, configuration []byte) (bool, error) {
	v.next++
	root := v.next
	if _, err := v.call(ctx, "proxy_on_context_create", uint64(root), 0); err != nil {
		return false, err
	}
	v.configuration = configuration
	took, err := v.call(ctx, "proxy_on_configure", uint64(root), uint64(len(configuration)))
	if err == nil && took == 1 {
		v.root = root
	}
	return took == 1, err
}

// Root is the root context that requests belong to.
func (v *VM) Root() uint32 { return v.root }

// UseRoot makes requests belong to an earlier root context again: one that began before the last Configure.
func (v *VM) UseRoot(root uint32) { v.root = root }

// Outcome is what became of a request.
type Outcome struct {
	// Passed says that the filter let the request go on.
	Passed bool
	// Response is the filter's own answer, nil if it gave none.
	Response *Response
	// Headers are the request's headers as they go on.
	Headers Headers
	// Calls counts the host calls of this request by name.
	Calls map[string]int
}

// Response is an answer by the filter.
type Response struct {
	Status  uint32
	Details string
	Body    string
	Headers Headers
}

// Begin lets a request begin that nothing more is heard of until End with what it gives.
func (v *VM) Begin(ctx context.Context) (uint32, error) {
	v.next++
	_, err := v.call(ctx, "proxy_on_context_create", uint64(v.next), uint64(v.root))
	return v.next, err
}

// End ends a request that Begin began.
func (v *VM) End(ctx context.Context, id uint32) error {
	_, err := v.call(ctx, "proxy_on_log", uint64(id))
	return err
}

// Connect lets a connection come from an address (host:port), and says whether the filter lets it go on.
func (v *VM) Connect(ctx context.Context, from string) (id uint32, open bool, err error) {
	v.next++
	v.connection, v.closed, v.Properties["source\x00address"] = uint64(v.next), false, from
	clear(v.counts)
	if _, err := v.call(ctx, "proxy_on_context_create", v.connection, uint64(v.root)); err != nil {
		return 0, false, err
	}
	if _, err = v.call(ctx, "proxy_on_new_connection", v.connection); err != nil {
		return 0, false, err
	}
	return v.next, !v.closed, nil
}

// Disconnect ends a connection.
func (v *VM) Disconnect(ctx context.Context, id uint32) error {
	clear(v.counts)
	_, err := v.call(ctx, "proxy_on_downstream_connection_close", uint64(id), 2)
	return err
}

// Tick lets the time come that the filter asked to be told of.
func (v *VM) Tick(ctx context.Context) error {
	_, err := v.call(ctx, "proxy_on_tick", uint64(v.root))
	return err
}

// Request runs one request through the filter, to its end. An error is a trap or the context's end.
func (v *VM) Request(ctx context.Context, headers Headers) (Outcome, error) {
	v.next++
	id := uint64(v.next)
	v.headers = append(Headers(nil), headers...)
	v.response = nil
	clear(v.counts)
	if _, err := v.call(ctx, "proxy_on_context_create", id, uint64(v.root)); err != nil {
		return Outcome{}, err
	}
	action, err := v.call(ctx, "proxy_on_request_headers", id, uint64(len(headers)), 1)
	if err != nil {
		return Outcome{}, err
	}
	for name, sizes := range map[string][]int{"proxy_on_request_body": v.Received, "proxy_on_response_body": v.Sent} {
		for i, size := range sizes {
			end := uint64(0)
			if i == len(sizes)-1 {
				end = 1
			}
			if _, err := v.call(ctx, name, id, uint64(size), end); err != nil {
				return Outcome{}, err
			}
		}
	}
	v.Now += v.Took
	v.Monotonic += v.Took
	for _, name := range []string{"proxy_on_log", "proxy_on_done", "proxy_on_delete"} {
		if _, err := v.call(ctx, name, id); err != nil {
			return Outcome{}, err
		}
	}
	calls := make(map[string]int, len(v.counts))
	for name, n := range v.counts {
		calls[name] = n
	}
	return Outcome{Passed: action == 0, Response: v.response, Headers: v.headers, Calls: calls}, nil
}

// HMAC calls the auth filter's export for known answers; bits is 256, 384 or 512.
func (v *VM) HMAC(ctx context.Context, bits int, key, message []byte) ([]byte, error) {
	p, err := v.call(ctx, "proxy_on_memory_allocate", uint64(64+len(key)+len(message)))
	if err != nil || p == 0 {
		return nil, errors.Join(errors.New("allocate"), err)
	}
	out := uint32(p)
	k, m := out+64, out+64+uint32(len(key))
	v.module.Memory().Write(k, key)
	v.module.Memory().Write(m, message)
	if _, err := v.call(ctx, "marchproxy_hmac", uint64(bits), uint64(k), uint64(len(key)), uint64(m), uint64(len(message)),
		p); err != nil {
		return nil, err
	}
	mac, _ := v.module.Memory().Read(out, uint32(bits/8))
	return append([]byte(nil), mac...), nil
}
