package host

import (
	"bytes"
	"context"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

type stateKey struct{}

// The statuses of proxy-wasm that are used here.
const (
	statusOK       = 0
	statusNotFound = 1
	statusBad      = 2
	statusOld      = 8
	statusInternal = 10
)

// hostModules registers the host calls that our filters use, and no other: a filter that imports one more
// does not start.
func (p *Program) hostModules(ctx context.Context) error {
	type fn = func(context.Context, api.Module, *State, []uint64) uint64
	env := p.runtime.NewHostModuleBuilder("env")
	wasi := p.runtime.NewHostModuleBuilder("wasi_snapshot_preview1")
	addTo := func(module wazero.HostModuleBuilder, name string, params string, f fn) {
		var types []api.ValueType
		for _, c := range params {
			if c == 'l' {
				types = append(types, api.ValueTypeI64)
			} else {
				types = append(types, api.ValueTypeI32)
			}
		}
		module.NewFunctionBuilder().
			WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, m api.Module, stack []uint64) {
				s := ctx.Value(stateKey{}).(*State)
				for i, kind := range types {
					if kind == api.ValueTypeI32 {
						// The upper half is whatever was there before.
						stack[i] = uint64(api.DecodeU32(stack[i]))
					}
				}
				stack[0] = f(ctx, m, s, stack)
			}), types, []api.ValueType{api.ValueTypeI32}).Export(name)
	}
	add := func(name, params string, f fn) { addTo(env, name, params, f) }
	// clock tells a time as the filter asked for it, or a wrong one.
	clock := func(m api.Module, s *State, call string, now int64, at uint64) uint64 {
		switch s.fault(call) {
		case NoFault:
			m.Memory().WriteUint64Le(uint32(at), uint64(now))
		case Empty:
		case Huge, Lies, Astray:
			m.Memory().WriteUint64Le(uint32(at), ^uint64(0))
		default:
			return statusInternal
		}
		return statusOK
	}

	add("proxy_log", "iii", func(_ context.Context, m api.Module, s *State, a []uint64) uint64 {
		if s.fault("proxy_log") != NoFault {
			return statusInternal
		}
		s.Logs = append(s.Logs, string(read(m, a[1], a[2])))
		return statusOK
	})
	add("proxy_get_current_time_nanoseconds", "i", func(_ context.Context, m api.Module, s *State, a []uint64) uint64 {
		return clock(m, s, "proxy_get_current_time_nanoseconds", s.Now, a[0])
	})
	addTo(wasi, "clock_time_get", "ili", func(_ context.Context, m api.Module, s *State, a []uint64) uint64 {
		if a[0] != 1 {
			return statusBad
		}
		return clock(m, s, "clock_time_get", s.Monotonic, a[2])
	})
	add("proxy_set_tick_period_milliseconds", "i", func(_ context.Context, _ api.Module, s *State, _ []uint64) uint64 {
		if s.fault("proxy_set_tick_period_milliseconds") != NoFault {
			return statusInternal
		}
		return statusOK
	})
	add("proxy_get_buffer_bytes", "iiiii", func(ctx context.Context, m api.Module, s *State, a []uint64) uint64 {
		if a[0] != 7 {
			return statusBad
		}
		return give(ctx, m, s, "proxy_get_buffer_bytes", s.configuration, a[3], a[4])
	})
	add("proxy_get_header_map_pairs", "iii", func(ctx context.Context, m api.Module, s *State, a []uint64) uint64 {
		switch a[0] {
		case 0:
			return give(ctx, m, s, "proxy_get_header_map_pairs", s.headers.encode(), a[1], a[2])
		case 2:
			return give(ctx, m, s, "proxy_get_header_map_pairs", s.Answer.encode(), a[1], a[2])
		}
		return statusBad
	})
	add("proxy_set_header_map_pairs", "iii", func(_ context.Context, m api.Module, s *State, a []uint64) uint64 {
		if s.fault("proxy_set_header_map_pairs") != NoFault {
			return statusInternal
		}
		h, ok := decodeHeaders(read(m, a[1], a[2]))
		if a[0] != 0 || !ok {
			return statusBad
		}
		s.headers = h
		return statusOK
	})
	add("proxy_get_property", "iiii", func(ctx context.Context, m api.Module, s *State, a []uint64) uint64 {
		value, known := s.Properties[string(read(m, a[0], a[1]))]
		if !known {
			if s.fault("proxy_get_property") == Fails {
				return statusInternal
			}
			return statusNotFound
		}
		return give(ctx, m, s, "proxy_get_property", []byte(value), a[2], a[3])
	})
	add("proxy_send_local_response", "iiiiiiii", func(_ context.Context, m api.Module, s *State, a []uint64) uint64 {
		if s.fault("proxy_send_local_response") != NoFault {
			return statusInternal
		}
		h, ok := decodeHeaders(read(m, a[5], a[6]))
		if !ok {
			return statusBad
		}
		s.response = &Response{
			Status: uint32(a[0]), Details: string(read(m, a[1], a[2])), Body: string(read(m, a[3], a[4])),
			Headers: h,
		}
		return statusOK
	})
	add("proxy_define_metric", "iiii", func(_ context.Context, m api.Module, s *State, a []uint64) uint64 {
		if s.fault("proxy_define_metric") != NoFault {
			return statusInternal
		}
		name := string(read(m, a[1], a[2]))
		for id, known := range s.ids {
			if known == name {
				m.Memory().WriteUint32Le(uint32(a[3]), uint32(id))
				return statusOK
			}
		}
		s.ids = append(s.ids, name)
		m.Memory().WriteUint32Le(uint32(a[3]), uint32(len(s.ids)-1))
		return statusOK
	})
	add("proxy_increment_metric", "il", func(_ context.Context, _ api.Module, s *State, a []uint64) uint64 {
		if s.fault("proxy_increment_metric") != NoFault || a[0] >= uint64(len(s.ids)) {
			return statusInternal
		}
		s.Metrics[s.ids[a[0]]] += int64(a[1])
		return statusOK
	})
	add("proxy_record_metric", "il", func(_ context.Context, _ api.Module, s *State, a []uint64) uint64 {
		if s.fault("proxy_record_metric") != NoFault || a[0] >= uint64(len(s.ids)) {
			return statusInternal
		}
		name := s.ids[a[0]]
		s.Recorded[name] = append(s.Recorded[name], a[1])
		return statusOK
	})
	add("proxy_get_shared_data", "iiiii", func(ctx context.Context, m api.Module, s *State, a []uint64) uint64 {
		entry, known := s.Shared[string(read(m, a[0], a[1]))]
		if !known {
			if s.fault("proxy_get_shared_data") == Fails {
				return statusInternal
			}
			return statusNotFound
		}
		m.Memory().WriteUint32Le(uint32(a[4]), entry.version)
		return give(ctx, m, s, "proxy_get_shared_data", entry.value, a[2], a[3])
	})
	add("proxy_set_shared_data", "iiiii", func(_ context.Context, m api.Module, s *State, a []uint64) uint64 {
		key := string(read(m, a[0], a[1]))
		switch f := s.fault("proxy_set_shared_data"); {
		case f == Absent, a[4] != 0 && uint32(a[4]) != s.Shared[key].version:
			return statusOld
		case f != NoFault:
			return statusInternal
		}
		s.Shared[key] = shared{bytes.Clone(read(m, a[2], a[3])), s.Shared[key].version + 1}
		return statusOK
	})
	add("proxy_close_stream", "i", func(ctx context.Context, m api.Module, s *State, a []uint64) uint64 {
		if s.fault("proxy_close_stream") != NoFault {
			return statusInternal
		}
		if a[0] != 2 {
			return statusBad
		}
		// As in Envoy, the end is told before the call returns.
		s.closed = true
		if _, err := m.ExportedFunction("proxy_on_downstream_connection_close").Call(ctx, s.connection, 1); err != nil {
			panic(err)
		}
		return statusOK
	})
	if _, err := wasi.Instantiate(ctx); err != nil {
		return err
	}
	_, err := env.Instantiate(ctx)
	return err
}

func read(m api.Module, ptr, size uint64) []byte {
	if size == 0 {
		return nil
	}
	b, ok := m.Memory().Read(uint32(ptr), uint32(size))
	if !ok {
		panic("the filter named memory that it does not have")
	}
	return b
}

// huge is more than Envoy's own limit for all headers together.
var huge = bytes.Repeat([]byte{0xff}, 9<<20)

// give hands bytes over: it asks the module for memory, writes there, and tells where.
func give(ctx context.Context, m api.Module, s *State, call string, b []byte, data, size uint64) uint64 {
	if s.Garble != nil {
		b = s.Garble(call, b)
	}
	claim := len(b)
	var astray uint32
	switch s.fault(call) {
	case Fails:
		return statusInternal
	case Absent:
		return statusNotFound
	case Empty:
		b, claim = nil, 0
	case Huge:
		b, claim = huge, len(huge)
	case Lies:
		claim = 0x7fffffff
	case Astray:
		astray = 8
	}
	var ptr uint32
	if len(b) > 0 {
		got, err := m.ExportedFunction("proxy_on_memory_allocate").Call(ctx, uint64(len(b)))
		if err != nil || got[0] == 0 {
			return statusInternal
		}
		ptr = uint32(got[0])
		if !m.Memory().Write(ptr, b) {
			panic("the filter gave memory that it does not have")
		}
	}
	m.Memory().WriteUint32Le(uint32(data), ptr+astray)
	m.Memory().WriteUint32Le(uint32(size), uint32(claim))
	return statusOK
}
