package bpf

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// lineWords is how many words of the sketch share a cache line (struct line).
const lineWords = 8

// Raised when the meaning of a map of configuration, or of state, changes without its size.
const (
	configLayout = 1
	stateLayout  = 1
)

// Options of [Open]. The zero value is good.
type Options struct {
	// PinDir, a directory on a BPF file system (made if missing), keeps maps and links when the process ends;
	// [FindPinDir] finds one. Empty: everything ends with the process.
	PinDir string
	// SketchWords is the size of the sketch, a power of two; 0 means 32,768 (256 KiB). New sources are refused
	// where all packets together exceed about the limit of one source times half of this: for limits far below
	// 100 packets a second under floods of many million, widen it.
	SketchWords uint32
	// Sources is how many sources near their limit are followed exactly; 0 means 131,072 (about 12 MiB).
	Sources uint32
	// InsertBudget bounds how many of them are added a second and CPU; 0 means 20,000.
	InsertBudget uint32

	layout    int  // more than configLayout, for tests of upgrades
	testing   bool // the test programs too, and injected time
	realClock bool // the kernel's time all the same
}

// Program is the loaded program and its maps. Its methods may be used by several goroutines.
type Program struct {
	opts Options
	tick time.Duration
	coll *ebpf.Collection
	spec *ebpf.CollectionSpec
	prog *ebpf.Program
	// freshSources says that what sources have used is still to be taken from an earlier life's map.
	freshSources bool

	mu       sync.Mutex
	networks networks       // of the ruleset that Apply was given last
	state    [2]*generation // what the maps hold; nil: not known
	settled  chan struct{}  // closed when no CPU can still be using the other generation
	links    map[string]link.Link

	// current is the ruleset in force. It is read without mu, which Apply may hold for many seconds.
	current atomic.Pointer[Ruleset]
}

// configMaps are the maps that hold one configuration; they go together, so that a program of another layout
// never reads half of it. stateMaps hold what sources have used and what was counted; each is kept while its own
// layout stays.
var (
	configMaps = []string{
		xdpMapControlMap, xdpMapConfigMap, xdpMapPolicyMap, xdpMapPrefixes4, xdpMapPrefixes6,
		xdpMapAmpPortMap,
	}
	stateMaps = []string{
		xdpMapSketchMap, xdpMapRateLimitMap, xdpMapRefusedMap, xdpMapBudgetMap, xdpMapStatsMap,
		xdpMapPolicyStatsMap,
	}
)

// Open loads the program and its maps, the pinned ones where they fit. It attaches nothing and, on fresh maps,
// enforces nothing until [Program.Apply].
//
// Errors: [*Error] around [ErrPermission], [ErrNoBTF], [ErrKernel] or [ErrNoBPFFS].
func Open(opts Options) (*Program, error) {
	if opts.SketchWords == 0 {
		opts.SketchWords = 32768
	}
	if opts.Sources == 0 {
		opts.Sources = 131072
	}
	if opts.InsertBudget == 0 {
		opts.InsertBudget = 20000
	}
	if opts.SketchWords < lineWords || opts.SketchWords&(opts.SketchWords-1) != 0 {
		return nil, fmt.Errorf("sketch words: %d is not a power of two from %d", opts.SketchWords, lineWords)
	}
	if err := rlimit.RemoveMemlock(); err != nil { // kernels before 5.11
		return nil, loadError(err)
	}
	spec, err := loadXdp()
	if err != nil {
		return nil, err
	}
	p := &Program{opts: opts, spec: spec, links: map[string]link.Link{}}
	if err := p.prepare(); err != nil {
		return nil, err
	}
	var pinned map[string]*ebpf.Map
	if opts.PinDir != "" {
		pinned, err = p.openPinned()
		if err != nil {
			return nil, err
		}
		defer closeMaps(pinned)
	}
	seed, err := p.seed(pinned)
	if err != nil {
		return nil, err
	}
	if err := spec.Variables[xdpVarSeed].Set(seed); err != nil {
		return nil, err
	}
	delete(pinned, seedMap)
	p.coll, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: pinned})
	if err != nil {
		return nil, loadError(err)
	}
	p.prog = p.coll.Programs[xdpProgMarchproxyXdp]
	p.settled = make(chan struct{})
	close(p.settled)
	if opts.PinDir != "" {
		p.freshSources = pinned[xdpMapRateLimitMap] == nil
		if err := p.pin(pinned); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

// prepare adjusts the specification to the options and this kernel.
func (p *Program) prepare() error {
	if !p.opts.testing {
		for name := range p.spec.Programs {
			if name != xdpProgMarchproxyXdp {
				delete(p.spec.Programs, name)
			}
		}
		delete(p.spec.Maps, xdpMapTestCaseMap)
	}
	p.spec.Maps[xdpMapSketchMap].MaxEntries = p.opts.SketchWords / lineWords
	p.spec.Maps[xdpMapRateLimitMap].MaxEntries = p.opts.Sources

	tick, initial, err := coarseClock()
	if err != nil {
		return err
	}
	p.tick = tick
	return errors.Join(
		p.spec.Variables[xdpVarTickNs].Set(uint64(p.tick)),
		p.spec.Variables[xdpVarInitialJiffies].Set(initial),
		p.spec.Variables[xdpVarSketchMask].Set(p.opts.SketchWords/lineWords-1),
		p.spec.Variables[xdpVarInsertBudget].Set(p.opts.InsertBudget),
		p.spec.Variables[xdpVarTestClock].Set(p.opts.testing && !p.opts.realClock),
	)
}

// seedMap keeps the seed of the sketch's hash beside the sketch.
const seedMap = "seed"

// pinPath is where a map of the present layout is pinned: a map of another layout is never picked up.
func (p *Program) pinPath(name string) string { return p.pinPathOf(name, p.spec.Maps) }

// pinPathOf is where a map is pinned by a program with these maps.
func (p *Program) pinPathOf(name string, maps map[string]*ebpf.MapSpec) string {
	sum := sha256.New()
	group, layout := []string{name}, stateLayout
	if slices.Contains(configMaps, name) {
		group, layout = configMaps, configLayout+p.opts.layout
	}
	for _, n := range group {
		m := maps[n]
		if m == nil { // the seed belongs to its sketch
			m = maps[xdpMapSketchMap]
		}
		fmt.Fprintf(sum, "%d %s %d %d %d %d %d\n", layout, n, m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags)
	}
	return filepath.Join(p.opts.PinDir, name+"-"+hex.EncodeToString(sum.Sum(nil)[:4]))
}

func (p *Program) openPinned() (map[string]*ebpf.Map, error) {
	if err := makePinDir(p.opts.PinDir); err != nil {
		return nil, err
	}
	found := map[string]*ebpf.Map{}
	for _, name := range append(append([]string{seedMap}, configMaps...), stateMaps...) {
		m, err := ebpf.LoadPinnedMap(p.pinPath(name), nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			closeMaps(found)
			return nil, loadError(err)
		}
		found[name] = m
	}
	// Half a group is what a crash in the middle of pin leaves: begin again.
	for _, name := range configMaps {
		if found[name] != nil {
			continue
		}
		for _, other := range configMaps {
			if m := found[other]; m != nil {
				m.Close()
				delete(found, other)
			}
		}
	}
	if found[seedMap] == nil && found[xdpMapSketchMap] != nil {
		found[xdpMapSketchMap].Close()
		delete(found, xdpMapSketchMap)
	}
	return found, nil
}

// seed is the pinned one, or a new one that is pinned now.
func (p *Program) seed(pinned map[string]*ebpf.Map) (uint64, error) {
	var seed uint64
	if m := pinned[seedMap]; m != nil {
		err := m.Lookup(uint32(0), &seed)
		m.Close()
		return seed, err
	}
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, err
	}
	seed = binary.NativeEndian.Uint64(b[:])
	if p.opts.PinDir == "" {
		return seed, nil
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "mp_seed", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return 0, loadError(err)
	}
	defer m.Close()
	if err := m.Put(uint32(0), seed); err != nil {
		return 0, err
	}
	return seed, repin(m, p.pinPath(seedMap))
}

// pin pins what was not pinned yet.
func (p *Program) pin(had map[string]*ebpf.Map) error {
	for _, name := range append(append([]string{}, configMaps...), stateMaps...) {
		if had[name] != nil {
			continue
		}
		if err := repin(p.coll.Maps[name], p.pinPath(name)); err != nil {
			return &Error{Op: "pin", On: p.pinPath(name), Err: err}
		}
	}
	return nil
}

func repin(m *ebpf.Map, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return m.Pin(path)
}

// Close lets go of everything. Pinned maps and links stay in force; without [Options.PinDir] the program is
// detached.
func (p *Program) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	<-p.settled // of the last Apply, which the lock has let end
	var errs []error
	for name, l := range p.links {
		errs = append(errs, l.Close())
		delete(p.links, name)
	}
	for _, g := range p.state {
		if g != nil {
			g.close()
		}
	}
	p.state = [2]*generation{}
	p.coll.Close()
	return errors.Join(errs...)
}

func closeMaps(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		m.Close()
	}
}

// loadError names the cause of a failed load.
func loadError(err error) error {
	e := &Error{Op: "load", Err: err}
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier) && len(lacking()) > 0: // which the verifier meets as pointers that it does not allow
		e.Err = fmt.Errorf("%w: %w", ErrPermission, err)
		e.Hint = permissionHint()
	case errors.As(err, &verifier): // the kernel says EACCES for these too
		e.Err = fmt.Errorf("%w: %w", ErrKernel, err)
		e.Hint = "this kernel's verifier refuses the program; Linux 5.18 or later is needed"
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, os.ErrPermission):
		e.Err = fmt.Errorf("%w: %w", ErrPermission, err)
		e.Hint = permissionHint()
	case errors.Is(err, btf.ErrNotFound) || errors.Is(err, btf.ErrNotSupported):
		e.Err = fmt.Errorf("%w: %w", ErrNoBTF, err)
		e.Hint = "use a kernel built with CONFIG_DEBUG_INFO_BTF"
	case errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL):
		e.Err = fmt.Errorf("%w: %w", ErrKernel, err)
		e.Hint = "Linux 5.18 or later is needed, on " + runtime.GOARCH + " with the BPF JIT"
	}
	return e
}
