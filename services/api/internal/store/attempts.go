package store

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Tally counts wrong passwords: of an account, of an address, or of one account from an address that it knows.
type Tally struct {
	Key []byte
	// Free are how many may be wrong before the next one has to wait: as long as First, then twice as long each time, up
	// to Longest.
	Free           int
	First, Longest time.Duration
}

// tallyBits is how many tallies there are of a sort. Who does not know SECRET_KEY cannot tell which names share one.
const tallyBits = 16

const (
	// forgiven is how long after the last wrong password a tally begins anew.
	forgiven = time.Hour
	// firstPause is how long the first attempt waits that has to.
	firstPause = 5 * time.Second
	// knownFor is how long an address is known to an account after it has signed in from there.
	knownFor = 30 * 24 * time.Hour
)

// signInSum is a keyed hash: of what is tried nothing stands in the database that could be read or guessed there.
func (s *Store) signInSum(parts ...string) []byte {
	var b bytes.Buffer
	for _, p := range parts {
		b.WriteString(p)
		b.WriteByte(0)
	}
	_, sum := s.box.Sign("sign-in", b.Bytes())
	return sum
}

func (s *Store) tally(sort string, parts ...string) []byte {
	return append([]byte(sort), s.signInSum(append([]string{sort}, parts...)...)[:tallyBits/8]...)
}

// Tallies are those that an attempt to sign in counts in. An address that an account has signed in from lately has one
// for that account alone: whoever guesses elsewhere does not keep its user out.
func (s *Store) Tallies(ctx context.Context, name, address string) ([]Tally, error) {
	var known bool
	err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM sign_in_known WHERE sum = $1 AND at > $2)`,
		s.signInSum("known", name, address), time.Now().Add(-knownFor)).Scan(&known)
	if err != nil {
		return nil, wrap("read attempts", err)
	}
	if known {
		return []Tally{{Key: s.tally("k", name, address), Free: 5, First: firstPause, Longest: time.Minute}}, nil
	}
	out := []Tally{
		{Key: s.tally("n", name), Free: 5, First: firstPause, Longest: 5 * time.Minute},
		{Key: s.tally("a", address), Free: 20, First: firstPause, Longest: time.Minute},
	}
	slices.SortFunc(out, func(a, b Tally) int { return bytes.Compare(a.Key, b.Key) }) // locked in one order
	return out, nil
}

// errSlowed ends the transaction of [Store.Attempt].
var errSlowed = errors.New("slowed down")

// Attempt counts an attempt as wrong before it is looked at: two that come at the same time, at two apis, count as two.
// Where a tally has to wait, wait says how long, and nothing is counted. slowing says that this one, if it is wrong, is the
// first after which a tally waits.
func (s *Store) Attempt(ctx context.Context, tallies []Tally) (wait time.Duration, slowing bool, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		for _, tally := range tallies {
			var n int
			err := tx.QueryRow(ctx, `INSERT INTO sign_in_attempts AS a (tally, failures, at) VALUES ($1, 1, clock_timestamp())
				ON CONFLICT (tally) DO UPDATE SET failures = CASE WHEN a.at < clock_timestamp() - $4::interval THEN 1
					ELSE least(a.failures + 1, 1000) END, at = clock_timestamp()
				WHERE a.failures < $2 OR a.at + least($3::interval, $5::interval * 2 ^ least(a.failures - $2, 20))
					<= clock_timestamp() RETURNING failures`, tally.Key, tally.Free, tally.Longest, forgiven, tally.First).Scan(&n)
			if errors.Is(err, pgx.ErrNoRows) {
				var left float64
				err := tx.QueryRow(ctx, `SELECT extract(epoch FROM at + least($3::interval, $4::interval * 2 ^ `+
					`least(failures - $2, 20)) - clock_timestamp())::float8 FROM sign_in_attempts WHERE tally = $1`, tally.Key,
					tally.Free, tally.Longest, tally.First).Scan(&left)
				if err != nil {
					return err
				}
				wait = max(time.Second, time.Duration(math.Ceil(left))*time.Second)
				return errSlowed
			}
			if err != nil {
				return err
			}
			slowing = slowing || n == tally.Free
		}
		return nil
	})
	if errors.Is(err, errSlowed) {
		return wait, false, nil
	}
	return 0, slowing, wrap("count an attempt", err)
}

// Passed takes back what [Store.Attempt] has counted, and knows the account's address from then on. An address is not
// forgiven what it has tried with other accounts: who has one could guess another's for ever.
func (s *Store) Passed(ctx context.Context, tallies []Tally, name, address string) error {
	var b pgx.Batch
	for _, tally := range tallies {
		if tally.Key[0] == 'a' {
			b.Queue(`UPDATE sign_in_attempts SET failures = greatest(failures - 1, 0) WHERE tally = $1`, tally.Key)
		} else {
			b.Queue(`DELETE FROM sign_in_attempts WHERE tally = $1`, tally.Key)
		}
	}
	b.Queue(`INSERT INTO sign_in_known (sum, at) VALUES ($1, now()) ON CONFLICT (sum) DO UPDATE SET at = now()`,
		s.signInSum("known", name, address))
	return wrap("note a sign-in", s.pool.SendBatch(ctx, &b).Close())
}

// Once says whether something is used for the first time.
func (s *Store) Once(ctx context.Context, what string) (bool, error) {
	tag, err := s.pool.Exec(ctx, `INSERT INTO sign_in_used (sum, at) VALUES ($1, now()) ON CONFLICT DO NOTHING`,
		s.signInSum("once", what))
	return err == nil && tag.RowsAffected() == 1, wrap("note a sign-in", err)
}

// ForgetAttempts deletes what is of no use any more of attempts to sign in.
func (s *Store) ForgetAttempts(ctx context.Context) error {
	now := time.Now()
	var b pgx.Batch
	b.Queue(`DELETE FROM sign_in_attempts WHERE at < $1`, now.Add(-forgiven))
	b.Queue(`DELETE FROM sign_in_known WHERE at < $1`, now.Add(-knownFor))
	b.Queue(`DELETE FROM sign_in_used WHERE at < $1`, now.Add(-forgiven))
	return wrap("forget attempts", s.pool.SendBatch(ctx, &b).Close())
}
