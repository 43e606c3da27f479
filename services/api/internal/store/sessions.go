package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/marchproxy/marchproxy/services/api/internal/auth"
)

// SessionRow is a session without its secret.
type SessionRow struct {
	// ID names it to who has it.
	ID                   string
	CreatedAt, ExpiresAt time.Time
	// Address it was begun from, and Agent, what the browser calls itself.
	Address, Agent string
	// Asking says that it is the session by which it is asked.
	Asking bool
}

// Session finds whom a session stands for, by the hash of the session's secret, and notes that a token is used. What it
// returns ends with the session or with the token, whichever ends first.
func (s *Store) Session(ctx context.Context, sha256 []byte) (auth.Token, bool, error) {
	const tokens = `SELECT ` + columnsBefore + `least(t.expires_at, s.expires_at)` + columnsAfter + columnsOfUser +
		` FROM sessions s JOIN tokens t ON t.id = s.token_id` + joinUser + ` WHERE s.sha256 = $1 AND ` + whoMay
	const users = `SELECT ` + columnsOfUser + `, s.expires_at, u.created_at, NULL::timestamptz, ` + columnsOfUser +
		` FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.sha256 = $1 AND NOT u.disabled`
	t, found, err := one(ctx, s.pool, tokens+` UNION ALL `+users, sha256)
	switch {
	case err != nil || !found:
		return auth.Token{}, false, err
	case t.Of != nil && t.Of.ID == t.ID: // a user himself
		t.Identity = *t.Of
	default:
		s.noteUse(ctx, t)
	}
	return t.Token, true, nil
}

// CreateSession begins a session of a user or a token in place of another one where old is not nil. Sessions that are
// over are deleted with it, so that the table has no more than people sign in within a session's time.
func (s *Store) CreateSession(ctx context.Context, sha256, old []byte, who auth.Identity, row SessionRow) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return beginSession(ctx, tx, sha256, old, who, row) })
	return wrap("begin a session", err)
}

// beginSession is [Store.CreateSession] within a transaction. The row's times count from now on.
func beginSession(ctx context.Context, tx pgx.Tx, sha256, old []byte, who auth.Identity, row SessionRow) error {
	now := time.Now()
	var user, token *string
	if who.User {
		user = &who.ID
		if _, err := tx.Exec(ctx, `UPDATE users SET signed_in_at = $1 WHERE id = $2::uuid`, now, who.ID); err != nil {
			return err
		}
	} else {
		token = &who.ID
	}
	if _, err := tx.Exec(ctx, `DELETE FROM sessions WHERE expires_at < $1 OR sha256 = $2`, now, old); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO sessions (sha256, token_id, user_id, created_at, expires_at, address, agent) `+
		`VALUES ($1, $2::uuid, $3::uuid, $4, $5, $6, $7)`, sha256, token, user, now, now.Add(auth.SessionLasts), row.Address,
		row.Agent)
	return err
}

// DeleteSession ends a session, which may be over already.
func (s *Store) DeleteSession(ctx context.Context, sha256 []byte) error {
	if _, err := s.pool.Exec(ctx, `DELETE FROM sessions WHERE sha256 = $1`, sha256); err != nil {
		return fmt.Errorf("end a session: %w", err)
	}
	return nil
}

// Sessions lists a user's sessions, the newest first; the one with the hash is that by which it is asked.
func (s *Store) Sessions(ctx context.Context, userID string, sha256 []byte) ([]SessionRow, error) {
	rows, err := s.pool.Query(ctx, `SELECT id::text, created_at, expires_at, address, agent, sha256 = $2 FROM sessions `+
		`WHERE user_id = $1::uuid AND expires_at > $3 ORDER BY created_at DESC, id LIMIT 1000`, userID, sha256, time.Now())
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[SessionRow])
}

// EndSession ends one of a user's sessions by its id.
func (s *Store) EndSession(ctx context.Context, userID, id string) error {
	tag, err := s.pool.Exec(ctx, `DELETE FROM sessions WHERE user_id = $1::uuid AND id::text = $2`, userID, id)
	if err == nil && tag.RowsAffected() == 0 {
		return ErrNotFound
	}
	return wrap("end a session", err)
}
