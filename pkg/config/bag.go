package config

import "iter"

// bag counts members. Most have one member, for which a map of its own would cost ten times as much, and there are as
// many of them as there are hosts.
type bag[T comparable] struct {
	one  T
	n    int
	more map[T]int // where there are several members; one and n are not used then
}

// with is the bag with a member counted up or down. It may change the old one, which must not be used any more.
func (b bag[T]) with(x T, by int) bag[T] {
	switch {
	case b.more != nil:
		if b.more[x] += by; b.more[x] == 0 {
			delete(b.more, x)
		}
		if len(b.more) == 1 {
			for x, n := range b.more {
				return bag[T]{one: x, n: n}
			}
		}
		return b
	case b.n == 0:
		return bag[T]{one: x, n: by}
	case b.one != x:
		return bag[T]{more: map[T]int{b.one: b.n, x: by}}
	case b.n+by == 0:
		return bag[T]{}
	default:
		b.n += by
		return b
	}
}

func (b bag[T]) len() int {
	if b.more == nil && b.n != 0 {
		return 1
	}
	return len(b.more)
}

// has says whether it has a member.
func (b bag[T]) has(x T) bool {
	if b.more != nil {
		return b.more[x] != 0
	}
	return b.n != 0 && b.one == x
}

// all yields each member once, in no order.
func (b bag[T]) all() iter.Seq[T] {
	return func(yield func(T) bool) {
		if b.more == nil && b.n != 0 {
			yield(b.one)
			return
		}
		for x := range b.more {
			if !yield(x) {
				return
			}
		}
	}
}

// put counts a member of the bag at a key up or down.
func put[K, T comparable](m map[K]bag[T], k K, x T, by int) {
	if b := m[k].with(x, by); b.len() > 0 {
		m[k] = b
	} else {
		delete(m, k)
	}
}
