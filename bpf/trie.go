package bpf

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"
)

// nodes are what prefixes4 and prefixes6 hold (maps.h): the first 4,096 for the first 16 bits of an address, then
// a node for 4 bits each.
type nodes []node

type node [16]uint32

const (
	trieRoot   = 4096
	rootBits   = 12 // of an address choose the root node
	trieChild  = 1 << 31
	trieAllow  = 1
	trieDeny   = 2
	triePolicy = 3 // and above: the id + triePolicy
)

// A trie is nodes that can be changed: it knows which prefix said what, and so a change costs what lies below the
// prefix that changed, whatever else is there. At each address the longest prefix of a list decides, and where
// there is none the longest of a policy: two answers are carried down, because a trie cannot be asked for "the
// longest of another kind" at run time. The zero value is empty.
type trie struct {
	nodes    nodes
	shadows  []shadow       // of each node, what the kernel need not know
	short    map[int]answer // prefixes of up to rootBits, by position
	free     []uint32       // nodes that nothing leads to
	prefixes int
	// pending are the nodes that each generation's map has not got as they are now.
	pending [2][]uint32
}

// answer is what a prefix says, or several together: an entry of each kind, 0 for none.
type answer struct{ list, policy uint32 }

// kind chooses one half of an answer.
type kind bool

const (
	ofPolicy kind = false
	ofList   kind = true
)

func (a *answer) of(k kind) *uint32 {
	if k == ofList {
		return &a.list
	}
	return &a.policy
}

// below is a, as a longer prefix that says b changes it.
func (a answer) below(b answer) answer {
	return answer{cmp.Or(b.list, a.list), cmp.Or(b.policy, a.policy)}
}

func (a answer) entry() uint32 { return cmp.Or(a.list, a.policy) }

type shadow struct {
	inherited answer // from the prefixes above
	// prefixes are those that end in this node, by position, and so shorter ones first.
	prefixes []prefix
	parent   uint32
	index    uint8 // of the entry in the parent that leads here
	children uint8
	pending  [2]bool
}

// prefix is one that ends in a node. Its position is that of its last bits in a binary tree that is laid out in levels.
type prefix struct {
	position int
	answer
}

// change makes p say to where it said from; an answer of 0 is none. Where it said something else nothing happens, and
// the result is false.
func (t *trie) change(p netip.Prefix, k kind, from, to uint32) bool {
	if t.nodes == nil {
		t.plant()
	}
	addr, length := p.Addr().AsSlice(), p.Bits()
	top := int(addr[0])<<4 | int(addr[1])>>4
	if length <= rootBits {
		position := 1<<length | top>>(rootBits-length)
		said := t.short[position]
		if !t.say(&said, k, from, to) {
			return false
		}
		if t.short[position] = said; said == (answer{}) {
			delete(t.short, position)
		}
		first := top >> (rootBits - length) << (rootBits - length)
		for i := range 1 << (rootBits - length) {
			t.inherit(uint32(first+i), t.above(first+i))
		}
		return true
	}
	at := uint32(top)
	for depth := rootBits; ; depth += 4 {
		nibble := int(addr[depth/8]) >> (4 - depth%8) & 15
		if length > depth+4 {
			next := t.nodes[at][nibble]
			if next&trieChild == 0 {
				if from != 0 {
					return false
				}
				next = t.grow(at, nibble) | trieChild
			}
			at = next &^ trieChild
			continue
		}
		if !t.changeAt(at, 1<<(length-depth)|nibble>>(depth+4-length), k, from, to) {
			return false
		}
		t.paint(at)
		t.prune(at)
		return true
	}
}

// plant makes the root.
func (t *trie) plant() {
	t.nodes, t.shadows, t.short = make(nodes, trieRoot), make([]shadow, trieRoot), map[int]answer{}
	for i := range uint32(trieRoot) {
		t.touch(i)
	}
}

// say changes what one prefix says.
func (t *trie) say(said *answer, k kind, from, to uint32) bool {
	v := said.of(k)
	if *v != from {
		return false
	}
	was := *said != answer{}
	*v = to
	switch is := *said != (answer{}); {
	case is && !was:
		t.prefixes++
	case was && !is:
		t.prefixes--
	}
	return true
}

// changeAt changes what the prefix at a position of a node says.
func (t *trie) changeAt(at uint32, position int, k kind, from, to uint32) bool {
	s := &t.shadows[at]
	i, found := slices.BinarySearchFunc(s.prefixes, position,
		func(c prefix, p int) int { return cmp.Compare(c.position, p) })
	c := prefix{position: position}
	if found {
		c = s.prefixes[i]
	}
	if !t.say(&c.answer, k, from, to) {
		return false
	}
	switch none := c.answer == (answer{}); {
	case found && none:
		s.prefixes = slices.Delete(s.prefixes, i, i+1)
	case found:
		s.prefixes[i] = c
	case !none:
		s.prefixes = slices.Insert(s.prefixes, i, c)
	}
	return true
}

// above is what the short prefixes say of a root node.
func (t *trie) above(root int) (a answer) {
	for length := range rootBits + 1 {
		a = a.below(t.short[1<<length|root>>(rootBits-length)])
	}
	return a
}

// answers are the answers of a node's entries, those included that lead on to another node.
func (t *trie) answers(at uint32) (out [16]answer) {
	s := &t.shadows[at]
	for i := range out {
		out[i] = s.inherited
	}
	for _, c := range s.prefixes {
		level := bits.Len(uint(c.position)) - 1
		width := 16 >> level
		first := (c.position - 1<<level) * width
		for i := first; i < first+width; i++ {
			out[i] = out[i].below(c.answer)
		}
	}
	return out
}

// paint writes a node's entries anew, and goes on where that changes what is below.
func (t *trie) paint(at uint32) {
	for i, a := range t.answers(at) {
		switch was := t.nodes[at][i]; {
		case was&trieChild != 0:
			t.inherit(was&^trieChild, a)
		case was != a.entry():
			t.nodes[at][i] = a.entry()
			t.touch(at)
		}
	}
}

func (t *trie) inherit(at uint32, a answer) {
	if t.shadows[at].inherited != a {
		t.shadows[at].inherited = a
		t.paint(at)
	}
}

// grow puts a node below an entry.
func (t *trie) grow(parent uint32, index int) uint32 {
	at := uint32(len(t.nodes))
	if n := len(t.free); n > 0 {
		at, t.free = t.free[n-1], t.free[:n-1]
	} else {
		t.nodes, t.shadows = append(t.nodes, node{}), append(t.shadows, shadow{})
	}
	s := &t.shadows[at]
	s.inherited, s.parent, s.index = t.answers(parent)[index], parent, uint8(index)
	for i := range t.nodes[at] {
		t.nodes[at][i] = s.inherited.entry()
	}
	t.touch(at)
	t.nodes[parent][index] = at | trieChild
	t.shadows[parent].children++
	t.touch(parent)
	return at
}

// prune takes away a node in which no prefix ends or goes on, and those above that it was the last of.
func (t *trie) prune(at uint32) {
	for s := &t.shadows[at]; at >= trieRoot && s.children == 0 && len(s.prefixes) == 0; s = &t.shadows[at] {
		t.free = append(t.free, at)
		s.prefixes = nil
		at = s.parent
		t.nodes[at][s.index] = s.inherited.entry()
		t.shadows[at].children--
		t.touch(at)
	}
}

// touch notes that a node has changed.
func (t *trie) touch(at uint32) {
	for gen, pending := range t.shadows[at].pending {
		if !pending {
			t.shadows[at].pending[gen] = true
			t.pending[gen] = append(t.pending[gen], at)
		}
	}
}

// take takes the changed nodes of a generation, in order.
func (t *trie) take(gen uint32) []uint32 {
	out := t.pending[gen]
	t.pending[gen] = nil
	for _, at := range out {
		t.shadows[at].pending[gen] = false
	}
	slices.Sort(out)
	return out
}
