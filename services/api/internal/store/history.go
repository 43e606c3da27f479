package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrGone says that a revision was there and is not kept any more.
var ErrGone = errors.New("the revision is not kept any more")

// Oldest is the oldest revision that is kept; 0 where there is none.
func (s *Store) Oldest(ctx context.Context) (revision int64, err error) {
	if err := s.pool.QueryRow(ctx, `SELECT coalesce(min(revision), 0) FROM revisions`).Scan(&revision); err != nil {
		return 0, fmt.Errorf("read oldest revision: %w", err)
	}
	return revision, nil
}

// ToHead has [Store.Between] go on to the newest revision.
const ToHead = -1

// Between reads what was changed after a revision until a later one: each object as it was at the first and as it is
// at the second, without those that neither has. It costs what was changed in between. Both revisions must be kept. Where others
// have been coalesced into the first change since then, it is taken for all of them.
func (s *Store) Between(ctx context.Context, from, to int64) (rows []ChangeRow, err error) {
	err = pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{
		IsoLevel:   pgx.RepeatableRead,
		AccessMode: pgx.ReadOnly,
	}, func(tx pgx.Tx) error {
		var oldest, head int64
		if err := tx.QueryRow(ctx, `SELECT coalesce((SELECT min(revision) FROM revisions), 0), revision FROM config_head`).
			Scan(&oldest, &head); err != nil {
			return err
		}
		if to == ToHead {
			to = head
		}
		for _, n := range []int64{from, to} {
			switch {
			case n > head:
				return ErrNotFound
			case n < oldest && (n > 0 || oldest > 1):
				return ErrGone
			}
		}
		found, err := tx.Query(ctx, `SELECT first.before::text, last.after::text FROM
				(SELECT DISTINCT ON (kind, name) kind, name, CASE WHEN since > $1 THEN was ELSE before END AS before FROM changes WHERE revision > $1 AND revision <= $2 ORDER BY kind, name, revision) AS first
			JOIN
				(SELECT DISTINCT ON (kind, name) kind, name, after FROM changes WHERE revision > $1 AND revision <= $2 ORDER BY kind, name, revision DESC) AS last
			USING (kind, name)
			WHERE first.before IS NOT NULL OR last.after IS NOT NULL ORDER BY kind, name`, from, to)
		if err != nil {
			return err
		}
		rows, err = pgx.CollectRows(found, scanChange)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read changes: %w", err)
	}
	return rows, nil
}

// Keep is how much of the history is kept; 0 is without limit.
type Keep struct {
	// Revisions is how many at most, and Age how old ones.
	Revisions int64
	Age       time.Duration
	// Audit is how old the entries of the audit are at most. Those of revisions that are kept are always there, and what
	// is later than one of them.
	Audit time.Duration
}

// batch is how many changes go in one transaction, unless one revision has more.
const batch = 2000

// Prune deletes what need not be kept, the oldest revisions first and none of those from published on, which the relay
// compares with the stream. What the audit says of them stays. It takes no lock that a write needs.
func (s *Store) Prune(
	ctx context.Context, k Keep, published int64, now time.Time,
) (revisions, entries int64, err error) {
	var first int64 // of those that are kept
	err = s.pool.QueryRow(ctx, `SELECT least($1, revision, greatest(
			CASE WHEN $2::bigint > 0 THEN coalesce((SELECT r.revision FROM revisions r ORDER BY r.revision DESC OFFSET $2 - 1 LIMIT 1), 0) ELSE 0 END,
			(SELECT coalesce(max(revision) + 1, 0) FROM revisions WHERE at < $3)
		)) FROM config_head`, published, k.Revisions, since(k.Age, now)).Scan(&first)
	for n := int64(1); n > 0 && err == nil; revisions += n {
		err = s.pool.QueryRow(ctx, `WITH old AS (
				SELECT revision FROM (
					SELECT revision, sum(change_count) OVER (ORDER BY revision) - change_count AS before
					FROM (SELECT revision, change_count FROM revisions WHERE revision < $1 ORDER BY revision LIMIT $2) AS oldest
				) AS r WHERE before < $2
			), gone AS (
				DELETE FROM changes c USING old WHERE c.revision = old.revision RETURNING c.*
			), kept AS (
				INSERT INTO audit (at, revision, kind, name, action, actor, request_id, message, actor_id)
				SELECT r.at, r.revision, g.kind, g.name,
					CASE WHEN g.before IS NULL THEN 'create' WHEN g.after IS NULL THEN 'delete' ELSE 'update' END,
					r.actor, r.request_id, r.message, r.actor_id
				FROM gone g JOIN revisions r USING (revision)
			), done AS (
				DELETE FROM revisions r USING old WHERE r.revision = old.revision RETURNING r.revision
			) SELECT count(*) FROM done`, first, batch).Scan(&n)
	}
	for n := int64(1); n > 0 && err == nil && k.Audit > 0; entries += n {
		n, err = s.pruneAudit(ctx, k.Audit, now)
	}
	if err != nil {
		return revisions, entries, s.noted(fmt.Errorf("prune: %w", err))
	}
	return revisions, entries, nil
}

// pruneAudit deletes the first records of the audit that are older than is to be kept, and writes down where the chain
// begins from then on. It ends before the first record that is not, or whose revision is kept: what is left is whole.
// It says how many entries have gone.
func (s *Store) pruneAudit(ctx context.Context, keep time.Duration, now time.Time) (gone int64, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var a anchor
		if err := a.scan(tx.QueryRow(ctx, selectAnchor+` FOR UPDATE`)); err != nil {
			return err
		}
		if wrong := a.wrong(s.box); wrong != "" {
			return errors.New(wrong) // what has been cut off would be forgotten
		}
		var kept int64
		if err := tx.QueryRow(ctx, `SELECT coalesce(min(revision), $1) FROM revisions`, math.MaxInt64).
			Scan(&kept); err != nil {
			return err
		}
		some, err := links(ctx, tx, a.N, math.MaxInt64)
		if err != nil {
			return err
		}
		was, total := a.N, int64(0)
		for _, l := range some {
			if !l.at.Before(since(keep, now)) || l.revision >= kept || total > 0 && total+int64(l.entries) > batch {
				break
			}
			total += int64(l.entries)
			a.N, a.Hash, a.at = l.n, l.hash, l.at
			a.Revision = max(a.Revision, l.revision)
		}
		if a.N == was && (was == 0 || s.box.Signs(a.key)) {
			return nil
		}
		if a.N > was { // otherwise it is signed with an earlier SECRET_KEY, and is signed anew while that is still known
			a.deletedAt, a.keep = now, keep.String()
		}
		a.key, a.signature = s.box.Sign(signsAnchor, a.signs())
		var b pgx.Batch
		b.Queue(`DELETE FROM audit WHERE revision <= $1`, a.Revision)
		b.Queue(`DELETE FROM token_changes WHERE n <= $1`, a.N)
		b.Queue(`DELETE FROM audit_chain WHERE n <= $1`, a.N)
		b.Queue(`UPDATE audit_anchor SET n = $1, revision = $2, hash = $3, at = $4, deleted_at = $5, keep = $6, key = $7,`+
			` signature = $8`,
			a.N, a.Revision, a.Hash, a.at, a.deletedAt, a.keep, a.key, a.signature)
		gone = total
		return tx.SendBatch(ctx, &b).Close()
	})
	return gone, err
}

// since is the time before which everything goes.
func since(age time.Duration, now time.Time) time.Time {
	if age == 0 {
		return time.Time{}
	}
	return now.Add(-age)
}
