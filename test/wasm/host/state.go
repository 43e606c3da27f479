package host

import "github.com/marchproxy/marchproxy/pkg/filterconfig"

// Headers are the headers of a request in order; names may repeat and need not be text.
type Headers [][2]string

// Get gives the first value of that name.
func (h Headers) Get(name string) (string, bool) {
	for _, kv := range h {
		if kv[0] == name {
			return kv[1], true
		}
	}
	return "", false
}

// Fault is what a host call does instead of its work.
type Fault int

// The faults. NoFault is the ordinary case.
const (
	NoFault Fault = iota
	// Fails answers with an internal failure.
	Fails
	// Empty answers well, with nothing.
	Empty
	// Huge answers well, with 9 MB of 0xff.
	Huge
	// Lies answers well, with a size beyond the memory that it asked for.
	Lies
	// Astray answers well, with a pointer that it never asked for.
	Astray
	// Absent answers that there is no such thing.
	Absent
)

// AllFaults lists every fault.
var AllFaults = []Fault{Fails, Empty, Huge, Lies, Astray, Absent}

// State is the host's side of a VM.
type State struct {
	// Now and Monotonic are the clocks, in nanoseconds since 1970 and since some start. Requests take Took of them.
	Now, Monotonic, Took int64
	// Properties by path, the parts separated by zeros.
	Properties map[string]string
	// Faults decides for each host call, by its name and its number in this request.
	Faults func(call string, n int) Fault
	// Answer are the headers of the answer that comes to a request; none if there is no answer.
	Answer Headers
	// Received and Sent are the sizes of the pieces in which the bodies come.
	Received, Sent []int
	// Garble, where it is set, changes what the host hands over, without telling.
	Garble func(call string, b []byte) []byte
	// Metrics are counters and gauges by name.
	Metrics map[string]int64
	// Recorded are the values of histograms by name.
	Recorded map[string][]uint64
	// Logs are the lines the filter wrote.
	Logs []string

	// Shared is what the VMs of all workers share, by key.
	Shared map[string]shared

	configuration []byte
	connection    uint64
	closed        bool
	headers       Headers
	response      *Response
	counts        map[string]int
	ids           []string
}

type shared struct {
	value   []byte
	version uint32
}

func newState() *State {
	return &State{
		Properties: make(map[string]string),
		Metrics:    make(map[string]int64),
		Recorded:   make(map[string][]uint64),
		Shared:     make(map[string]shared),
		counts:     make(map[string]int),
	}
}

// Header gives the present request's header of that name.
func (s *State) Header(name string) (string, bool) { return s.headers.Get(name) }

func (s *State) fault(call string) Fault {
	s.counts[call]++
	if s.Faults == nil {
		return NoFault
	}
	return s.Faults(call, s.counts[call])
}

func (h Headers) encode() []byte {
	list := make([]filterconfig.Header, len(h))
	for i, kv := range h {
		list[i] = filterconfig.Header{Name: kv[0], Value: kv[1]}
	}
	return filterconfig.EncodeHeaders(list)
}

// decodeHeaders reads what a filter wrote.
func decodeHeaders(b []byte) (Headers, bool) {
	list, valid := filterconfig.DecodeHeaders(b)
	var h Headers
	for _, x := range list {
		h = append(h, [2]string{x.Name, x.Value})
	}
	return h, valid
}
