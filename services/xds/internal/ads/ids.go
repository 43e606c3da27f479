package ads

import "math/bits"

// ids is a set of small numbers: those of a gateway's entries. 10,000 of them take 1,250 bytes.
type ids []uint64

func (b ids) has(i int) bool { return i>>6 < len(b) && b[i>>6]&(1<<(i&63)) != 0 }

func (b *ids) set(i int) {
	if n := i>>6 + 1; n > len(*b) {
		*b = append(*b, make([]uint64, n-len(*b))...)
	}
	(*b)[i>>6] |= 1 << (i & 63)
}

func (b ids) clear(i int) {
	if i>>6 < len(b) {
		b[i>>6] &^= 1 << (i & 63)
	}
}

func (b ids) all(yield func(int) bool) {
	for w, word := range b {
		for ; word != 0; word &= word - 1 {
			if !yield(w<<6 + bits.TrailingZeros64(word)) {
				return
			}
		}
	}
}
