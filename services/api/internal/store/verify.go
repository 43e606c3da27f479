package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/marchproxy/marchproxy/pkg/audit"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Verified is how far the audit has been verified, and what was found. It begins as the zero value, and one that was
// handed back, also by way of JSON, goes on where it was.
type Verified struct {
	// Last is the last record that fits.
	Last audit.Point
	// Revision is the last one in it.
	Revision int64
	// Records and Entries that fit; Adopted are those records that were not chained when they were written, the last of
	// them at AdoptedAt.
	Records, Entries, Adopted int64
	AdoptedAt                 time.Time
	// Unproven are the records whose signatures need a SECRET_KEY that is not here. What comes later vouches for them:
	// its signature is over them as well.
	Unproven int64
	// FoundN is the record with the hash that was looked for; nil while there is none.
	FoundN *int64
	// Broken is the first record that does not fit; nil where all do so far.
	Broken *Broken
	// Done says that this is the end of the audit. What follows is then known.
	Done bool
	// Unchained are the records that are not chained yet: what an api of the version before has written.
	Unchained int64
	// Known says that a record's key was here.
	Known bool
}

// Broken is a record that does not fit.
type Broken struct {
	N, Revision int64
	At          time.Time
	Reason      string
}

// look notes that the last record has the hash that is looked for.
func (v *Verified) look(hash string) {
	if hash != "" && v.Last.Hash == hash {
		n := v.Last.N
		v.FoundN = &n
	}
}

// errPause ends a verification that goes on later.
var errPause = errors.New("pause")

// Verify goes on with a verification until its end, the first record that does not fit, or a time. It holds one page of
// the chain and one entry. Where it looks for a hash, "" for none, it says which record has it.
func (s *Store) Verify(ctx context.Context, v *Verified, hash string, until time.Time) error {
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{
		IsoLevel:   pgx.RepeatableRead,
		AccessMode: pgx.ReadOnly,
	}, func(tx pgx.Tx) error {
		return s.verify(ctx, tx, v, hash, until)
	})
	if err != nil && !errors.Is(err, errPause) {
		return s.noted(fmt.Errorf("verify the audit: %w", err))
	}
	return nil
}

func (s *Store) verify(ctx context.Context, tx pgx.Tx, v *Verified, hash string, until time.Time) error {
	var a anchor
	if err := a.scan(tx.QueryRow(ctx, selectAnchor)); errors.Is(err, pgx.ErrNoRows) {
		v.Broken = &Broken{N: 1, Reason: "where the audit begins is not stored any more: audit_anchor is empty"}
		return nil
	} else if err != nil {
		return err
	}
	if wrong := a.wrong(s.box); wrong != "" {
		v.Broken = &Broken{N: a.N, Revision: a.Revision, At: a.at, Reason: wrong}
		return nil
	}
	if a.N >= v.Last.N { // retention may have come past what was verified before
		v.Last, v.Revision = audit.Point{N: a.N, Hash: hex.EncodeToString(a.Hash)}, a.Revision
		v.look(hash)
	}
	for {
		some, err := links(ctx, tx, v.Last.N, math.MaxInt64)
		if err != nil {
			return err
		}
		if err := s.verifyPage(ctx, tx, v, some, hash); err != nil || v.Broken != nil {
			return err
		}
		if len(some) < page {
			return s.verifyEnd(ctx, tx, v, a)
		}
		if time.Now().After(until) {
			return errPause
		}
	}
}

// unsigned says what is wrong with a signature.
func unsigned(known bool) string {
	if known {
		return "signed with the SECRET_KEY of the apis: somebody else has written it"
	}
	return "signed with a SECRET_KEY that this api has: if that was an earlier one, give it as well, after a comma; " +
		"otherwise somebody else has written it"
}

func (s *Store) verifyPage(ctx context.Context, tx pgx.Tx, v *Verified, some []link, hash string) error {
	if len(some) == 0 {
		return nil
	}
	high := v.Revision
	for _, l := range some {
		high = max(high, l.revision)
	}
	states, err := statesOf(ctx, tx, v.Revision, high)
	if err != nil {
		return err
	}
	e, err := readEntries(ctx, tx, v.Last.N, some[len(some)-1].n, v.Revision, high)
	if err != nil {
		return err
	}
	defer e.close()
	for _, l := range some {
		previous, err := hex.DecodeString(v.Last.Hash)
		if err != nil {
			return err
		}
		x, sum, err := e.hashed(previous, l)
		if err != nil {
			return err
		}
		reason, n := s.unfit(v, l, x, sum, states), l.n
		if l.n > v.Last.N+1 {
			n = v.Last.N + 1
			reason = fmt.Sprintf("it is not there: the next record in the audit is %d", l.n)
		}
		if reason != "" {
			v.Broken = &Broken{N: n, Revision: l.revision, At: l.at, Reason: reason}
			return nil
		}
		v.Last = audit.Point{N: l.n, Hash: hex.EncodeToString(l.hash)}
		v.Records, v.Entries = v.Records+1, v.Entries+int64(x.entries)
		if l.revision > 0 {
			v.Revision = l.revision
		}
		if l.adopted != nil {
			v.Adopted, v.AdoptedAt = v.Adopted+1, *l.adopted
		}
		v.look(hash)
	}
	return nil
}

// unfit says what is wrong with a record, "" where nothing is.
func (s *Store) unfit(v *Verified, l link, x told, sum []byte, states map[int64]string) string {
	switch {
	case l.revision > 0 && l.adopted == nil && l.revision != v.Revision+1:
		return fmt.Sprintf("its revision is %d, and that before it %d", l.revision, v.Revision)
	case x.odd != nil && x.odd.revision != l.revision:
		return fmt.Sprintf("before it, the audit has %s %s of revision %d, which the chain does not have: it was added",
			x.odd.Kind, x.odd.Name, x.odd.revision)
	case x.odd != nil:
		return fmt.Sprintf("%s %s says another time, actor or reason than the rest of its revision: one of them was changed",
			x.odd.Kind, x.odd.Name)
	case x.entries != int(l.entries):
		return fmt.Sprintf("it had %d entries, and has %d", l.entries, x.entries)
	case !bytes.Equal(sum, l.hash):
		return "its hash is another one than what it says makes: it, or the record before it, was changed"
	case !x.At.Equal(l.at):
		return "the time in the chain was changed"
	case l.state != "" && states[l.revision] != "" && states[l.revision] != l.state:
		return "the configuration's hash in the history was changed"
	}
	signed, known := s.box.Signed(l.key, signsHash, l.hash, l.signature)
	switch {
	case signed:
		v.Known = true
	case known || v.Known:
		return "it is not " + unsigned(known)
	default:
		v.Unproven++
	}
	return ""
}

// statesOf are the digests of the configuration at the revisions that are kept.
func statesOf(ctx context.Context, q querier, after, last int64) (map[int64]string, error) {
	rows, err := q.Query(ctx, `SELECT revision, state FROM revisions WHERE revision > $1 AND revision <= $2`, after, last)
	if err != nil {
		return nil, err
	}
	out := map[int64]string{}
	for rows.Next() {
		var revision int64
		var state map[string]resource.KindState
		if err := rows.Scan(&revision, &state); err != nil {
			rows.Close()
			return nil, err
		}
		out[revision] = resource.Digest(state)
	}
	return out, rows.Err()
}

// verifyEnd looks at what is before the chain and after it.
func (s *Store) verifyEnd(ctx context.Context, tx pgx.Tx, v *Verified, a anchor) error {
	var c chain
	var head int64
	var stray, tokens int64
	err := tx.QueryRow(ctx, `SELECT chain_n, chain_hash, chain_revision, revision,
			(SELECT count(*) FROM audit WHERE revision <= $1 OR revision > h.revision) + (SELECT count(*) FROM revisions WHERE revision <= $1 OR revision > h.revision)
				+ (SELECT count(*) FROM token_changes WHERE n <= $2 OR n > chain_n),
			(SELECT count(*) FROM token_changes WHERE n IS NULL)
		FROM config_head AS h`, a.Revision, a.N).Scan(&c.N, &c.Hash, &c.Revision, &head, &stray, &tokens)
	if err != nil {
		return err
	}
	switch last := hex.EncodeToString(c.Hash); {
	case c.N > v.Last.N:
		v.Broken = &Broken{N: v.Last.N + 1, Reason: fmt.Sprintf("it is not there: the audit's head is record %d, and the "+
			"chain ends before it", c.N)}
	case c.N < v.Last.N || last != v.Last.Hash || c.Revision != v.Revision:
		v.Broken = &Broken{
			N: v.Last.N, Revision: v.Revision,
			Reason: fmt.Sprintf("it is not the audit's head, which is record %d", c.N),
		}
	case stray > 0:
		v.Broken = &Broken{
			N: v.Last.N, Revision: v.Revision,
			Reason: fmt.Sprintf("the audit has %d entries that belong to no record: they were added", stray),
		}
	default:
		v.Done, v.Unchained = true, max(head-c.Revision, 0)+tokens
	}
	return nil
}

// Stretch finds the part of the chain whose records are of a time: after it, and up to another; zero times are none.
func (s *Store) Stretch(ctx context.Context, since, until time.Time) (h audit.Header, err error) {
	var a anchor
	var c chain
	var before, last int64
	err = pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{
		IsoLevel:   pgx.RepeatableRead,
		AccessMode: pgx.ReadOnly,
	}, func(tx pgx.Tx) error {
		if err := a.scan(tx.QueryRow(ctx, selectAnchor)); err != nil {
			return err
		}
		if err := c.scan(tx.QueryRow(ctx, selectChain)); err != nil {
			return err
		}
		before, last = a.N, c.N
		if !since.IsZero() {
			if err := tx.QueryRow(ctx, `SELECT coalesce((SELECT n - 1 FROM audit_chain WHERE at >= $1 ORDER BY n LIMIT 1), $2)`,
				since, c.N).Scan(&before); err != nil {
				return err
			}
		}
		if !until.IsZero() {
			if err := tx.QueryRow(ctx, `SELECT coalesce((SELECT n FROM audit_chain WHERE at < $1 ORDER BY n DESC LIMIT 1), $2)`,
				until, a.N).Scan(&last); err != nil {
				return err
			}
		}
		last = max(last, before)
		h = audit.Header{Format: audit.Format, After: audit.Point{N: before}, Last: audit.Point{N: last}}
		for _, p := range []*audit.Point{&h.After, &h.Last} {
			var hash []byte
			switch p.N {
			case a.N:
				hash = a.Hash
			default:
				if err := tx.QueryRow(ctx, `SELECT hash FROM audit_chain WHERE n = $1`, p.N).Scan(&hash); err != nil {
					return err
				}
			}
			p.Hash = hex.EncodeToString(hash)
		}
		return nil
	})
	if err != nil {
		return h, fmt.Errorf("read the audit: %w", err)
	}
	return h, nil
}

// ErrDeleted says that retention has deleted what was to be read.
var ErrDeleted = errors.New("a part of the audit was deleted by retention while it was read; read it again")

// exportAtOnce is how many entries of the chain are read before they are handed on, unless one record has more.
const exportAtOnce = 5000

// Export writes a part of the chain, a line a record, and flushes each of its pages. It holds one page at a time, and
// no connection while who reads it is slow.
func (s *Store) Export(ctx context.Context, h audit.Header, flush func(lines []byte) error) error {
	revision := int64(-1) // not known yet
	for n := h.After.N; n < h.Last.N; {
		var lines bytes.Buffer
		enc := audit.Encoder{W: &lines}
		err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{
			IsoLevel:   pgx.RepeatableRead,
			AccessMode: pgx.ReadOnly,
		}, func(tx pgx.Tx) (err error) {
			some, err := links(ctx, tx, n, h.Last.N)
			if err != nil {
				return err
			}
			total := 0
			for i, l := range some {
				if total += int(l.entries); i > 0 && total > exportAtOnce {
					some = some[:i]
					break
				}
			}
			var a anchor
			if err := a.scan(tx.QueryRow(ctx, selectAnchor)); err != nil {
				return err
			}
			if a.N > n {
				return ErrDeleted
			}
			if len(some) == 0 { // whoever verifies it finds that the end is missing
				n = h.Last.N
				return nil
			}
			low, high := revision, revision
			for _, l := range some {
				if l.revision > 0 && low < 0 {
					low = l.revision - 1
				}
				high = max(high, l.revision)
			}
			e, err := readEntries(ctx, tx, n, some[len(some)-1].n, low, high)
			if err != nil {
				return err
			}
			defer e.close()
			for _, l := range some {
				if _, err := e.record(l, enc.Begin, enc.Entry); err != nil {
					return err
				}
				enc.End(hex.EncodeToString(l.hash))
				if n = l.n; l.revision > 0 {
					revision = l.revision
				}
			}
			return nil
		})
		if errors.Is(err, ErrDeleted) {
			return err
		}
		if err != nil {
			return s.noted(fmt.Errorf("export the audit: %w", err))
		}
		if err := flush(lines.Bytes()); err != nil {
			return err
		}
	}
	return nil
}
