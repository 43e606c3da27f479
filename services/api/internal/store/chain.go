package store

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/marchproxy/marchproxy/pkg/audit"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// chain is where the chain of the audit ends. Who reads it to write the next record holds the head's lock.
type chain struct {
	N    int64
	Hash []byte
	// Revision is the last one in it. It is the head's, unless an api of the version before has written since.
	Revision int64
}

const selectChain = `SELECT chain_n, chain_hash, chain_revision FROM config_head`

func (c *chain) scan(row pgx.Row) error { return row.Scan(&c.N, &c.Hash, &c.Revision) }

// Ends are the newest revision and the last record of the audit, as of one moment.
func (s *Store) Ends(ctx context.Context) (Head, audit.Point, error) {
	var h Head
	var p audit.Point
	err := s.pool.QueryRow(ctx, `SELECT epoch::text, revision, state, chain_n, encode(chain_hash,`+
		` 'hex') FROM config_head`).
		Scan(&h.Epoch, &h.Revision, &h.State, &p.N, &p.Hash)
	if err != nil {
		return h, p, fmt.Errorf("read head: %w", err)
	}
	return h, p, nil
}

// link is a row of audit_chain.
type link struct {
	n, revision int64
	at          time.Time
	entries     int32
	state       string
	adopted     *time.Time
	hash        []byte
	key         string
	signature   []byte
}

const (
	// signsHash and signsAnchor are what signatures are for.
	signsHash   = "audit record"
	signsAnchor = "audit anchor"
)

// next is the record after the chain's end, as far as it is known without its entries.
func (c *chain) next(revision int64, at time.Time, state string) link {
	return link{n: c.N + 1, revision: revision, at: at, state: state}
}

// record is what is hashed, but for the entries.
func (l link) record(r entryRow) audit.Record {
	out := audit.Record{
		N: l.n, Revision: l.revision, At: resource.Time(r.At), Actor: r.Actor, ActorID: r.ActorID,
		RequestID: r.RequestID, Message: r.Message, State: l.state,
	}
	if l.adopted != nil {
		out.Adopted = resource.Time(*l.adopted)
	}
	return out
}

// close signs a link, and makes it the chain's end.
func (s *Store) close(c *chain, l *link, hash []byte, entries int) {
	l.entries, l.hash = int32(entries), hash
	l.key, l.signature = s.box.Sign(signsHash, l.hash)
	c.N, c.Hash = l.n, l.hash
	if l.revision > 0 {
		c.Revision = l.revision
	}
}

// chain makes the links of records.
func (s *Store) chain(c *chain, records []Record) (out []link) {
	for _, r := range records {
		if len(r.Changes) == 0 {
			continue
		}
		l := c.next(r.Revision, r.At, resource.Digest(r.State))
		h := audit.New(hex.EncodeToString(c.Hash),
			l.record(entryRow{At: r.At, Actor: r.Actor, ActorID: r.ActorID, RequestID: r.RequestID, Message: r.Message}))
		for _, x := range slices.SortedFunc(slices.Values(r.Changes),
			func(a, b config.Change) int { return a.Ref().Compare(b.Ref()) }) {
			h.Add(audit.Entry{Kind: x.Ref().Kind, Name: x.Ref().Name, Action: x.Action()})
		}
		s.close(c, &l, h.Sum(), len(r.Changes))
		out = append(out, l)
	}
	return out
}

// insertLinks stores links, whose columns are the first parameters.
const insertLinks = `INSERT INTO audit_chain (n, revision, at, entries, state, adopted, hash, key, signature)
	SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::integer[], $5::text[], $6::timestamptz[], $7::bytea[], $8::text[], $9::bytea[])`

// columnsOf are links as [insertLinks] takes them.
func columnsOf(links []link) []any {
	var n, revisions []int64
	var at []time.Time
	var adopted []*time.Time
	var entries []int32
	var states, keys []string
	var hashes, signatures [][]byte
	for _, l := range links {
		n, revisions, at, adopted = append(n, l.n), append(revisions, l.revision), append(at, l.at),
			append(adopted, l.adopted)
		entries, states, keys = append(entries, l.entries), append(states, l.state), append(keys, l.key)
		hashes, signatures = append(hashes, l.hash), append(signatures, l.signature)
	}
	return []any{n, revisions, at, entries, states, adopted, hashes, keys, signatures}
}

func queueLinks(b *pgx.Batch, links []link) { b.Queue(insertLinks, columnsOf(links)...) }

const updateChain = `UPDATE config_head SET chain_n = $1, chain_hash = $2, chain_revision = $3`

// chainToken stores what was done to a token or a user, and chains it. It waits for the head's lock.
func (s *Store) chainToken(ctx context.Context, tx pgx.Tx, r entryRow, role string) error {
	var c chain
	if err := c.scan(tx.QueryRow(ctx, selectChain+` FOR UPDATE`)); err != nil {
		return err
	}
	l := c.next(0, r.At, "")
	h := audit.New(hex.EncodeToString(c.Hash), l.record(r))
	h.Add(r.Entry)
	s.close(&c, &l, h.Sum(), 1)
	var b pgx.Batch
	b.Queue(`INSERT INTO token_changes (at, actor, actor_id, request_id, action, name, role, message, n, kind) `+
		`VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		r.At, r.Actor, r.ActorID, r.RequestID, r.Action, r.Name, role, r.Message, l.n, r.Kind)
	queueLinks(&b, []link{l})
	b.Queue(updateChain, c.N, c.Hash, c.Revision)
	return tx.SendBatch(ctx, &b).Close()
}

// adoptAtOnce is how many records are chained in one transaction of [Store.Adopt].
const adoptAtOnce = 500

// Adopt chains the records that are not chained: those from before there was a chain, and what an api of the version
// before has written beside this one. Where there are none it waits for nobody.
func (s *Store) Adopt(ctx context.Context) (records int64, err error) {
	for {
		var any bool
		err := s.pool.QueryRow(ctx, `SELECT chain_revision < revision OR EXISTS (SELECT FROM token_changes WHERE n IS `+
			`NULL) FROM config_head`).Scan(&any)
		if err != nil || !any {
			return records, s.noted(wrap("chain the audit", err))
		}
		n := 0
		err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			var c chain
			var head int64
			if err := tx.QueryRow(ctx, `SELECT chain_n, chain_hash, chain_revision, revision FROM config_head FOR UPDATE`).
				Scan(&c.N, &c.Hash, &c.Revision, &head); err != nil {
				return err
			}
			if n, err = s.adopt(ctx, tx, &c, head); err != nil || n == 0 {
				return err
			}
			_, err := tx.Exec(ctx, updateChain, c.N, c.Hash, c.Revision)
			return err
		})
		if err != nil || n == 0 {
			return records, s.noted(wrap("chain the audit", err))
		}
		records += int64(n)
	}
}

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// adopt chains the first records that are not chained, and says how many.
func (s *Store) adopt(ctx context.Context, tx querier, c *chain, head int64) (int, error) {
	type candidate struct {
		revision int64
		at       time.Time
		state    map[string]resource.KindState
		row      string // of token_changes
	}
	rows, err := tx.Query(ctx, `SELECT * FROM (
			(SELECT revision, at, state, '' FROM revisions WHERE revision > $1 AND revision <= $3 ORDER BY revision LIMIT $2)
			UNION ALL
			(SELECT revision, min(at), '{}'::json, '' FROM audit WHERE revision > $1 AND revision <= $3 GROUP BY revision ORDER BY revision LIMIT $2)
			UNION ALL
			(SELECT 0, at, '{}'::json, ctid::text FROM token_changes WHERE n IS NULL ORDER BY at LIMIT $2)
		) AS candidates`, c.Revision, adoptAtOnce, head)
	if err != nil {
		return 0, err
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (x candidate, err error) {
		return x, row.Scan(&x.revision, &x.at, &x.state, &x.row)
	})
	if err != nil || len(all) == 0 {
		return 0, err
	}
	// Revisions in their order, and what was done to tokens before the first revision that is later. The clocks of two
	// apis may differ: a revision counts as not earlier than those before it.
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(a.revision, b.revision) })
	var latest time.Time
	for i := range all {
		if x := &all[i]; x.revision > 0 {
			if x.at.Before(latest) {
				x.at = latest
			}
			latest = x.at
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		return cmp.Or(a.at.Compare(b.at),
			cmp.Compare(a.revision, b.revision))
	})
	all = all[:min(len(all), adoptAtOnce)]
	now := time.Now()
	links := make([]link, 0, len(all))
	var tokens []int64
	var places []string
	high := c.Revision
	for i, x := range all {
		state := ""
		if len(x.state) > 0 {
			state = resource.Digest(x.state)
		}
		links = append(links, link{n: c.N + 1 + int64(i), revision: x.revision, at: x.at, state: state, adopted: &now})
		if x.revision == 0 {
			tokens, places = append(tokens, links[i].n), append(places, x.row)
		}
		high = max(high, x.revision)
	}
	if len(tokens) > 0 {
		if _, err := tx.Exec(
			ctx,
			`UPDATE token_changes t SET n = u.n FROM unnest($1::bigint[], $2::text[]) AS u (n, place) WHERE `+
				`t.ctid = u.place::tid`,
			tokens,
			places,
		); err != nil {
			return 0, err
		}
	}
	r, err := readEntries(ctx, tx, c.N, c.N+int64(len(links)), c.Revision, high)
	if err != nil {
		return 0, err
	}
	defer r.close()
	for i := range links {
		l := &links[i]
		said, sum, err := r.hashed(c.Hash, *l)
		if err != nil {
			return 0, err
		}
		l.at = said.At
		s.close(c, l, sum, said.entries)
	}
	r.close()
	var b pgx.Batch
	queueLinks(&b, links)
	return len(links), tx.SendBatch(ctx, &b).Close()
}
