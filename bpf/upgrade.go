package bpf

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
)

// An upgrade whose maps have another layout begins beside the program in force, which goes on with its own maps
// until the link is moved. A map whose layout stayed is shared by both; of those whose layout did not, the
// configuration is applied anew, and what sources have used is copied where only the size differs.

// outdated are the pins that an earlier life has left of a map, in another layout than this one's.
func (p *Program) outdated(name string) ([]string, error) {
	pins, err := filepath.Glob(filepath.Join(p.opts.PinDir, name+"-????????"))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(pins, func(path string) bool { return path == p.pinPath(name) }), nil
}

// inheritSources copies what sources have used from a map of another size, right before this program takes over.
// What the old program counts in between is lost, and in the sketch all the same.
func (p *Program) inheritSources() error {
	if !p.freshSources {
		return nil
	}
	pins, err := p.outdated(xdpMapRateLimitMap)
	if err != nil {
		return err
	}
	for _, path := range pins {
		if err := p.inheritFrom(path); err != nil {
			return fmt.Errorf("take over the sources of %s: %w", path, err)
		}
	}
	p.freshSources = false
	return nil
}

func (p *Program) inheritFrom(path string) error {
	old, err := ebpf.LoadPinnedMap(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer old.Close()
	like := maps.Clone(p.spec.Maps)
	like[xdpMapRateLimitMap] = like[xdpMapRateLimitMap].Copy()
	like[xdpMapRateLimitMap].MaxEntries = old.MaxEntries()
	if p.pinPathOf(xdpMapRateLimitMap, like) != path {
		return nil // it is not only larger or smaller: nobody knows what it means
	}
	var cursor ebpf.MapBatchCursor
	keys, values := make([][8]byte, 8192), make([]xdpSource, 8192)
	for {
		n, err := old.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		if n > 0 {
			if _, err := p.coll.Maps[xdpMapRateLimitMap].BatchUpdate(keys[:n], values[:n], nil); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// unpinOutdated lets go of maps that nothing uses any more, now that this program has taken over.
func (p *Program) unpinOutdated() error {
	if p.opts.PinDir == "" {
		return nil
	}
	var errs []error
	for _, name := range slices.Concat([]string{seedMap}, configMaps, stateMaps) {
		pins, err := p.outdated(name)
		errs = append(errs, err)
		for _, path := range pins {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
