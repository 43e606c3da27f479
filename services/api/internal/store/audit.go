package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// AuditRow is one accepted change of one object or token; Revision is 0 for tokens.
type AuditRow struct {
	At                                            time.Time
	Revision                                      int64
	Kind, Name, Action, Actor, RequestID, Message string
}

// AuditFilter narrows the audit; empty fields do not. After is the last row of the page before, nil for
// the first page.
type AuditFilter struct {
	Kind, Name, Actor string
	After             *AuditRow
	Limit             int
}

// Audit reads a page, the newest first.
func (s *Store) Audit(ctx context.Context, f AuditFilter) ([]AuditRow, error) {
	after := AuditRow{At: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}
	if f.After != nil {
		after = *f.After
	}
	rows, err := s.pool.Query(ctx, `SELECT at, revision, kind, name, action, actor, request_id, message FROM (
			SELECT r.at, r.revision, c.kind, c.name,
				CASE WHEN c.before IS NULL THEN 'create' WHEN c.after IS NULL THEN 'delete' ELSE 'update' END AS action,
				r.actor, r.request_id, r.message
			FROM revisions r JOIN changes c USING (revision)
			UNION ALL
			SELECT at, 0, 'Token', name, action, actor, request_id, 'role ' || role FROM token_changes
		) AS entries
		WHERE (at, revision, kind, name) < ($1, $2, $3, $4) AND ($5 = '' OR kind = $5) AND ($6 = '' OR name = $6) AND ($7 = '' OR actor = $7)
		ORDER BY at DESC, revision DESC, kind DESC, name DESC LIMIT $8`,
		after.At, after.Revision, after.Kind, after.Name, f.Kind, f.Name, f.Actor, f.Limit)
	if err != nil {
		return nil, fmt.Errorf("read audit: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[AuditRow])
}
