package filterconfig

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// Header is a header of a request or an answer.
type Header struct{ Name, Value string }

// Request is what a filter decides on: what it would be told of it in Envoy.
type Request struct {
	// Headers begin with those of the request line: :authority, :path, :method, :scheme. Names are in lower case.
	Headers []Header
	// Route is the name of the request's route, as Envoy knows it; "" where it has none.
	Route string
	// Now is the time by the filter's clock.
	Now time.Time
}

// Answer is an answer of the filter's own.
type Answer struct {
	Status int
	// Details are what the access log has of it (%RESPONSE_CODE_DETAILS%).
	Details, Body string
	Headers       []Header
}

// request is the context of the request that is decided on.
const request = 2

// notFound is what a filter is told of what there is not.
const notFound = 1

var errNeither = errors.New("lets the request neither go on nor answers it")

// Decide says what a filter (auth or license) with a configuration does with a request: the answer by which it refuses
// it, or nil and the headers with which it goes on. The VM is one of its own, and gone with the answer, so that nothing
// stays of what the request has shown.
func Decide(ctx context.Context, filter string, text []byte, r Request) (refusal *Answer, goesOn []Header, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("filter %s: %w", filter, err)
		}
	}()
	reader, err := get(filter)
	if err != nil {
		return nil, nil, err
	}
	vm, err := reader.start(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = vm.Close(ctx) }() // its memory is all that it has
	s := &session{text: text}
	if took, err := s.configure(ctx, vm); err != nil || !took {
		return nil, nil, errors.Join(errors.New("refuses its configuration"), err)
	}
	s.request = &r
	ctx = s.in(ctx)
	if create := vm.ExportedFunction("proxy_on_context_create"); create != nil {
		if _, err := create.Call(ctx, request, root); err != nil {
			return nil, nil, err
		}
	}
	got, err := vm.ExportedFunction("proxy_on_request_headers").Call(ctx, request, uint64(len(r.Headers)), 1)
	switch {
	case err != nil:
		return nil, nil, err
	case got[0] == 0:
		return nil, s.request.Headers, nil
	case s.answer == nil:
		return nil, nil, errNeither
	}
	return s.answer, nil, nil
}

// call is a call to the host by a filter that decides on a request.
func (s *session) call(ctx context.Context, m api.Module, name string, stack []uint64) uint64 {
	arg := func(i int) uint32 { return api.DecodeU32(stack[i]) }
	read := func(at, size int) []byte {
		b, there := m.Memory().Read(arg(at), arg(size))
		if !there {
			return nil
		}
		return b
	}
	switch name {
	case "proxy_get_header_map_pairs":
		if arg(0) != 0 { // the request's
			return bad
		}
		return give(ctx, m, EncodeHeaders(s.request.Headers), arg(1), arg(2))
	case "proxy_set_header_map_pairs":
		pairs, valid := DecodeHeaders(read(1, 2))
		if arg(0) != 0 || !valid {
			return bad
		}
		s.request.Headers = pairs
		return ok
	case "proxy_get_property":
		if string(read(0, 1)) != "xds\x00route_name" || s.request.Route == "" {
			return notFound
		}
		return give(ctx, m, []byte(s.request.Route), arg(2), arg(3))
	case "proxy_get_current_time_nanoseconds":
		if !m.Memory().WriteUint64Le(arg(0), uint64(s.request.Now.UnixNano())) {
			return bad
		}
		return ok
	case "proxy_increment_metric":
		return ok
	case "proxy_send_local_response":
		headers, valid := DecodeHeaders(read(5, 6))
		if !valid {
			return bad
		}
		s.answer = &Answer{
			Status: int(arg(0)), Details: string(read(1, 2)), Body: string(read(3, 4)), Headers: headers,
		}
		return ok
	}
	return bad
}
