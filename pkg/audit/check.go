package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Result is what an export holds.
type Result struct {
	// After and Last are where it begins and ends in the chain.
	After Point `json:"after"`
	Last  Point `json:"last"`
	// Records and Entries in it; Adopted are the records that were not chained when they were written.
	Records int64 `json:"records"`
	Entries int64 `json:"entries"`
	Adopted int64 `json:"adopted,omitempty"`
	// From and To are the times of its first record and its last.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Found is the record with the hash that was looked for; absent where there is none.
	Found *int64 `json:"found,omitempty"`
}

// BrokenError is the first line of an export that does not fit.
type BrokenError struct {
	Line int64
	// Record is the one that is wrong or missing, and At its time, where they are known.
	Record int64
	At     string
	Reason string
}

// Error says what is wrong, and where.
func (e *BrokenError) Error() string {
	where := fmt.Sprintf("line %d", e.Line)
	if e.Record > 0 {
		where += fmt.Sprintf(", record %d", e.Record)
	}
	if e.At != "" {
		where += " of " + e.At
	}
	return where + ": " + e.Reason
}

// source notes why a file could not be read on, which a decoder's error does not tell from what is in it.
type source struct {
	io.Reader
	failed error
}

// Read implements [io.Reader].
func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.failed = err
	}
	return n, err
}

// Check reads an export and holds each record's hash against what it says and the record before. Where it looks for a
// hash, "" for none, it says which record has it. It holds one record at a time. seen, if not nil, is called after
// each. What does not fit is a [BrokenError]; another error says that the export could not be read, and nothing of what
// is in it.
func Check(r io.Reader, hash string, seen func(Result)) (Result, error) {
	var out Result
	line := int64(1)
	in := &source{Reader: r}
	broken := func(record int64, at, format string, args ...any) (Result, error) {
		if in.failed != nil {
			return out, fmt.Errorf("read the export after record %d: %w", out.Last.N, in.failed)
		}
		return out, &BrokenError{line, record, at, fmt.Sprintf(format, args...)}
	}
	dec := json.NewDecoder(bufio.NewReaderSize(in, 1<<16))
	dec.DisallowUnknownFields() // the hash would not be over them
	var h Header
	if err := dec.Decode(&h); err != nil || h.Format == 0 {
		return broken(0, "", "this is no export of an audit: its first line has no marchproxy_audit")
	}
	if h.Format != Format {
		return broken(0, "", "the export has format %d, and this program knows %d", h.Format, Format)
	}
	out.After, out.Last = h.After, h.After
	found := func(p Point) {
		if hash != "" && p.Hash == hash {
			out.Found = &p.N
		}
	}
	found(h.After)
	for {
		var l Line
		line++
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return broken(out.Last.N+1, "", "it cannot be read: %v", err)
		}
		if l.N != out.Last.N+1 {
			return broken(out.Last.N+1, "", "it is not there: the line has record %d", l.N)
		}
		if sum := l.Sum(out.Last.Hash); sum != l.Hash {
			return broken(l.N, l.At, "its hash is another one than what it says makes: it, or the record before it, was changed")
		}
		if out.Records == 0 {
			out.From = l.At
		}
		out.To = l.At
		out.Last = Point{l.N, l.Hash}
		out.Records, out.Entries = out.Records+1, out.Entries+int64(len(l.Entries))
		if l.Adopted != "" {
			out.Adopted++
		}
		found(out.Last)
		if seen != nil {
			seen(out)
		}
	}
	if out.Last != h.Last {
		return broken(out.Last.N+1, "", "it is not there: the first line says that the last record is %d, with hash %s",
			h.Last.N, h.Last.Hash)
	}
	return out, nil
}
