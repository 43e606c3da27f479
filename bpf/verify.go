package bpf

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// maxDifferences is how many [Program.Differences] lists.
const maxDifferences = 100

// Differences reads the maps that packets see now and says how they differ from a ruleset, each difference a
// sentence; none where the kernel does exactly what the ruleset says.
func (p *Program) Differences(r Ruleset) ([]string, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	want := resolve(&r, p.tick)
	p.mu.Lock()
	defer p.mu.Unlock()
	var control xdpControl
	if err := p.coll.Maps[xdpMapControlMap].Lookup(uint32(0), &control); err != nil {
		return nil, fmt.Errorf("read the generation: %w", err)
	}
	slot := control.Generation & 1
	out := []string{}
	for _, family := range []struct {
		outer   string
		compare func(*ebpf.Map) ([]string, error)
	}{
		{xdpMapPrefixes4, func(m *ebpf.Map) ([]string, error) { return differ(m, want.prefixes4) }},
		{xdpMapPrefixes6, func(m *ebpf.Map) ([]string, error) { return differ(m, want.prefixes6) }},
	} {
		trie, err := p.innerMap(family.outer, slot)
		if err != nil {
			return nil, err
		}
		found, err := family.compare(trie)
		trie.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", family.outer, err)
		}
		out = append(out, found...)
	}
	for id, policy := range want.policies {
		var is xdpPolicy
		if err := p.coll.Maps[xdpMapPolicyMap].Lookup(slot*MaxPolicies+id, &is); err != nil {
			return nil, fmt.Errorf("read policy %d: %w", id, err)
		}
		if is != policy {
			out = append(out, fmt.Sprintf("policy %d is %+v, not %+v", id, is, policy))
		}
	}
	for i, word := range want.ports {
		var is uint64
		if err := p.coll.Maps[xdpMapAmpPortMap].Lookup(slot*uint32(len(want.ports))+uint32(i), &is); err != nil {
			return nil, fmt.Errorf("read amplification ports: %w", err)
		}
		if is != word {
			out = append(out, fmt.Sprintf("amplification ports from %d are %#x, not %#x", i*64, is, word))
		}
	}
	var is xdpConfig
	if err := p.coll.Maps[xdpMapConfigMap].Lookup(slot, &is); err != nil {
		return nil, fmt.Errorf("read flags: %w", err)
	}
	if is != want.config {
		out = append(out, fmt.Sprintf("flags are %+v, not %+v", is, want.config))
	}
	slices.Sort(out)
	return out[:min(len(out), maxDifferences)], nil
}

// innerMap opens the trie that a slot of a map of maps points to.
func (p *Program) innerMap(outer string, slot uint32) (*ebpf.Map, error) {
	var id ebpf.MapID
	if err := p.coll.Maps[outer].Lookup(slot, &id); err != nil {
		return nil, fmt.Errorf("find the trie of %s: %w", outer, err)
	}
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return nil, fmt.Errorf("open the trie of %s: %w", outer, err)
	}
	return m, nil
}

// differ compares a trie with what it should hold. Keys are shown as the trie has them: length and address.
func differ[K key4 | key6](m *ebpf.Map, want map[K]uint32) ([]string, error) {
	var out []string
	var key K
	var value uint32
	seen := 0
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		v, ok := want[key]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("prefix %x is there and should not be", key))
		case v != value:
			out = append(out, fmt.Sprintf("prefix %x leads to %#x, not %#x", key, value, v))
			seen++
		default:
			seen++
		}
	}
	if missing := len(want) - seen; missing > 0 {
		out = append(out, fmt.Sprintf("%d of %d prefixes are missing", missing, len(want)))
	}
	return out, entries.Err()
}
