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

// maxOwnTokens is how many tokens a user may have.
const maxOwnTokens = 50

// ErrManyTokens says that a user has as many tokens as he may.
var ErrManyTokens = fmt.Errorf("you have %d tokens of your own, and may have no more; end some", maxOwnTokens)

// TokenRow is a token without its secret. A user's own has the name user/token.
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
// could manage tokens and users any more.
var (
	ErrTokenExists = errors.New("a token of this name exists already; delete it first, or choose another name")
	ErrLastAdmin   = errors.New("this is the last way in for an admin: no token with that role would be left that does " +
		"not end, and no user with that role and a password who is not disabled; make another one first")
)

const (
	// A token's columns, before and after its end, and those of the user whose own it is.
	columnsBefore = `t.id::text, t.name, t.role, t.bounds, `
	columnsAfter  = `, t.created_at, t.last_used_at, `
	columnsOfUser = `u.id::text, u.name, u.role, u.bounds`
	joinUser      = ` LEFT JOIN users u ON u.id = t.user_id`

	selectRow = `SELECT ` + columnsBefore + `t.expires_at` + columnsAfter + columnsOfUser + ` FROM tokens t` + joinUser
	// whoMay leaves out the tokens of users who are disabled.
	whoMay = `(t.user_id IS NULL OR NOT u.disabled)`
)

func scanToken(row pgx.CollectableRow) (t TokenRow, err error) {
	var expires, used *time.Time
	var userID, user, role *string
	var bounds *auth.Bounds
	err = row.Scan(&t.ID, &t.Name, &t.Role, &t.Bounds, &expires, &t.CreatedAt, &used, &userID, &user, &role, &bounds)
	if userID != nil {
		t.Of = &auth.Identity{ID: *userID, Name: *user, Role: *role, Bounds: *bounds, User: true}
	}
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
	t, found, err := one(ctx, s.pool, selectRow+` WHERE t.sha256 = $1 AND `+whoMay, sha256)
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

// Tokens lists every token that is no user's by name, or the own tokens of a user, named by his id.
func (s *Store) Tokens(ctx context.Context, userID string) ([]TokenRow, error) {
	rows, err := s.pool.Query(ctx, selectRow+` WHERE coalesce(t.user_id::text, '') = $1 ORDER BY t.name`, userID)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return pgx.CollectRows(rows, scanToken)
}

// Bootstrap stores the first token where there is none, and no user; ok says whether it did.
func (s *Store) Bootstrap(ctx context.Context, sha256 []byte) (ok bool, err error) {
	first := TokenRow{
		Token:     auth.Token{Identity: auth.Identity{Name: auth.BootstrapName, Role: auth.Admin}},
		CreatedAt: time.Now(),
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `INSERT INTO tokens (name, role, sha256, created_at) SELECT $1, $2, $3, $4
			WHERE NOT EXISTS (SELECT FROM tokens) AND NOT EXISTS (SELECT FROM users) ON CONFLICT DO NOTHING RETURNING id::text`, first.Name, first.Role, sha256,
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
		var user *string
		if t.Of != nil {
			user = &t.Of.ID
			var own int
			// In the order of lockWays, so that neither waits for the other for ever.
			if _, err := tx.Exec(ctx, `LOCK TABLE tokens IN ROW EXCLUSIVE MODE`); err != nil {
				return err
			}
			// The lock keeps those apart who would together make too many, and waits for who deletes the user.
			err := tx.QueryRow(ctx, `SELECT (SELECT count(*) FROM tokens WHERE user_id = $1::uuid) FROM users WHERE id = `+
				`$1::uuid FOR UPDATE`, *user).Scan(&own)
			if errors.Is(err, pgx.ErrNoRows) {
				return ErrNotFound
			}
			if err != nil {
				return err
			}
			if own >= maxOwnTokens {
				return ErrManyTokens
			}
		} else if err := free(ctx, tx, "users", t.Name, ErrTokenExists); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, `INSERT INTO tokens (name, role, sha256, created_at, expires_at, bounds, user_id) VALUES `+
			`($1, $2, $3, $4, $5, $6, $7::uuid) RETURNING id::text`,
			t.Name, t.Role, sha256, t.CreatedAt, expires, mustJSON(t.Bounds), user).Scan(&t.ID)
		if err != nil {
			return err
		}
		return s.auditToken(ctx, tx, "create", *t, by)
	})
	if duplicate(err) {
		return ErrTokenExists
	}
	if err != nil && !errors.Is(err, ErrTokenExists) && !errors.Is(err, ErrManyTokens) && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("create token: %w", err)
	}
	return err
}

// duplicate says whether something of a name is there already.
func duplicate(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505" // unique_violation
}

// free says whether no user, or no token, has a name: the audit calls both by it. Who makes both at the same moment
// gets both; ids tell them apart.
func free(ctx context.Context, tx pgx.Tx, table, name string, taken error) error {
	var there bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+table+` WHERE name = $1)`, name).Scan(&there)
	if err == nil && there {
		return taken
	}
	return err
}

// DeleteToken deletes a token, unless it is the last one of an admin that does not end. It works from the next request
// on.
func (s *Store) DeleteToken(ctx context.Context, name string, by By) (t TokenRow, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := lockWays(ctx, tx); err != nil {
			return err
		}
		var found bool
		if t, found, err = one(ctx, tx, selectRow+` WHERE t.name = $1`, name); err != nil {
			return err
		}
		if !found {
			return ErrNotFound
		}
		if _, err := tx.Exec(ctx, `DELETE FROM tokens WHERE name = $1`, name); err != nil {
			return err
		}
		if t.Role == auth.Admin && t.Of == nil { // a user's own is none of those ways
			if err := someAdmin(ctx, tx); err != nil {
				return err
			}
		}
		return s.auditToken(ctx, tx, "delete", t, by)
	})
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrLastAdmin) {
		err = fmt.Errorf("delete token: %w", err)
	}
	return t, err
}

// lockWays keeps those apart who take away ways in: two who delete each other at the same time must not both succeed.
func lockWays(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `LOCK TABLE users, tokens IN SHARE ROW EXCLUSIVE MODE`)
	return err
}

// someAdmin refuses what leaves nobody who can manage tokens and users. Who comes from a provider does not count: it may
// take the role away, or not answer.
func someAdmin(ctx context.Context, tx pgx.Tx) error {
	var some bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM tokens WHERE role = $1 AND expires_at IS NULL AND user_id IS NULL)
		OR EXISTS (SELECT FROM users WHERE role = $1 AND password <> '' AND NOT disabled)`, auth.Admin).Scan(&some)
	if err == nil && !some {
		return ErrLastAdmin
	}
	return err
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
	return out + bounded(t.Bounds)
}

// bounded is what the audit says of bounds.
func bounded(of auth.Bounds) (out string) {
	for _, b := range []struct {
		name string
		list []string
	}{{"owners", of.Owners}, {"gateways", of.Gateways}, {"kinds", of.Kinds}, {"hosts", of.Hosts}} {
		if len(b.list) > 0 {
			out += ", " + b.name + " " + strings.Join(b.list, " ")
		}
	}
	return out
}
