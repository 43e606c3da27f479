package store

import (
	"context"
	"encoding/json"
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
	// Head is the newest revision: the transaction's first one is the next.
	Head
	// chain is the audit's end.
	chain chain
	// Answers are those that idempotency keys remember of earlier requests.
	Answers map[Key]Answer

	// early is what is being stored before it is decided, and stored says of which revisions the changes are stored
	// before the COMMIT.
	early  *early
	stored map[int64]bool
	// broken is why nothing can be stored any more.
	broken error
}

// Key is an idempotency key; each actor has keys of their own.
type Key struct{ Actor, Key string }

// Answer is what an idempotency key remembers.
type Answer struct {
	Request  []byte
	Status   int
	Response []byte
}

// Record is everything that a write stores.
type Record struct {
	// Revision is that of the changes; without changes it is not stored, and only the answer is.
	Revision int64
	// Follows is the digest of the state that the changes were made in.
	Follows                                string
	At                                     time.Time
	Actor, Message, RequestID, Traceparent string
	// ActorID is the id of the actor's token, "" for the system itself.
	ActorID string
	State   map[string]resource.KindState
	Changes []config.Change
	// Key is the idempotency key, "" for none, and Answer what it will remember.
	Key    string
	Answer Answer
}

// Committed is the revision as it is published and announced.
func (r Record) Committed(epoch string) Committed {
	c := Committed{Commit: resource.Commit{
		Epoch: epoch, Revision: r.Revision, State: r.State, Actor: r.Actor, Message: r.Message,
		RequestID: r.RequestID, At: resource.Time(r.At), Traceparent: r.Traceparent,
	}, Follows: r.Follows}
	for _, x := range r.Changes {
		ref := x.Ref()
		o := x.After
		if o == nil {
			o = resource.Tombstone(ref, r.Revision)
		}
		c.Objects = append(c.Objects, o)
		c.Commit.Changes = append(c.Commit.Changes,
			resource.ChangedResource{Kind: ref.Kind, Name: ref.Name, Deleted: x.After == nil})
	}
	return c
}

// Begin starts a write: BEGIN, the head's lock and the idempotency keys in one round trip.
func (s *Store) Begin(ctx context.Context, keys []Key) (*Tx, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, s.noted(fmt.Errorf("begin: %w", err))
	}
	t := &Tx{conn: conn, store: s, stored: map[int64]bool{}}
	var b pgx.Batch
	b.Queue(`BEGIN`)
	b.Queue(`SELECT epoch::text, revision, state::text, chain_n, chain_hash, chain_revision FROM config_head FOR UPDATE`).
		QueryRow(t.scanHead)
	if len(keys) > 0 {
		var actors, names []string
		for _, k := range keys {
			actors, names = append(actors, k.Actor), append(names, k.Key)
		}
		t.Answers = map[Key]Answer{}
		b.Queue(
			`SELECT actor, key, request, status, response::text FROM idempotency JOIN unnest($1::text[], $2::text[]) AS k (actor, key)
			USING (actor, key) WHERE at > now() - interval '24 hours'`, actors, names,
		).Query(func(rows pgx.Rows) error {
			var k Key
			var request []byte
			var status int
			var response string
			_, err := pgx.ForEachRow(rows, []any{&k.Actor, &k.Key, &request, &status, &response}, func() error {
				t.Answers[k] = Answer{request, status, []byte(response)}
				return nil
			})
			return err
		})
	}
	if err := conn.SendBatch(ctx, &b).Close(); err != nil {
		t.discard(ctx)
		return nil, s.noted(fmt.Errorf("begin: %w", err))
	}
	return t, nil
}

// known is a head's state as the database has it and what it says, so that the same is not read again at each write.
type known struct {
	text  string
	state map[string]resource.KindState
}

func (t *Tx) scanHead(row pgx.Row) error {
	var text string
	if err := row.Scan(&t.Epoch, &t.Revision, &text, &t.chain.N, &t.chain.Hash, &t.chain.Revision); err != nil {
		return err
	}
	if k := t.store.known.Load(); k != nil && k.text == text {
		t.State = k.state
		return nil
	}
	return json.Unmarshal([]byte(text), &t.State)
}

// News is [Store.News] as the transaction sees it.
func (t *Tx) News(ctx context.Context, after int64) (News, error) {
	n, err := readNews(ctx, t.conn.Conn(), after, ``, ``)
	return n, t.store.noted(err)
}

// discard ends the connection, and the transaction with it.
func (t *Tx) discard(ctx context.Context) {
	_ = t.settle()
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = t.conn.Hijack().Close(limit) // the server rolls back when the connection ends
}

// Rollback takes everything back.
func (t *Tx) Rollback(ctx context.Context) {
	_ = t.settle()
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := t.conn.Exec(limit, `ROLLBACK`); err != nil {
		t.discard(ctx)
		return
	}
	t.conn.Release()
}

// Commit stores records, in the order of their revisions. After an error it is not known whether they were stored:
// all of them or none.
func (t *Tx) Commit(ctx context.Context, records []Record) error {
	if t.chain.Revision < t.Revision {
		if err := t.settle(); err != nil {
			return t.fail(ctx, "commit", err)
		}
		if err := t.adopt(ctx); err != nil {
			return t.fail(ctx, "chain the audit", err)
		}
	}
	links := t.store.chain(&t.chain, records) // while the rest of what is large is being stored
	if err := t.settle(); err != nil {
		return t.fail(ctx, "commit", err)
	}
	var b pgx.Batch
	var last *Record
	state := ""
	for i := range records {
		if len(records[i].Changes) > 0 {
			last = &records[i]
		}
	}
	if last != nil {
		queueChanges(&b, t.left(records))
		state = t.queueHead(&b, records, links)
	}
	queueAnswers(&b, records)
	b.Queue(`COMMIT`)
	if err := t.conn.SendBatch(ctx, &b).Close(); err != nil {
		return t.fail(ctx, "commit", err)
	}
	t.conn.Release()
	if last != nil {
		t.store.known.Store(&known{state, last.State})
	}
	return nil
}

// fail ends the connection, and says why nothing is stored.
func (t *Tx) fail(ctx context.Context, what string, err error) error {
	t.discard(ctx)
	return t.store.noted(fmt.Errorf("%s: %w", what, err))
}

// adopt chains what an api of the version before has written since the chain's end.
func (t *Tx) adopt(ctx context.Context) error {
	for t.chain.Revision < t.Revision {
		n, err := t.store.adopt(ctx, t.conn, &t.chain, t.Revision)
		if err != nil || n == 0 {
			return err
		}
	}
	return nil
}

// queueHead stores the revisions and their links of the chain, and makes the last one the head, which it announces: in
// one statement, for each costs a write some tens of microseconds. It returns the last one's state as it is stored.
func (t *Tx) queueHead(b *pgx.Batch, records []Record, links []link) (state string) {
	var revisions []int64
	var at []time.Time
	var actors, ids, messages, requests, traces, states []string
	var counts []int32
	var last Record
	for _, r := range records {
		if len(r.Changes) == 0 {
			continue
		}
		last = r
		revisions, at, counts = append(revisions, r.Revision), append(at, r.At), append(counts, int32(len(r.Changes)))
		actors, ids, messages = append(actors, r.Actor), append(ids, r.ActorID), append(messages, r.Message)
		requests, traces = append(requests, r.RequestID), append(traces, r.Traceparent)
		state = mustJSON(r.State)
		states = append(states, state)
	}
	var whole *Committed
	if len(revisions) == 1 && len(last.Changes) <= 16 { // more is longer than an announcement
		c := last.Committed(t.Epoch)
		whole = &c
	}
	b.Queue(`WITH links AS (`+insertLinks+`), kept AS (
			INSERT INTO revisions (revision, at, actor, message, request_id, traceparent, state, change_count, actor_id)
			SELECT revision, at, actor, message, request_id, traceparent, state::json, change_count, actor_id
			FROM unnest($10::bigint[], $11::timestamptz[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[],
				$17::integer[], $18::text[])
				AS r (revision, at, actor, message, request_id, traceparent, state, change_count, actor_id)
		) UPDATE config_head SET revision = $19, state = $20, chain_n = $21, chain_hash = $22, chain_revision = $23
		RETURNING pg_notify('`+NotifyChannel+`', $24)`,
		append(columnsOf(links), revisions, at, actors, messages, requests, traces, states, counts, ids,
			last.Revision, state, t.chain.N, t.chain.Hash, t.chain.Revision,
			announcement(t.store.instance, last.Revision, whole))...)
	return state
}

func queueAnswers(b *pgx.Batch, records []Record) {
	var actors, keys, responses []string
	var requests [][]byte
	var statuses []int32
	var at []time.Time
	for _, r := range records {
		if r.Key == "" {
			continue
		}
		actors, keys, at = append(actors, r.Actor), append(keys, r.Key), append(at, r.At)
		requests, statuses = append(requests, r.Answer.Request), append(statuses, int32(r.Answer.Status))
		responses = append(responses, string(r.Answer.Response))
	}
	if len(keys) == 0 {
		return
	}
	b.Queue(`DELETE FROM idempotency WHERE at < now() - interval '24 hours'`)
	b.Queue(`INSERT INTO idempotency (key, actor, request, status, response, at)
		SELECT key, actor, request, status, response::json, at
		FROM unnest($1::text[], $2::text[], $3::bytea[], $4::integer[], $5::text[], $6::timestamptz[]) AS a (key, actor, request, status, response, at)
		ON CONFLICT (actor, key) DO UPDATE SET request = excluded.request, status = excluded.status, response = excluded.response, at = excluded.at`,
		keys, actors, requests, statuses, responses, at)
}
