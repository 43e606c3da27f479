// Package resource is the resource model: the kinds, the envelope that every one of them travels in,
// strict decoding with a JSON path for each violation, and what is said of a revision: the hash of its state, its
// commit, and the update that a consumer is handed.
//
// The same bytes are the row in PostgreSQL, the event's payload and the input of the hash, so an
// [Object]'s payload is made once, by [Object.Payload], and never re-encoded on the way.
package resource
