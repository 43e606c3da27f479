package bpf

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// generation is what user space knows of one of the two.
type generation struct {
	tables *tables // nil: nothing was written yet
	// Maps, so that the next change need not find them by their ids.
	trie4, trie6 *ebpf.Map
}

func (g *generation) close() {
	for _, m := range []*ebpf.Map{g.trie4, g.trie6} {
		if m != nil {
			m.Close()
		}
	}
}

// Apply puts a ruleset in force: whole, for every packet that arrives after Apply returns, or, where it returns
// an error, not at all. What sources have used stays theirs. It costs what differs from the ruleset before: a list
// of the same length in the same memory is taken to be the same, so lists must not be changed after they were given
// to Apply. Applying an unchanged ruleset is safe.
func (p *Program) Apply(ctx context.Context, r Ruleset) error {
	if err := r.validateLimits(); err != nil {
		return errors.Join(err, r.validateNetworks())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.networks.set(&r); err != nil {
		return err
	}
	next := pack(&r, &p.networks, p.tick)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.settled:
	}
	var control xdpControl
	if err := p.coll.Maps[xdpMapControlMap].Lookup(uint32(0), &control); err != nil {
		return fmt.Errorf("read the sequence: %w", err)
	}
	gen := 1 - control.Sequence&1
	if err := p.write(ctx, gen, next); err != nil {
		// Nobody reads this generation, but what it holds is not known any more.
		if g := p.state[gen]; g != nil {
			g.close()
			p.state[gen] = nil
		}
		return err
	}
	control.Sequence++
	if err := p.coll.Maps[xdpMapControlMap].Put(uint32(0), &control); err != nil {
		return fmt.Errorf("switch the generation: %w", err)
	}
	p.current.Store(&r)
	p.settled = make(chan struct{})
	go p.settle(gen, p.state[gen].trie4, p.settled)
	return nil
}

// settle waits until every packet that began before has ended: updates of maps of maps wait for that in the
// kernel (since 4.19), even one that changes nothing. It runs beside the caller, because only the next Apply needs
// it. An error leaves the next Apply to meet the same one.
func (p *Program) settle(gen uint32, trie *ebpf.Map, done chan<- struct{}) {
	defer close(done)
	_ = p.coll.Maps[xdpMapPrefixes4].Put(gen, trie)
}

// write makes the generation gen hold t.
func (p *Program) write(ctx context.Context, gen uint32, t *tables) error {
	g := p.state[gen]
	if g == nil {
		g = &generation{}
		p.state[gen] = g
	}
	old := g.tables
	if old == nil {
		old = &tables{}
	}
	if err := p.writeTrie(ctx, &g.trie4, xdpMapPrefixes4, gen, &p.networks.trie4); err != nil {
		return err
	}
	if err := p.writeTrie(ctx, &g.trie6, xdpMapPrefixes6, gen, &p.networks.trie6); err != nil {
		return err
	}
	for id, policy := range t.policies {
		if before, ok := old.policies[id]; ok && before == policy {
			continue
		}
		if err := p.coll.Maps[xdpMapPolicyMap].Put(gen*MaxPolicies+id, &policy); err != nil {
			return fmt.Errorf("write policy %d: %w", id, err)
		}
	}
	for i, word := range t.ports {
		if g.tables != nil && word == old.ports[i] {
			continue
		}
		if err := p.coll.Maps[xdpMapAmpPortMap].Put(gen*uint32(len(t.ports))+uint32(i), word); err != nil {
			return fmt.Errorf("write amplification ports: %w", err)
		}
	}
	if err := p.coll.Maps[xdpMapConfigMap].Put(gen, &t.config); err != nil {
		return fmt.Errorf("write flags: %w", err)
	}
	g.tables = t
	return nil
}

// chunk is how many nodes of a trie one system call carries.
const chunk = 4096

// writeTrie makes m, which is that of generation gen in outer, hold t; it holds what t was when it was written last. A
// trie that has outgrown its map gets one of at least twice the size, and so few prefixes do not cost the memory of
// many.
func (p *Program) writeTrie(ctx context.Context, m **ebpf.Map, outer string, gen uint32, t *trie) error {
	pending := t.take(gen)
	if *m == nil || int((*m).MaxEntries()) < len(t.nodes) {
		spec := p.spec.Maps[outer].InnerMap.Copy()
		spec.Name = "mp_" + outer
		for int(spec.MaxEntries) < len(t.nodes) {
			spec.MaxEntries *= 2
		}
		fresh, err := ebpf.NewMap(spec)
		if err != nil {
			return fmt.Errorf("make a trie of %d nodes: %w", spec.MaxEntries, err)
		}
		if err := p.coll.Maps[outer].Put(gen, fresh); err != nil {
			return errors.Join(fmt.Errorf("place a trie: %w", err), fresh.Close())
		}
		if *m != nil {
			(*m).Close()
		}
		*m, pending = fresh, pending[:0]
		for i := range t.nodes {
			pending = append(pending, uint32(i))
		}
	}
	values := make([]node, 0, min(chunk, len(pending)))
	for keys := range slices.Chunk(pending, chunk) {
		values = values[:0]
		for _, i := range keys {
			values = append(values, t.nodes[i])
		}
		if _, err := (*m).BatchUpdate(keys, values, nil); err != nil {
			return fmt.Errorf("write prefixes: %w", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}
