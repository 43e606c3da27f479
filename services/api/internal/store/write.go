package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Tx is a write transaction that holds the head's lock.
type Tx struct {
	conn  *pgxpool.Conn
	store *Store
	// Epoch and Revision are those that the transaction makes.
	Epoch    string
	Revision int64
	// Replay is the stored answer where the idempotency key was used before; nil otherwise.
	Replay *Answer
}

// Answer is what an idempotency key remembers.
type Answer struct {
	Request  []byte
	Status   int
	Response []byte
}

// Record is everything that a revision stores.
type Record struct {
	At                                     time.Time
	Actor, Message, RequestID, Traceparent string
	State                                  map[string]resource.KindState
	Changes                                []config.Change
	// Key is the idempotency key, "" for none, and Answer what it will remember.
	Key    string
	Answer Answer
}

// Begin starts a write: BEGIN, the head's lock and the idempotency key in one round trip.
func (s *Store) Begin(ctx context.Context, actor, key string) (*Tx, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, s.noted(fmt.Errorf("begin: %w", err))
	}
	t := &Tx{conn: conn, store: s}
	var b pgx.Batch
	b.Queue(`BEGIN`)
	b.Queue(`UPDATE config_head SET revision = revision + 1 RETURNING epoch::text, revision`).QueryRow(func(row pgx.Row) error {
		return row.Scan(&t.Epoch, &t.Revision)
	})
	if key != "" {
		b.Queue(`SELECT request, status, response::text FROM idempotency WHERE actor = $1 AND key = $2 AND at > now() - interval '24 hours'`, actor, key).QueryRow(func(row pgx.Row) error {
			var a Answer
			var response string
			err := row.Scan(&a.Request, &a.Status, &response)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			a.Response = []byte(response)
			t.Replay = &a
			return err
		})
	}
	if err := conn.SendBatch(ctx, &b).Close(); err != nil {
		t.discard(ctx)
		return nil, s.noted(fmt.Errorf("begin: %w", err))
	}
	return t, nil
}

// discard ends the connection, and the transaction with it.
func (t *Tx) discard(ctx context.Context) {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = t.conn.Hijack().Close(limit) // the server rolls back when the connection ends
}

// Rollback takes everything back.
func (t *Tx) Rollback(ctx context.Context) {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := t.conn.Exec(limit, `ROLLBACK`); err != nil {
		t.discard(ctx)
		return
	}
	t.conn.Release()
}

// Commit stores the revision. After an error it is not known whether it was stored.
func (t *Tx) Commit(ctx context.Context, r Record) error {
	var b pgx.Batch
	b.Queue(`INSERT INTO revisions (revision, at, actor, message, request_id, traceparent, state, change_count) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		t.Revision, r.At, r.Actor, r.Message, r.RequestID, r.Traceparent, mustJSON(r.State), len(r.Changes))
	t.queueChanges(&b, r.Changes)
	b.Queue(`UPDATE config_head SET state = $1`, mustJSON(r.State))
	queueAnswer(&b, r)
	b.Queue(`SELECT pg_notify('`+NotifyChannel+`', $1)`, t.store.instance)
	return t.commit(ctx, &b)
}

// Remember makes no revision, and stores only what the idempotency key remembers. After an error it is
// not known whether it was stored.
func (t *Tx) Remember(ctx context.Context, r Record) error {
	var b pgx.Batch
	b.Queue(`UPDATE config_head SET revision = revision - 1`) // what Begin has counted up
	queueAnswer(&b, r)
	return t.commit(ctx, &b)
}

func (t *Tx) commit(ctx context.Context, b *pgx.Batch) error {
	b.Queue(`COMMIT`)
	if err := t.conn.SendBatch(ctx, b).Close(); err != nil {
		t.discard(ctx)
		return t.store.noted(fmt.Errorf("commit: %w", err))
	}
	t.conn.Release()
	return nil
}

func queueAnswer(b *pgx.Batch, r Record) {
	if r.Key == "" {
		return
	}
	b.Queue(`DELETE FROM idempotency WHERE at < now() - interval '24 hours'`)
	b.Queue(`INSERT INTO idempotency (key, actor, request, status, response, at) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (actor, key) DO UPDATE SET request = excluded.request, status = excluded.status, response = excluded.response, at = excluded.at`,
		r.Key, r.Actor, r.Answer.Request, r.Answer.Status, string(r.Answer.Response), r.At)
}

func (t *Tx) queueChanges(b *pgx.Batch, changes []config.Change) {
	var kinds, names, before, after, upKinds, upNames, upPayloads, delKinds, delNames []string
	for _, c := range changes {
		r := c.Ref()
		kinds, names = append(kinds, r.Kind), append(names, r.Name)
		was, is := "", ""
		if c.Before != nil {
			was = string(c.Before.Payload())
		}
		if c.After != nil {
			is = string(c.After.Payload())
			upKinds, upNames, upPayloads = append(upKinds, r.Kind), append(upNames, r.Name), append(upPayloads, is)
		} else {
			delKinds, delNames = append(delKinds, r.Kind), append(delNames, r.Name)
		}
		before, after = append(before, was), append(after, is)
	}
	b.Queue(`INSERT INTO changes (revision, kind, name, before, after)
		SELECT $1, kind, name, nullif(before, '')::json, nullif(after, '')::json
		FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS c (kind, name, before, after)`, t.Revision, kinds, names, before, after)
	if len(upNames) > 0 {
		b.Queue(`INSERT INTO resources (kind, name, revision, payload)
			SELECT kind, name, $1, payload::json FROM unnest($2::text[], $3::text[], $4::text[]) AS r (kind, name, payload)
			ON CONFLICT (kind, name) DO UPDATE SET revision = excluded.revision, payload = excluded.payload`, t.Revision, upKinds, upNames, upPayloads)
	}
	if len(delNames) > 0 {
		b.Queue(`DELETE FROM resources r USING unnest($1::text[], $2::text[]) AS d (kind, name) WHERE r.kind = d.kind AND r.name = d.name`, delKinds, delNames)
	}
}
