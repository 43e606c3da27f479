package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Issuance is how far a certificate is that comes from an authority.
type Issuance struct {
	Certificate, UID, Issuer string
	// Wanted is a digest of what is asked for.
	Wanted string
	// NextAt is when there is something to do.
	NextAt time.Time
	// Step is what is being done, and Note what it waits for, in a sentence.
	Step, Note string
	// OrderURL is the order that is under way, "" for none; it is for OrderWanted, was made by the account OrderAccount,
	// and its certificate has the key OrderKey, which is sealed.
	OrderURL, OrderWanted, OrderAccount, OrderKey string
	OrderedAt                                     *time.Time
	// Failures since the last success, and the last of them.
	Failures        int
	FailedAt        *time.Time
	Problem, Reason string
	// IssuedAt is the last success, and RenewAt when the next order is due; LookAt when to ask the authority again when
	// that is.
	IssuedAt, NotAfter, RenewAt, LookAt *time.Time
	Explanation                         string
}

const issuanceColumns = `certificate, uid, issuer, wanted, next_at, step, note, order_url, order_wanted, order_account, ` +
	`order_key, ordered_at, failures, failed_at, problem, reason, issued_at, not_after, renew_at, look_at, explanation`

func scanIssuance(row pgx.CollectableRow) (x Issuance, err error) {
	err = row.Scan(&x.Certificate, &x.UID, &x.Issuer, &x.Wanted, &x.NextAt, &x.Step, &x.Note, &x.OrderURL, &x.OrderWanted,
		&x.OrderAccount, &x.OrderKey, &x.OrderedAt, &x.Failures, &x.FailedAt, &x.Problem, &x.Reason, &x.IssuedAt, &x.NotAfter,
		&x.RenewAt, &x.LookAt, &x.Explanation)
	return x, err
}

func (s *Store) issuances(ctx context.Context, sql string, args ...any) ([]Issuance, error) {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, s.noted(fmt.Errorf("issuance: %w", err))
	}
	out, err := pgx.CollectRows(rows, scanIssuance)
	if err != nil {
		return nil, s.noted(fmt.Errorf("issuance: %w", err))
	}
	return out, nil
}

// Issuances lists those of some certificates, or of all where none are named.
func (s *Store) Issuances(ctx context.Context, certificates ...string) ([]Issuance, error) {
	return s.issuances(ctx, `SELECT `+issuanceColumns+` FROM issuance WHERE cardinality($1::text[]) = 0 OR `+
		`certificate = ANY($1) ORDER BY certificate`, append([]string{}, certificates...))
}

// FailedIssuances lists up to n whose last attempt has failed, the first to end first.
func (s *Store) FailedIssuances(ctx context.Context, n int) ([]Issuance, error) {
	return s.issuances(ctx, `SELECT `+issuanceColumns+` FROM issuance WHERE problem <> '' ORDER BY not_after NULLS FIRST, `+
		`certificate LIMIT $1`, n)
}

// CountIssuances counts certificates by issuer and state (issued, pending, or the problem of the last attempt), and those
// whose renewal was due an hour ago.
func (s *Store) CountIssuances(ctx context.Context) (counts map[[2]string]int, overdue int, err error) {
	rows, err := s.pool.Query(ctx, `SELECT issuer, CASE WHEN problem <> '' THEN problem WHEN issued_at IS NULL AND `+
		`renew_at IS NULL THEN 'pending' ELSE 'issued' END, count(*), count(*) FILTER (WHERE renew_at < now() - `+
		`interval '1 hour') FROM issuance GROUP BY 1, 2`)
	if err != nil {
		return nil, 0, s.noted(fmt.Errorf("issuance: %w", err))
	}
	counts = map[[2]string]int{}
	var issuer, state string
	var n, late int
	_, err = pgx.ForEachRow(rows, []any{&issuer, &state, &n, &late}, func() error {
		counts[[2]string{issuer, state}] = n
		overdue += late
		return nil
	})
	return counts, overdue, s.noted(err)
}

// WantIssuance notes what is asked for of a certificate: there is something to do at once where that is another thing
// than before, and failures begin to count anew. A certificate of an earlier life of its name is forgotten.
func (s *Store) WantIssuance(ctx context.Context, x Issuance) error {
	_, err := s.pool.Exec(ctx, `INSERT INTO issuance AS i (certificate, uid, issuer, wanted, next_at)
		VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (certificate) DO UPDATE SET uid = excluded.uid, issuer = excluded.issuer, wanted = excluded.wanted,
			next_at = excluded.next_at, failures = 0, failed_at = NULL, problem = '', reason = '', note = '', step = 'waiting',
			holder = CASE WHEN i.uid = excluded.uid THEN i.holder ELSE '' END, renew_at = NULL, look_at = NULL,
			issued_at = CASE WHEN i.uid = excluded.uid THEN i.issued_at END`,
		x.Certificate, x.UID, x.Issuer, x.Wanted, x.NextAt)
	if err != nil {
		return s.noted(fmt.Errorf("issuance: %w", err))
	}
	return nil
}

// WakeIssuances has what an issuer has not issued yet be looked at now: the issuer is another one.
func (s *Store) WakeIssuances(ctx context.Context, issuer string) error {
	_, err := s.pool.Exec(ctx, `UPDATE issuance SET next_at = now() WHERE issuer = $1 AND (problem <> '' OR note <> '')`,
		issuer)
	return s.noted(err)
}

// DropIssuances forgets certificates.
func (s *Store) DropIssuances(ctx context.Context, certificates []string) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM issuance WHERE certificate = ANY($1)`, certificates)
	return err
}

// TakeIssuances takes up to n certificates for which there is something to do, the longest due first, for as long as a
// lease. Nobody else gets them meanwhile.
func (s *Store) TakeIssuances(ctx context.Context, holder string, n int, lease time.Duration) ([]Issuance, error) {
	return s.issuances(ctx, `UPDATE issuance SET holder = $1, leased_until = now() + $2::interval WHERE certificate IN (
			SELECT certificate FROM issuance WHERE next_at <= now() AND (holder = '' OR leased_until < now())
			ORDER BY next_at LIMIT $3 FOR UPDATE SKIP LOCKED
		) RETURNING `+issuanceColumns, holder, lease, n)
}

// HoldIssuances renews the lease on what a holder has, and says what that is.
func (s *Store) HoldIssuances(ctx context.Context, holder string, lease time.Duration) (map[string]bool, error) {
	rows, err := s.pool.Query(ctx, `UPDATE issuance SET leased_until = now() + $2::interval WHERE holder = $1 RETURNING certificate`,
		holder, lease)
	if err != nil {
		return nil, s.noted(fmt.Errorf("issuance: %w", err))
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, s.noted(fmt.Errorf("issuance: %w", err))
	}
	out := map[string]bool{}
	for _, n := range names {
		out[n] = true
	}
	return out, nil
}

// ErrTaken says that somebody else has taken it, or that something else is wanted by now.
var ErrTaken = errors.New("another api is at it, or the certificate was changed meanwhile")

// SaveIssuance notes how far a certificate is, and that nobody is at it any more where release says so. It fails with
// [ErrTaken] where the holder does not hold it, or what is wanted has changed.
func (s *Store) SaveIssuance(ctx context.Context, holder string, x Issuance, release bool) error {
	tag, err := s.pool.Exec(ctx, `UPDATE issuance SET next_at = $4, step = $5, note = $6, order_url = $7, order_wanted = $8,
			order_account = $9, order_key = $10, ordered_at = $11, failures = $12, failed_at = $13, problem = $14, reason = $15,
			issued_at = $16, not_after = $17, renew_at = $18, look_at = $19, explanation = $20,
			holder = CASE WHEN $21 THEN '' ELSE holder END
		WHERE certificate = $1 AND holder = $2 AND wanted = $3`,
		x.Certificate, holder, x.Wanted, x.NextAt, x.Step, x.Note, x.OrderURL, x.OrderWanted, x.OrderAccount, x.OrderKey,
		x.OrderedAt, x.Failures, x.FailedAt, x.Problem, x.Reason, x.IssuedAt, x.NotAfter, x.RenewAt, x.LookAt, x.Explanation,
		release)
	if err != nil {
		return s.noted(fmt.Errorf("issuance: %w", err))
	}
	if tag.RowsAffected() == 0 {
		return ErrTaken
	}
	return nil
}

// ReleaseIssuance says that nobody is at a certificate any more.
func (s *Store) ReleaseIssuance(ctx context.Context, holder, certificate string) error {
	_, err := s.pool.Exec(ctx, `UPDATE issuance SET holder = '' WHERE certificate = $1 AND holder = $2`, certificate, holder)
	return err
}

// RenewNow has a certificate be ordered at once, or what is under way be gone on with.
func (s *Store) RenewNow(ctx context.Context, certificate string) (found bool, err error) {
	tag, err := s.pool.Exec(ctx, `UPDATE issuance SET next_at = now(), renew_at = CASE WHEN order_url = '' THEN now() `+
		`ELSE renew_at END WHERE certificate = $1`, certificate)
	if err != nil {
		return false, s.noted(fmt.Errorf("issuance: %w", err))
	}
	return tag.RowsAffected() > 0, nil
}

// Account is one with an authority.
type Account struct {
	Issuer, Directory string
	// Key is sealed; URL is "" until the authority has made the account.
	Key, URL, Contacts string
	// PausedUntil is until when the authority wants to be let alone.
	PausedUntil *time.Time
	PausedFor   string
}

// Account finds the account of an issuer, or begins one with a key.
func (s *Store) Account(ctx context.Context, issuer, directory string, key func() (string, error)) (a Account, err error) {
	read := func() error {
		return s.pool.QueryRow(ctx, `SELECT issuer, directory, key, url, contacts, paused_until, paused_for FROM `+
			`issuance_accounts WHERE issuer = $1 AND directory = $2`, issuer, directory).
			Scan(&a.Issuer, &a.Directory, &a.Key, &a.URL, &a.Contacts, &a.PausedUntil, &a.PausedFor)
	}
	if err = read(); !errors.Is(err, pgx.ErrNoRows) {
		return a, s.noted(err)
	}
	k, err := key()
	if err != nil {
		return a, err
	}
	if _, err := s.pool.Exec(ctx, `INSERT INTO issuance_accounts (issuer, directory, key) VALUES ($1, $2, $3) ON CONFLICT `+
		`DO NOTHING`, issuer, directory, k); err != nil {
		return a, s.noted(fmt.Errorf("issuance: %w", err))
	}
	return a, s.noted(read()) // another api may have been faster
}

// SaveAccount notes an account's URL and contacts, and until when the authority wants to be let alone.
func (s *Store) SaveAccount(ctx context.Context, a Account) error {
	_, err := s.pool.Exec(ctx, `UPDATE issuance_accounts SET url = $3, contacts = $4, paused_until = $5, paused_for = $6, `+
		`key = $7 WHERE issuer = $1 AND directory = $2`, a.Issuer, a.Directory, a.URL, a.Contacts, a.PausedUntil, a.PausedFor,
		a.Key)
	return err
}

// CountOrder counts an order of an issuer where there have been fewer than a limit within a time; otherwise it says when
// there will be.
func (s *Store) CountOrder(
	ctx context.Context, issuer string, limit int, per time.Duration,
) (ok bool, free time.Time, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// One api at a time counts an issuer's.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(7236106, hashtext($1))`, issuer); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM issuance_orders WHERE issuer = $1 AND at < now() - $2::interval`, issuer,
			max(per, 7*24*time.Hour)); err != nil {
			return err
		}
		var oldest *time.Time
		if err := tx.QueryRow(ctx, `SELECT (SELECT at FROM issuance_orders WHERE issuer = $1 AND at > now() - $2::interval `+
			`ORDER BY at DESC OFFSET $3 LIMIT 1)`, issuer, per, limit-1).Scan(&oldest); err != nil {
			return err
		}
		if oldest != nil {
			free = oldest.Add(per)
			return nil
		}
		ok = true
		_, err := tx.Exec(ctx, `INSERT INTO issuance_orders (issuer, at) VALUES ($1, now())`, issuer)
		return err
	})
	if err != nil {
		return false, free, s.noted(fmt.Errorf("issuance: %w", err))
	}
	return ok, free, nil
}
