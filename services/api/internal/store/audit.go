package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// AuditRow is one accepted change of one object or token; Revision is 0 for tokens.
type AuditRow struct {
	At                                            time.Time
	Revision                                      int64
	Kind, Name, Action, Actor, RequestID, Message string
	// ActorID is the id of the actor's token; "" for the system itself, and for what is older than ids.
	ActorID string
}

// AuditFilter narrows the audit; empty fields do not. After is the last row of the page before, nil for
// the first page.
type AuditFilter struct {
	Kind, Name, Actor string
	After             *AuditRow
	Limit             int
}

// query is the page's statement: of each table a page in the order of its index, and the first of all.
func (f AuditFilter) query() (sql string, args []any) {
	arg := numbered(&args)
	revisions, old, tokens := "true", "true", "true"
	if f.After != nil {
		at, revision, kind, name := arg(f.After.At), arg(f.After.Revision), arg(f.After.Kind), arg(f.After.Name)
		after := ` < (` + strings.Join([]string{at, revision, kind, name}, ", ") + `)`
		// The first comparison says nothing that the second does not; it is for the index.
		revisions = `(r.at, r.revision) <= (` + at + `, ` + revision + `) AND (r.at, r.revision, c.kind, c.name)` + after
		old = `(at, revision, kind, name)` + after
		tokens = `at <= ` + at + ` AND (at, 0, kind, name)` + after
	}
	if f.Actor != "" {
		actor := arg(f.Actor)
		revisions, old, tokens = revisions+` AND r.actor = `+actor, old+` AND actor = `+actor, tokens+` AND actor = `+actor
	}
	if f.Kind != "" {
		kind := arg(f.Kind)
		revisions, old, tokens = revisions+` AND c.kind = `+kind, old+` AND kind = `+kind, tokens+` AND kind = `+kind
	}
	if f.Name != "" {
		name := arg(f.Name)
		revisions, old, tokens = revisions+` AND c.name = `+name, old+` AND name = `+name, tokens+` AND name = `+name
	}
	limit := arg(f.Limit)
	return `SELECT * FROM (
		(SELECT r.at, r.revision, c.kind, c.name,
			` + actionOf + ` AS action,
			r.actor, r.request_id, r.message, r.actor_id
		FROM revisions r JOIN changes c USING (revision) WHERE ` + revisions + `
		ORDER BY r.at DESC, r.revision DESC, c.kind DESC, c.name DESC LIMIT ` + limit + `)
		UNION ALL
		(SELECT at, revision, kind, name, action, actor, request_id, message, actor_id FROM audit WHERE ` + old + `
		ORDER BY at DESC, revision DESC, kind DESC, name DESC LIMIT ` + limit + `)
		UNION ALL
		(SELECT at, 0, kind, name, action, actor, request_id,
			` + messageOrRole + `, actor_id FROM token_changes WHERE ` + tokens + `
		ORDER BY at DESC, kind DESC, name DESC LIMIT ` + limit + `)
	) AS entries ORDER BY at DESC, revision DESC, kind DESC, name DESC LIMIT ` + limit, args
}

// What the audit says of a change and of a token. The chain's hashes are over it: said otherwise, what is stored would
// no longer fit.
const (
	actionOf      = `CASE WHEN c.before IS NULL THEN 'create' WHEN c.after IS NULL THEN 'delete' ELSE 'update' END`
	messageOrRole = `CASE WHEN message = '' THEN 'role ' || role ELSE message END`
)

// Audit reads a page, the newest first.
func (s *Store) Audit(ctx context.Context, f AuditFilter) ([]AuditRow, error) {
	sql, args := f.query()
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("read audit: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[AuditRow])
}
