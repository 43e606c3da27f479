// Package audit is the chain that the records of the audit make. A record is one accepted write, or one token made or
// deleted; its hash is over what it says and over the hash of the record before it. So whoever knows a later hash knows
// all records before it: one that is changed, taken out, added or moved gives another hash from there on.
package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hash"
	"strconv"
)

// Record is one record, without what it did.
type Record struct {
	// N counts records from 1, without gaps.
	N int64 `json:"n"`
	// At is when it happened, as resource.Time writes it.
	At string `json:"at"`
	// Revision that it made; 0 for tokens.
	Revision int64  `json:"revision"`
	Actor    string `json:"actor"`
	// ActorID is the id of the actor's token.
	ActorID   string `json:"actor_id,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	Message   string `json:"message,omitempty"`
	// State is the digest of the configuration that the revision made, as resource.Digest has it; "" where it was not
	// known any more when the record was chained.
	State string `json:"state,omitempty"`
	// Adopted is when the record was chained, where that was not when it was written: what is older than the chain,
	// and what an api wrote that knows no chain. "" otherwise.
	Adopted string `json:"adopted,omitempty"`
}

// Entry is what a record did to one object or token.
type Entry struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Action is create, update or delete.
	Action string `json:"action"`
}

// Line is a record as an export has it, and with it all that its hash is made of but the hash before.
type Line struct {
	Record
	// Entries are in the order of their kinds and names, by bytes.
	Entries []Entry `json:"entries"`
	// Hash is 64 hexadecimal digits.
	Hash string `json:"hash"`
}

// Sum is the line's hash after a record with the hash that is given; "" before the first.
func (l Line) Sum(previous string) string {
	h := New(previous, l.Record)
	for _, e := range l.Entries {
		h.Add(e)
	}
	return hex.EncodeToString(h.Sum())
}

// Format is the number of the way in which exports are written.
const Format = 1

// Header is the first line of an export.
type Header struct {
	// Format is [Format].
	Format int `json:"marchproxy_audit"`
	// After is the record before the first line: the zero Point where the chain begins with it.
	After Point `json:"after"`
	// Last is the last line's record; After where there are no lines.
	Last Point `json:"last"`
}

// Point is a place in the chain.
type Point struct {
	N int64 `json:"n"`
	// Hash is 64 hexadecimal digits; "" before the first record.
	Hash string `json:"hash"`
}

// Hasher makes a record's hash, one entry after another, so that a write of many objects need not be in memory at once.
type Hasher struct {
	h   hash.Hash
	buf []byte
}

// New begins a record's hash.
func New(previous string, r Record) *Hasher {
	h := &Hasher{h: sha256.New()}
	h.write("marchproxy audit v1", previous, strconv.FormatInt(r.N, 10), r.At, strconv.FormatInt(r.Revision, 10),
		r.Actor, r.ActorID, r.RequestID, r.Message, r.State, r.Adopted)
	return h
}

// Add adds what it did to one object.
func (h *Hasher) Add(e Entry) { h.write(e.Kind, e.Name, e.Action) }

// Sum ends it.
func (h *Hasher) Sum() []byte { return h.h.Sum(nil) }

// write writes netstrings: with its length before each, no two lists of texts are the same bytes.
func (h *Hasher) write(texts ...string) {
	h.buf = h.buf[:0]
	for _, s := range texts {
		h.buf = strconv.AppendInt(h.buf, int64(len(s)), 10)
		h.buf = append(h.buf, ':')
		h.buf = append(h.buf, s...)
		h.buf = append(h.buf, ',')
	}
	h.h.Write(h.buf)
}

// Encoder writes a record's line, one entry after another. What it writes to must not fail.
type Encoder struct {
	W interface{ Write(p []byte) (int, error) }

	more bool
}

// Begin begins a line.
func (e *Encoder) Begin(r Record) {
	raw := encode(r)
	e.write(raw[:len(raw)-1]) // without the brace
	e.write([]byte(`,"entries":[`))
	e.more = false
}

// Entry adds an entry.
func (e *Encoder) Entry(x Entry) {
	if e.more {
		e.write([]byte(","))
	}
	e.more = true
	e.write(encode(x))
}

// End ends the line.
func (e *Encoder) End(hash string) { e.write([]byte(`],"hash":"` + hash + "\"}\n")) }

func (e *Encoder) write(p []byte) { _, _ = e.W.Write(p) }

func encode(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // structs of plain fields only
	}
	return raw
}
