package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
)

// maxDifferences is how many [Program.Differences] lists.
const maxDifferences = 100

// Differences reads the maps that packets see now and says how they differ from a ruleset, each difference a
// sentence; none where the kernel does exactly what the ruleset says.
func (p *Program) Differences(r Ruleset) ([]string, error) {
	if err := r.validateLimits(); err != nil {
		return nil, err
	}
	var n networks // from nothing, so that what Apply keeps is checked too
	if err := n.set(&r); err != nil {
		return nil, err
	}
	want := pack(&r, &n, p.tick)
	p.mu.Lock()
	defer p.mu.Unlock()
	var control xdpControl
	if err := p.coll.Maps[xdpMapControlMap].Lookup(uint32(0), &control); err != nil {
		return nil, fmt.Errorf("read the sequence: %w", err)
	}
	gen := control.Sequence & 1
	placed := p.state[gen]
	if placed == nil {
		return nil, errors.New("what packets see is of an earlier life, and no ruleset was applied since")
	}
	out := []string{}
	for _, family := range []struct {
		outer string
		trie  *ebpf.Map
		want  nodes
		bits  int
	}{{xdpMapPrefixes4, placed.trie4, n.trie4.nodes, 32}, {xdpMapPrefixes6, placed.trie6, n.trie6.nodes, 128}} {
		if family.want == nil {
			continue // the flags say that nobody looks there
		}
		is, err := p.readTrie(family.outer, gen, family.trie)
		if err != nil {
			return nil, err
		}
		out = append(out, family.want.differences(is, family.bits)...)
	}
	for id, policy := range want.policies {
		var is xdpPolicy
		if err := p.coll.Maps[xdpMapPolicyMap].Lookup(gen*MaxPolicies+id, &is); err != nil {
			return nil, fmt.Errorf("read policy %d: %w", id, err)
		}
		if is != policy {
			out = append(out, fmt.Sprintf("policy %d is %+v, not %+v", id, is, policy))
		}
	}
	for i, word := range want.ports {
		var is uint64
		if err := p.coll.Maps[xdpMapAmpPortMap].Lookup(gen*uint32(len(want.ports))+uint32(i), &is); err != nil {
			return nil, fmt.Errorf("read amplification ports: %w", err)
		}
		if is != word {
			out = append(out, fmt.Sprintf("amplification ports from %d are %#x, not %#x", i*64, is, word))
		}
	}
	var is xdpConfig
	if err := p.coll.Maps[xdpMapConfigMap].Lookup(gen, &is); err != nil {
		return nil, fmt.Errorf("read flags: %w", err)
	}
	if is != want.config {
		out = append(out, fmt.Sprintf("flags are %+v, not %+v", is, want.config))
	}
	slices.Sort(out)
	return out[:min(len(out), maxDifferences)], nil
}

// readTrie reads m, which Apply has placed in a map of maps at a generation's index, and sees that it is still there.
// The kernel opens a map by the id that stands there for CAP_SYS_ADMIN alone.
func (p *Program) readTrie(outer string, gen uint32, m *ebpf.Map) (nodes, error) {
	var there ebpf.MapID
	if err := p.coll.Maps[outer].Lookup(gen, &there); err != nil {
		return nil, fmt.Errorf("find the trie of %s: %w", outer, err)
	}
	info, err := m.Info()
	if err != nil {
		return nil, fmt.Errorf("ask for the trie of %s: %w", outer, err)
	}
	if id, ok := info.ID(); !ok || id != there {
		return nil, fmt.Errorf("the trie of %s is map %d, not %d, which was placed there", outer, there, id)
	}
	t := make(nodes, m.MaxEntries())
	var cursor ebpf.MapBatchCursor
	n, err := m.BatchLookup(&cursor, make([]uint32, len(t)), t, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("read the trie of %s: %w", outer, err)
	}
	return t[:n], nil
}

// differences compares the answers of two tries, prefix by prefix.
func (t nodes) differences(is nodes, bits int) []string {
	var out []string
	entry := func(t nodes, e uint32, i int) uint32 {
		if e&trieChild == 0 {
			return e // an answer is the same in all of its prefix
		}
		if node := int(e &^ trieChild); node < len(t) {
			return t[node][i]
		}
		return 0
	}
	var walk func(want, have uint32, addr [16]byte, depth int)
	walk = func(want, have uint32, addr [16]byte, depth int) {
		if (want|have)&trieChild == 0 || depth >= bits {
			if want != have {
				out = append(out, fmt.Sprintf("%s leads to %s, not to %s", prefixOf(addr, depth, bits), entryName(have),
					entryName(want)))
			}
			return
		}
		for i := range 16 {
			if len(out) >= maxDifferences {
				return
			}
			below := addr
			below[depth/8] |= byte(i << (4 - depth%8))
			walk(entry(t, want, i), entry(is, have, i), below, depth+4)
		}
	}
	for root := range uint32(trieRoot) {
		walk(root|trieChild, root|trieChild, [16]byte{byte(root >> 4), byte(root << 4)}, 12)
	}
	return out
}

func prefixOf(addr [16]byte, depth, bits int) netip.Prefix {
	if bits == 32 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(addr[:4])), depth)
	}
	return netip.PrefixFrom(netip.AddrFrom16(addr), depth)
}

// entryName names an entry of a trie.
func entryName(entry uint32) string {
	switch {
	case entry&trieChild != 0:
		return "a node too deep"
	case entry == 0:
		return "the default policy"
	case entry == trieAllow:
		return "the allow list"
	case entry == trieDeny:
		return "the deny list"
	}
	return fmt.Sprintf("policy %d", entry-triePolicy)
}
