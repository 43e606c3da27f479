package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TokenRow is a token without its secret.
type TokenRow struct {
	Name, Role string
	CreatedAt  time.Time
}

// ErrTokenExists says that a token has the name already, and ErrLastAdmin that without this one nobody
// could manage tokens any more.
var (
	ErrTokenExists = errors.New("a token of this name exists already; delete it first, or choose another name")
	ErrLastAdmin   = errors.New("this is the last token with the role admin; create another one first")
)

// Token finds a token by the hash of its secret.
func (s *Store) Token(ctx context.Context, sha256 []byte) (name, role string, found bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT name, role FROM tokens WHERE sha256 = $1`, sha256).Scan(&name, &role)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", false, nil
	}
	return name, role, err == nil, err
}

// Tokens lists every token by name.
func (s *Store) Tokens(ctx context.Context) ([]TokenRow, error) {
	rows, err := s.pool.Query(ctx, `SELECT name, role, created_at FROM tokens ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[TokenRow])
}

// Bootstrap stores the first token where there is none; ok says whether it did.
func (s *Store) Bootstrap(ctx context.Context, name, role string, sha256 []byte) (ok bool, err error) {
	tag, err := s.pool.Exec(ctx, `INSERT INTO tokens (name, role, sha256, created_at) SELECT $1, $2, $3, now() WHERE NOT EXISTS (SELECT FROM tokens) ON CONFLICT DO NOTHING`, name, role, sha256)
	if err != nil {
		return false, fmt.Errorf("bootstrap token: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// CreateToken stores a token and its entry in the audit.
func (s *Store) CreateToken(ctx context.Context, t TokenRow, sha256 []byte, actor, requestID string) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO tokens (name, role, sha256, created_at) VALUES ($1, $2, $3, $4)`, t.Name, t.Role, sha256, t.CreatedAt); err != nil {
			return err
		}
		return auditToken(ctx, tx, "create", t.Name, t.Role, actor, requestID)
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "23505" { // unique_violation
		return ErrTokenExists
	}
	if err != nil {
		return fmt.Errorf("create token: %w", err)
	}
	return nil
}

// DeleteToken deletes a token, unless it is the last one of an admin. It works from the next request on.
func (s *Store) DeleteToken(ctx context.Context, name, actor, requestID string) (TokenRow, error) {
	t := TokenRow{Name: name}
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// Two who delete each other's token at the same time must not both succeed.
		if _, err := tx.Exec(ctx, `LOCK TABLE tokens IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		var admins int
		err := tx.QueryRow(ctx, `SELECT role, created_at, (SELECT count(*) FROM tokens WHERE role = 'admin') FROM tokens WHERE name = $1`, name).Scan(&t.Role, &t.CreatedAt, &admins)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return ErrNotFound
		case err != nil:
			return err
		case t.Role == "admin" && admins == 1:
			return ErrLastAdmin
		}
		if _, err := tx.Exec(ctx, `DELETE FROM tokens WHERE name = $1`, name); err != nil {
			return err
		}
		return auditToken(ctx, tx, "delete", name, t.Role, actor, requestID)
	})
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrLastAdmin) {
		err = fmt.Errorf("delete token: %w", err)
	}
	return t, err
}

func auditToken(ctx context.Context, tx pgx.Tx, action, name, role, actor, requestID string) error {
	_, err := tx.Exec(ctx, `INSERT INTO token_changes (at, actor, request_id, action, name, role) VALUES (now(), $1, $2, $3, $4, $5)`, actor, requestID, action, name, role)
	return err
}
