package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/marchproxy/marchproxy/test/wasm/forge"
	"github.com/marchproxy/marchproxy/test/wasm/host"
)

// longest is what one request may take; one takes microseconds, but the machine may be busy.
const longest = time.Second

// mostMemory is what a VM may take with a host that lies: blocks of 16 MiB for an answer of 9 MB, and a little more.
const mostMemory = 48 << 20

// fuzzer has a VM of each filter.
type fuzzer struct {
	*forge.Forge
	vms     map[string]*host.VM
	good    map[string][]byte
	slowest time.Duration
}

func newFuzzer(ctx context.Context, dist string) (*fuzzer, error) {
	f := &fuzzer{Forge: forge.New(now, 0), vms: make(map[string]*host.VM), good: make(map[string][]byte)}
	for _, name := range filters {
		module, err := os.ReadFile(filepath.Join(dist, name+".wasm"))
		if err != nil {
			return nil, err
		}
		p, err := host.Compile(ctx, module)
		if err != nil {
			return nil, err
		}
		vm, err := p.Start(ctx)
		if err != nil {
			return nil, err
		}
		vm.Now = now * int64(time.Second)
		f.vms[name], f.good[name] = vm, encode(configurations()[name])
		if took, err := vm.Configure(ctx, f.good[name]); err != nil || !took {
			return nil, errors.Join(fmt.Errorf("configure %s: %v", name, vm.Logs), err)
		}
	}
	return f, nil
}

// request sends one request to the filter whose turn it is, on a host that may be anything but honest.
func (f *fuzzer) request(ctx context.Context, seed, number uint64) error {
	name := filters[int(number/2)%len(filters)]
	vm := f.vms[name]
	headers := f.Nasty(seed, number).Request()
	if f.IntN(16) == 0 {
		headers = f.Everywhere(headers)
	}
	vm.Recorded, vm.Logs = make(map[string][]uint64), nil
	f.host(vm.State)
	ctx, cancel := context.WithTimeout(ctx, 10*longest)
	defer cancel()
	from := time.Now()
	reset := false
	if f.IntN(50) == 0 {
		text := f.damage(f.good[name])
		if _, err := vm.Configure(ctx, text); err != nil {
			return fmt.Errorf("%s: %w with the configuration %q", name, err, text)
		}
		reset = true
	}
	honest := vm.Faults == nil && vm.Garble == nil
	o, err := vm.Request(ctx, headers)
	took := time.Since(from)
	f.slowest = max(f.slowest, took)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w with %q", name, err, headers)
	case took > longest:
		return fmt.Errorf("%s took %s for %.2000q", name, took, headers)
	case name == "metrics" && !o.Passed:
		return errors.New("metrics stopped a request")
	case honest && !o.Passed && o.Response == nil:
		return fmt.Errorf("%s neither passed nor answered %.2000q", name, headers)
	case vm.Memory() > mostMemory:
		return fmt.Errorf("%s has taken %d bytes of memory", name, vm.Memory())
	}
	vm.Faults, vm.Garble = nil, nil
	if reset {
		if took, err := vm.Configure(ctx, f.good[name]); err != nil || !took {
			return errors.Join(fmt.Errorf("configure %s again", name), err)
		}
	}
	return nil
}

// host makes the host forgetful, wrong or broken, half of the time.
func (f *fuzzer) host(s *host.State) {
	number := string(binary.LittleEndian.AppendUint64(nil, f.Uint64()))
	s.Properties = map[string]string{"response\x00code": number}
	s.Answer = []host.Headers{nil, {{":status", "200"}, {"server", "x"}}, {{":status", "\xff"}}}[f.IntN(3)]
	name := ""
	for i, values := range [][]string{
		{"shop", "", "\xff", fmt.Sprintf("s%d", f.IntN(100))},
		{"open", "", "r", "\xff"},
		{"p", "-", "", "q", "\xff"},
		{"f", "f,g", "", "a\"b", "\x00"},
	} {
		if i > 0 {
			name += "|"
		}
		if f.IntN(4) > 0 {
			name += values[0]
		} else {
			name += values[f.IntN(len(values))]
		}
	}
	s.Properties["xds\x00route_name"] = name
	switch f.IntN(4) {
	case 0:
		kind, often := host.AllFaults[f.IntN(len(host.AllFaults))], 1+f.IntN(4)
		if kind == host.Huge && f.IntN(50) > 0 {
			kind = host.Fails // 9 MB each time cost too much to have often
		}
		s.Faults = func(string, int) host.Fault {
			if f.IntN(often) == 0 {
				return kind
			}
			return host.NoFault
		}
	case 1:
		s.Garble = func(_ string, b []byte) []byte { return f.damage(b) }
	}
}

// damage changes bytes, cuts, doubles or replaces the whole.
func (f *fuzzer) damage(b []byte) []byte {
	b = append([]byte(nil), b...)
	for range 1 + f.IntN(3) {
		if len(b) == 0 {
			return []byte{byte(f.IntN(256))}
		}
		at := f.IntN(len(b))
		switch f.IntN(6) {
		case 0:
			b[at] ^= 1 << f.IntN(8)
		case 1:
			b[at] = byte(f.IntN(256))
		case 2:
			b = b[:at]
		case 3:
			b = append(b, b[at:]...)
		case 4:
			b = append(b[:at], b[min(len(b), at+1+f.IntN(8)):]...)
		default:
			if len(b) >= 4 {
				binary.LittleEndian.PutUint32(b[min(at, len(b)-4):], f.Uint32()>>f.IntN(32))
			}
		}
	}
	return b
}
