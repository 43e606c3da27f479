package bpf

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// generation is what user space knows of one of the two.
type generation struct {
	tables         *tables
	trie4, trie6   *ebpf.Map
	portsUnchecked bool
}

func (g *generation) close() {
	for _, m := range []*ebpf.Map{g.trie4, g.trie6} {
		if m != nil {
			m.Close()
		}
	}
}

// Apply puts a ruleset in force: whole, for every packet that arrives after Apply returns, or, where it returns
// an error, not at all. What sources have used stays theirs; a ruleset that differs little from the one before the
// last costs little. Applying an unchanged ruleset is safe.
func (p *Program) Apply(ctx context.Context, r Ruleset) error {
	if err := r.Validate(); err != nil {
		return err
	}
	next := resolve(&r, p.tick)
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.settled:
	}
	var control xdpControl
	if err := p.coll.Maps[xdpMapControlMap].Lookup(uint32(0), &control); err != nil {
		return fmt.Errorf("read the generation: %w", err)
	}
	slot := 1 - control.Generation&1
	if err := p.write(ctx, slot, next); err != nil {
		// Nobody reads this slot, but what it holds is not known any more.
		if g := p.state[slot]; g != nil {
			g.close()
			p.state[slot] = nil
		}
		return err
	}
	control.Generation = slot
	if err := p.coll.Maps[xdpMapControlMap].Put(uint32(0), &control); err != nil {
		return fmt.Errorf("switch the generation: %w", err)
	}
	p.current = &r
	p.settled = make(chan struct{})
	go p.settle(slot, p.state[slot].trie4, p.settled)
	return nil
}

// settle waits until every packet that began before has ended: updates of maps of maps wait for that in the
// kernel (since 4.19), even one that changes nothing. It runs beside the caller, because only the next Apply needs
// it. An error leaves the next Apply to meet the same one.
func (p *Program) settle(slot uint32, trie *ebpf.Map, done chan<- struct{}) {
	defer close(done)
	_ = p.coll.Maps[xdpMapPrefixes4].Put(slot, trie)
}

// write makes slot hold t.
func (p *Program) write(ctx context.Context, slot uint32, t *tables) error {
	g := p.state[slot]
	if g == nil {
		g = &generation{tables: &tables{}}
		var err error
		if g.trie4, err = p.freshTrie(xdpMapPrefixes4, slot); err != nil {
			return err
		}
		p.state[slot] = g
		if g.trie6, err = p.freshTrie(xdpMapPrefixes6, slot); err != nil {
			return err
		}
		g.portsUnchecked = true
	}
	if err := errors.Join(
		update(ctx, g.trie4, g.tables.prefixes4, t.prefixes4),
		update(ctx, g.trie6, g.tables.prefixes6, t.prefixes6),
	); err != nil {
		return fmt.Errorf("write prefixes: %w", err)
	}
	for id, policy := range t.policies {
		if old, ok := g.tables.policies[id]; ok && old == policy {
			continue
		}
		if err := p.coll.Maps[xdpMapPolicyMap].Put(slot*MaxPolicies+id, &policy); err != nil {
			return fmt.Errorf("write policy %d: %w", id, err)
		}
	}
	for i, word := range t.ports {
		if !g.portsUnchecked && word == g.tables.ports[i] {
			continue
		}
		if err := p.coll.Maps[xdpMapAmpPortMap].Put(slot*uint32(len(t.ports))+uint32(i), word); err != nil {
			return fmt.Errorf("write amplification ports: %w", err)
		}
	}
	g.portsUnchecked = false
	if err := p.coll.Maps[xdpMapConfigMap].Put(slot, &t.config); err != nil {
		return fmt.Errorf("write flags: %w", err)
	}
	g.tables = t
	return nil
}

// freshTrie puts an empty trie into slot. The kernel frees the one before in the background.
func (p *Program) freshTrie(outer string, slot uint32) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(innerSpec(p.spec, outer))
	if err != nil {
		return nil, fmt.Errorf("make a trie: %w", err)
	}
	if err := p.coll.Maps[outer].Put(slot, m); err != nil {
		m.Close()
		return nil, fmt.Errorf("place a trie: %w", err)
	}
	return m, nil
}

func innerSpec(spec *ebpf.CollectionSpec, outer string) *ebpf.MapSpec {
	s := spec.Maps[outer].InnerMap.Copy()
	s.Name = "mp_" + outer
	return s
}

// chunk is how many prefixes one system call carries.
const chunk = 4096

// update turns what m holds, have, into want.
func update[K comparable](ctx context.Context, m *ebpf.Map, have, want map[K]uint32) error {
	var gone, keys []K
	var values []uint32
	for k := range have {
		if _, ok := want[k]; !ok {
			gone = append(gone, k)
		}
	}
	for k, v := range want {
		if old, ok := have[k]; !ok || old != v {
			keys, values = append(keys, k), append(values, v)
		}
	}
	for len(gone) > 0 {
		n := min(chunk, len(gone))
		if _, err := m.BatchDelete(gone[:n], nil); err != nil {
			return errors.Join(err, ctx.Err())
		}
		gone = gone[n:]
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	for len(keys) > 0 {
		n := min(chunk, len(keys))
		if _, err := m.BatchUpdate(keys[:n], values[:n], nil); err != nil {
			return errors.Join(err, ctx.Err())
		}
		keys, values = keys[n:], values[n:]
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}
