package resource

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
)

// Hash is an order-independent sum of digests, so that adding and removing an object costs the same
// whatever the size of the state. The zero value is the hash of nothing.
type Hash [4]uint64

// Sum is one object's share: SHA-256 over kind, name, revision and payload, the first three ended by a
// zero byte.
func Sum(o *Object) Hash { return SumOf(o.Ref(), o.Revision, o.Payload()) }

// SumOf is [Sum] of a payload that has not been parsed.
func SumOf(r Ref, revision int64, payload []byte) Hash {
	h := sha256.New()
	h.Write([]byte(r.Kind + "\x00" + r.Name + "\x00" + strconv.FormatInt(revision, 10) + "\x00"))
	h.Write(payload)
	var d [sha256.Size]byte
	h.Sum(d[:0])
	var s Hash
	for i := range s {
		s[i] = binary.BigEndian.Uint64(d[i*8:])
	}
	return s
}

// Add returns h with s in it, Sub h without it.
func (h Hash) Add(s Hash) Hash {
	for i := range h {
		h[i] += s[i]
	}
	return h
}

// Sub undoes [Hash.Add].
func (h Hash) Sub(s Hash) Hash {
	for i := range h {
		h[i] -= s[i]
	}
	return h
}

// String is 64 hexadecimal digits.
func (h Hash) String() string {
	var b [32]byte
	for i, v := range h {
		binary.BigEndian.PutUint64(b[i*8:], v)
	}
	return hex.EncodeToString(b[:])
}

// KindState is the count and hash of one kind, as a commit carries it.
type KindState struct {
	Count int64  `json:"count"`
	Hash  string `json:"hash"`
}

// Tally is the count of each kind's objects and the sum of their shares: what a [KindState] is made of.
type Tally map[string]Total

// Total is one kind's part of a [Tally].
type Total struct {
	Count int64
	Hash  Hash
}

// Add counts an object by its share of the hash.
func (t Tally) Add(kind string, share Hash) {
	t[kind] = Total{t[kind].Count + 1, t[kind].Hash.Add(share)}
}

// Sub undoes [Tally.Add].
func (t Tally) Sub(kind string, share Hash) {
	t[kind] = Total{t[kind].Count - 1, t[kind].Hash.Sub(share)}
}

// Of is the state of one kind, the zero one where there is no object of it.
func (t Tally) Of(kind string) KindState {
	if t[kind].Count == 0 {
		return KindState{}
	}
	return KindState{Count: t[kind].Count, Hash: t[kind].Hash.String()}
}

// State is that of each kind that has objects.
func (t Tally) State() map[string]KindState {
	out := map[string]KindState{}
	for kind, total := range t {
		if total.Count > 0 {
			out[kind] = t.Of(kind)
		}
	}
	return out
}

// Digest names a state in few letters: the first 16 bytes, in hexadecimal, of SHA-256 over a line "KIND COUNT HASH\n"
// of each kind that has objects, in the order of the kinds' names.
func Digest(state map[string]KindState) string {
	h := sha256.New()
	for _, kind := range slices.Sorted(maps.Keys(state)) {
		if k := state[kind]; k.Count > 0 {
			h.Write([]byte(kind + " " + strconv.FormatInt(k.Count, 10) + " " + k.Hash + "\n"))
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
