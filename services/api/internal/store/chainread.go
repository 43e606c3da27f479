package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/marchproxy/marchproxy/pkg/audit"
	"github.com/marchproxy/marchproxy/pkg/seal"
)

// querier is a connection, a transaction or a pool.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// entryRow is an entry of the audit, with what it has in common with the others of its record.
type entryRow struct {
	n, revision                        int64
	At                                 time.Time
	Actor, ActorID, RequestID, Message string
	audit.Entry
}

func (e *entryRow) scan(rows pgx.Rows) error {
	return rows.Scan(&e.n, &e.revision, &e.At, &e.Actor, &e.ActorID, &e.RequestID, &e.Message, &e.Kind, &e.Name, &e.Action)
}

// entries reads what a stretch of the chain says, a record after another, and holds one entry at a time.
type entries struct {
	rows   pgx.Rows
	next   *entryRow // nil at the end
	tokens map[int64]entryRow
}

// readEntries reads the records after n until a later one, whose revisions are those after one until another one. They
// are read as of one moment only within a transaction that sees one.
func readEntries(ctx context.Context, q querier, n, lastN, revision, lastRevision int64) (*entries, error) {
	e := &entries{tokens: map[int64]entryRow{}}
	rows, err := q.Query(ctx, `SELECT n, 0, at, actor, actor_id, request_id, `+messageOrRole+`, kind, name, action
		FROM token_changes WHERE n > $1 AND n <= $2`, n, lastN)
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		var r entryRow
		if err := r.scan(rows); err != nil {
			rows.Close()
			return nil, err
		}
		e.tokens[r.n] = r
	}
	if rows.Err() != nil {
		return nil, rows.Err()
	}
	e.rows, err = q.Query(ctx, `SELECT 0, * FROM (
			SELECT r.revision, r.at, r.actor, r.actor_id, r.request_id, r.message, c.kind, c.name,
				`+actionOf+`
			FROM revisions r JOIN changes c USING (revision) WHERE r.revision > $1 AND r.revision <= $2
			UNION ALL
			SELECT revision, at, actor, actor_id, request_id, message, kind, name, action FROM audit WHERE revision > $1 AND revision <= $2
		) AS e ORDER BY revision, kind COLLATE "C", name COLLATE "C"`, revision, lastRevision)
	if err != nil {
		return nil, err
	}
	return e, e.read()
}

func (e *entries) close() { e.rows.Close() }

func (e *entries) read() error {
	e.next = nil
	if e.rows.Next() {
		e.next = &entryRow{}
		return e.next.scan(e.rows)
	}
	return e.rows.Err()
}

// told is what the entries of a record say.
type told struct {
	// entryRow is the first one; without any, it has a time alone.
	entryRow
	entries int
	// odd is an entry that says otherwise what it should have in common with the first one, or one of a revision of
	// which the chain has nothing.
	odd *entryRow
}

// hashed reads what the next record says, with its hash after the hash before.
func (e *entries) hashed(previous []byte, l link) (told, []byte, error) {
	var h *audit.Hasher
	out, err := e.record(l, func(r audit.Record) { h = audit.New(hex.EncodeToString(previous), r) },
		func(x audit.Entry) { h.Add(x) })
	if err != nil {
		return out, nil, err
	}
	return out, h.Sum(), nil
}

// record reads what the next record says. begin is called first, and each with every one of its entries.
func (e *entries) record(l link, begin func(audit.Record), each func(audit.Entry)) (told, error) {
	out := told{entryRow: entryRow{At: l.at}}
	take := func(r entryRow) {
		if out.entries == 0 {
			out.entryRow = r
			begin(l.record(r))
		}
		common := out.entryRow
		common.Entry = r.Entry
		if common != r && out.odd == nil {
			out.odd = &r
		}
		out.entries++
		each(r.Entry)
	}
	if l.revision == 0 {
		if r, there := e.tokens[l.n]; there {
			take(r)
		}
	}
	for l.revision > 0 && e.next != nil && e.next.revision <= l.revision {
		r := *e.next
		if err := e.read(); err != nil {
			return out, err
		}
		if r.revision < l.revision {
			if out.odd == nil {
				out.odd = &r
			}
			continue
		}
		take(r)
	}
	if out.entries == 0 {
		begin(l.record(out.entryRow))
	}
	return out, nil
}

const selectLink = `SELECT n, revision, at, entries, state, adopted, hash, key, signature FROM audit_chain`

func scanLink(row pgx.CollectableRow) (l link, err error) {
	err = row.Scan(&l.n, &l.revision, &l.at, &l.entries, &l.state, &l.adopted, &l.hash, &l.key, &l.signature)
	return l, err
}

// page is how many records are read in one statement.
const page = 500

// links reads the next page of the chain after a record, until another one.
func links(ctx context.Context, q querier, after, last int64) ([]link, error) {
	rows, err := q.Query(ctx, selectLink+` WHERE n > $1 AND n <= $2 ORDER BY n LIMIT $3`, after, last, page)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanLink)
}

// anchor is where the chain begins: the record that retention has deleted last.
type anchor struct {
	chain
	at, deletedAt time.Time
	keep, key     string
	signature     []byte
}

const selectAnchor = `SELECT n, revision, hash, at, deleted_at, keep, key, signature FROM audit_anchor`

func (a *anchor) scan(row pgx.Row) error {
	return row.Scan(&a.N, &a.Revision, &a.Hash, &a.at, &a.deletedAt, &a.keep, &a.key, &a.signature)
}

// signs is what the anchor's signature is over.
func (a *anchor) signs() []byte {
	return fmt.Appendf(nil, "%d %d %x %d %d %s", a.N, a.Revision, a.Hash, a.at.UnixMicro(),
		a.deletedAt.UnixMicro(), a.keep)
}

// wrong says what is wrong with the anchor; "" where nothing is.
func (a *anchor) wrong(box *seal.Box) string {
	if a.N == 0 {
		return ""
	}
	if signed, known := box.Signed(a.key, signsAnchor, a.signs(), a.signature); !signed {
		return "that retention has deleted the audit up to record " + strconv.FormatInt(a.N, 10) + " is not " +
			unsigned(known)
	}
	return ""
}
