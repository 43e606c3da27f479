package bpf

import (
	"cmp"
	"net/netip"
	"slices"
)

// reference resolves a ruleset from nothing, by sorting: what [networks] does by steps must be equal to it.
func reference(r *Ruleset) (trie4, trie6 nodes) {
	resolvePrefixes(r, func(p netip.Prefix, v uint32) {
		if p.Addr().Is4() {
			trie4.insert(p, v)
		} else {
			trie6.insert(p, v)
		}
	})
	return trie4, trie6
}

// insert makes v the answer below p. Shorter prefixes must come before longer ones inside of them.
func (t *nodes) insert(p netip.Prefix, v uint32) {
	if *t == nil {
		*t = make(nodes, trieRoot)
	}
	addr := p.Addr().AsSlice()
	// Bits up to 12 select a root node; a shorter prefix fills several.
	at, bits := int(addr[0])<<4|int(addr[1])>>4, p.Bits()
	if bits < 12 {
		for i := range 1 << (12 - bits) {
			for j := range 16 {
				(*t)[at+i][j] = v
			}
		}
		return
	}
	for depth := 12; ; depth += 4 {
		nibble := int(addr[depth/8]) >> (4 - depth%8) & 15
		if bits <= depth+4 {
			for i := range 1 << (depth + 4 - bits) {
				(*t)[at][nibble+i] = v
			}
			return
		}
		entry := (*t)[at][nibble]
		if entry&trieChild == 0 {
			// What covers the new node answers in all of it.
			var child node
			for i := range child {
				child[i] = entry
			}
			entry = uint32(len(*t)) | trieChild
			*t = append(*t, child)
			(*t)[at][nibble] = entry
		}
		at = int(entry &^ trieChild)
	}
}

// resolvePrefixes makes one table of lists and policies: at each prefix, what the longest list entry that
// covers it says, else its policy; shorter prefixes first. A trie cannot answer "the longest of another kind" at run
// time.
func resolvePrefixes(r *Ruleset, emit func(netip.Prefix, uint32)) {
	const none = uint64(1) << 32
	type node struct {
		netip.Prefix
		list, policy uint64
	}
	at := map[netip.Prefix]*node{}
	get := func(p netip.Prefix) *node {
		p = p.Masked()
		if at[p] == nil {
			at[p] = &node{p, none, none}
		}
		return at[p]
	}
	for _, p := range r.Policies {
		for _, c := range p.CIDRs {
			get(c).policy = uint64(p.ID) + triePolicy
		}
	}
	for _, p := range r.Allow {
		get(p).list = trieAllow
	}
	for _, p := range r.Deny {
		get(p).list = trieDeny
	}
	sorted := make([]*node, 0, len(at))
	for _, n := range at {
		sorted = append(sorted, n)
	}
	slices.SortFunc(sorted, func(a, b *node) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var above []*node // the chain of prefixes that cover the current one
	for _, n := range sorted {
		for len(above) > 0 && !above[len(above)-1].Contains(n.Addr()) {
			above = above[:len(above)-1]
		}
		if len(above) > 0 {
			parent := above[len(above)-1]
			if n.list == none {
				n.list = parent.list
			}
			if n.policy == none {
				n.policy = parent.policy
			}
		}
		above = append(above, n)
		if n.list != none {
			emit(n.Prefix, uint32(n.list))
		} else {
			emit(n.Prefix, uint32(n.policy))
		}
	}
}
