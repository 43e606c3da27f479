package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/marchproxy/marchproxy/pkg/audit"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
)

// TokenRow is a token without its secret.
type TokenRow struct {
	auth.Token
	CreatedAt time.Time
	// LastUsedAt is zero where it was never used.
	LastUsedAt time.Time
}

// By is who changes tokens, and in which request.
type By struct {
	Who       auth.Identity
	RequestID string
}

// ErrTokenExists says that a token has the name already, and ErrLastAdmin that without this one nobody
// could manage tokens any more.
var (
	ErrTokenExists = errors.New("a token of this name exists already; delete it first, or choose another name")
	ErrLastAdmin   = errors.New("this is the last token with the role admin that does not end; create another one first")
)

const selectRow = `SELECT id::text, name, role, bounds, expires_at, created_at, last_used_at FROM tokens`

func scanToken(row pgx.CollectableRow) (t TokenRow, err error) {
	var expires, used *time.Time
	err = row.Scan(&t.ID, &t.Name, &t.Role, &t.Bounds, &expires, &t.CreatedAt, &used)
	if expires != nil {
		t.ExpiresAt = *expires
	}
	if used != nil {
		t.LastUsedAt = *used
	}
	return t, err
}

// usedEvery is how exactly it is known when a token was last used: noting every request would make each a write.
const usedEvery = time.Minute

// Token finds a token by the hash of its secret, and notes that it is used.
func (s *Store) Token(ctx context.Context, sha256 []byte) (auth.Token, bool, error) {
	t, found, err := one(ctx, s.pool, selectRow+` WHERE sha256 = $1`, sha256)
	if err != nil || !found {
		return auth.Token{}, false, err
	}
	s.noteUse(ctx, t)
	return t.Token, true, nil
}

// noteUse notes that a token is used.
func (s *Store) noteUse(ctx context.Context, t TokenRow) {
	if now := time.Now(); now.Sub(t.LastUsedAt) >= usedEvery {
		// A database that can only be read still tells who may read, and none keeps a reader waiting for this.
		limit, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := s.pool.Exec(limit, `UPDATE tokens SET last_used_at = $1 WHERE id = $2 AND (last_used_at IS NULL OR `+
			`last_used_at < $3)`, now, t.ID, now.Add(-usedEvery))
		if err != nil {
			_ = s.noted(fmt.Errorf("note a token's use: %w", err))
		}
	}
}

func one(ctx context.Context, db interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}, sql string, args ...any,
) (t TokenRow, found bool, err error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return t, false, err
	}
	t, err = pgx.CollectExactlyOneRow(rows, scanToken)
	if errors.Is(err, pgx.ErrNoRows) {
		return t, false, nil
	}
	return t, err == nil, err
}

// Tokens lists every token by name.
func (s *Store) Tokens(ctx context.Context) ([]TokenRow, error) {
	rows, err := s.pool.Query(ctx, selectRow+` ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return pgx.CollectRows(rows, scanToken)
}

// Bootstrap stores the first token where there is none; ok says whether it did.
func (s *Store) Bootstrap(ctx context.Context, sha256 []byte) (ok bool, err error) {
	first := TokenRow{
		Token:     auth.Token{Identity: auth.Identity{Name: auth.BootstrapName, Role: auth.Admin}},
		CreatedAt: time.Now(),
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `INSERT INTO tokens (name, role, sha256, created_at) SELECT $1, $2, $3, $4
			WHERE NOT EXISTS (SELECT FROM tokens) ON CONFLICT DO NOTHING RETURNING id::text`, first.Name, first.Role, sha256,
			first.CreatedAt).Scan(&first.ID)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		ok = true
		return s.auditToken(ctx, tx, "create", first, By{Who: auth.System()})
	})
	if err != nil {
		return false, fmt.Errorf("bootstrap token: %w", err)
	}
	return ok, nil
}

// SetBootstrap makes the token bootstrap what a setting says, whatever it was before, with an entry in the audit where
// it was something else. No other token is touched.
func (s *Store) SetBootstrap(ctx context.Context, sha256 []byte) error {
	t := TokenRow{
		Token:     auth.Token{Identity: auth.Identity{Name: auth.BootstrapName, Role: auth.Admin}},
		CreatedAt: time.Now(),
	}
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `INSERT INTO tokens AS t (name, role, sha256, created_at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (name) DO UPDATE SET role = $2, sha256 = $3, created_at = $4 WHERE (t.role, t.sha256) <> ($2, $3)
			RETURNING id::text`, t.Name, t.Role, sha256, t.CreatedAt).Scan(&t.ID)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // it is that already
		}
		if err != nil {
			return err
		}
		// Who has the old secret is not to stay signed in with it.
		if _, err := tx.Exec(ctx, `DELETE FROM sessions WHERE token_id = $1`, t.ID); err != nil {
			return err
		}
		return s.auditToken(ctx, tx, "create", t, By{Who: auth.System()})
	})
	if err != nil {
		return fmt.Errorf("token %s: %w", t.Name, err)
	}
	return nil
}

// CreateToken stores a token, whose id it sets, and its entry in the audit.
func (s *Store) CreateToken(ctx context.Context, t *TokenRow, sha256 []byte, by By) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var expires *time.Time
		if !t.ExpiresAt.IsZero() {
			expires = &t.ExpiresAt
		}
		err := tx.QueryRow(ctx, `INSERT INTO tokens (name, role, sha256, created_at, expires_at, bounds) VALUES ($1, $2,`+
			` $3, $4, $5, $6) RETURNING id::text`,
			t.Name, t.Role, sha256, t.CreatedAt, expires, mustJSON(t.Bounds)).Scan(&t.ID)
		if err != nil {
			return err
		}
		return s.auditToken(ctx, tx, "create", *t, by)
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

// DeleteToken deletes a token, unless it is the last one of an admin that does not end. It works from the next request
// on.
func (s *Store) DeleteToken(ctx context.Context, name string, by By) (t TokenRow, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// Two who delete each other's token at the same time must not both succeed.
		if _, err := tx.Exec(ctx, `LOCK TABLE tokens IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		var found bool
		if t, found, err = one(ctx, tx, selectRow+` WHERE name = $1`, name); err != nil {
			return err
		}
		if !found {
			return ErrNotFound
		}
		if t.Role == auth.Admin && t.ExpiresAt.IsZero() {
			var admins int
			if err := tx.QueryRow(ctx, `SELECT count(*) FROM tokens WHERE role = $1 AND expires_at IS NULL`, auth.Admin).
				Scan(&admins); err != nil {
				return err
			}
			if admins == 1 {
				return ErrLastAdmin
			}
		}
		if _, err := tx.Exec(ctx, `DELETE FROM tokens WHERE name = $1`, name); err != nil {
			return err
		}
		return s.auditToken(ctx, tx, "delete", t, by)
	})
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrLastAdmin) {
		err = fmt.Errorf("delete token: %w", err)
	}
	return t, err
}

func (s *Store) auditToken(ctx context.Context, tx pgx.Tx, action string, t TokenRow, by By) error {
	return s.chainToken(ctx, tx, entryRow{
		At: time.Now(), Actor: by.Who.Name, ActorID: by.Who.ID, RequestID: by.RequestID, Message: said(t),
		Entry: audit.Entry{Kind: "Token", Name: t.Name, Action: action},
	}, t.Role)
}

// said is what the audit says of a token.
func said(t TokenRow) string {
	out := "role " + t.Role
	if t.ID != "" {
		out += ", id " + t.ID
	}
	if !t.ExpiresAt.IsZero() {
		out += ", until " + t.ExpiresAt.UTC().Format(time.RFC3339)
	}
	for _, b := range []struct {
		name string
		list []string
	}{{"owners", t.Bounds.Owners}, {"gateways", t.Bounds.Gateways}, {"kinds", t.Bounds.Kinds}, {"hosts", t.Bounds.Hosts}} {
		if len(b.list) > 0 {
			out += ", " + b.name + " " + strings.Join(b.list, " ")
		}
	}
	return out
}
