package store

import (
	"context"
	"fmt"
	"time"
)

// coalesceAfter is how old revisions are before they are looked at, and coalesceWithin how far back: what an api that
// was away for longer has left is kept as other revisions are.
const (
	coalesceAfter  = time.Hour
	coalesceWithin = 7 * 24 * time.Hour
)

// Coalesce deletes the revisions that changed nothing but objects of some kinds, each of which has changed again in the
// same hour: a container that comes and goes all day leaves the last of each hour. What the audit says of them stays.
// What an object was before those that have gone is written down at the change that stays, for [Store.Between].
// It deletes none from published on, which the relay compares with the stream, and none that the audit's chain does not
// have yet. It takes no lock that a write needs.
func (s *Store) Coalesce(
	ctx context.Context, kinds []string, published int64, now time.Time,
) (revisions int64, err error) {
	for n := int64(batch); n == batch && err == nil; revisions += n {
		err = s.pool.QueryRow(ctx, `WITH old AS (
				SELECT r.revision, r.at FROM revisions r, config_head h
				WHERE r.at >= $2 AND r.at < date_trunc('hour', $3::timestamptz) AND r.revision < $4 AND r.revision <= h.chain_revision
					AND EXISTS (SELECT FROM changes c WHERE c.revision = r.revision AND c.kind = ANY($1))
					AND NOT EXISTS (
						SELECT FROM changes c WHERE c.revision = r.revision AND NOT (c.kind = ANY($1) AND EXISTS (
							SELECT FROM changes l JOIN revisions lr ON lr.revision = l.revision
							WHERE l.kind = c.kind AND l.name = c.name AND l.revision > c.revision
								AND date_trunc('hour', lr.at) = date_trunc('hour', r.at)))
					)
				ORDER BY r.revision LIMIT $5
			), gone AS (
				DELETE FROM changes c USING old WHERE c.revision = old.revision RETURNING c.*
			), heirs AS (
				SELECT DISTINCT ON (kind, name, heir) kind, name, heir,
					coalesce(since, revision) AS since, CASE WHEN since IS NULL THEN before ELSE was END AS was
				FROM (SELECT g.*, (SELECT min(n.revision) FROM changes n WHERE n.kind = g.kind AND n.name = g.name
					AND n.revision > g.revision AND n.revision NOT IN (SELECT revision FROM old)) AS heir FROM gone g) AS g
				ORDER BY kind, name, heir, revision
			), told AS (
				UPDATE changes c SET since = h.since, was = h.was FROM heirs h
				WHERE c.revision = h.heir AND c.kind = h.kind AND c.name = h.name AND c.since IS NULL
			), kept AS (
				INSERT INTO audit (at, revision, kind, name, action, actor, request_id, message, actor_id)
				SELECT r.at, r.revision, c.kind, c.name, `+actionOf+`, r.actor, r.request_id, r.message, r.actor_id
				FROM gone c JOIN revisions r USING (revision)
			), done AS (
				DELETE FROM revisions r USING old WHERE r.revision = old.revision RETURNING r.revision
			) SELECT count(*) FROM done`, kinds, now.Add(-coalesceWithin), now.Add(-coalesceAfter), published, batch).Scan(&n)
	}
	if err != nil {
		return revisions, s.noted(fmt.Errorf("coalesce the history: %w", err))
	}
	return revisions, nil
}
