package bpf

import "net/netip"

// A trie is what prefixes4 and prefixes6 hold (maps.h): the first 4,096 nodes for the first 16 bits of an address,
// then a node for 4 bits each.
type trie []node

type node [16]uint32

const (
	trieRoot   = 4096
	trieChild  = 1 << 31
	trieAllow  = 1
	trieDeny   = 2
	triePolicy = 3 // and above: the id + triePolicy
)

// insert makes v the answer below p. Shorter prefixes must come before longer ones inside of them.
func (t *trie) insert(p netip.Prefix, v uint32) {
	if *t == nil {
		*t = make(trie, trieRoot)
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
