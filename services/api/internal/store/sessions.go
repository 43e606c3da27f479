package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/marchproxy/marchproxy/services/api/internal/auth"
)

// Session finds the token that a session stands for, by the hash of the session's secret, and notes that the token is
// used. What it returns ends with the session or with the token, whichever ends first.
func (s *Store) Session(ctx context.Context, sha256 []byte) (auth.Token, bool, error) {
	t, found, err := one(ctx, s.pool, `SELECT t.id::text, t.name, t.role, t.bounds, least(t.expires_at, s.expires_at), `+
		`t.created_at, t.last_used_at FROM sessions s JOIN tokens t ON t.id = s.token_id WHERE s.sha256 = $1`, sha256)
	if err != nil || !found {
		return auth.Token{}, false, err
	}
	s.noteUse(ctx, t)
	return t.Token, true, nil
}

// CreateSession begins a session of a token, named by its id, in place of another one where old is not nil. Sessions
// that are over are deleted with it, so that the table has no more than people sign in within a session's time.
func (s *Store) CreateSession(ctx context.Context, sha256, old []byte, tokenID string, lasts time.Duration) error {
	now := time.Now()
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM sessions WHERE expires_at < $1 OR sha256 = $2`, now, old); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO sessions (sha256, token_id, created_at, expires_at) VALUES ($1, $2, $3, $4)`,
			sha256, tokenID, now, now.Add(lasts))
		return err
	})
	if err != nil {
		return fmt.Errorf("begin a session: %w", err)
	}
	return nil
}

// DeleteSession ends a session, which may be over already.
func (s *Store) DeleteSession(ctx context.Context, sha256 []byte) error {
	if _, err := s.pool.Exec(ctx, `DELETE FROM sessions WHERE sha256 = $1`, sha256); err != nil {
		return fmt.Errorf("end a session: %w", err)
	}
	return nil
}
