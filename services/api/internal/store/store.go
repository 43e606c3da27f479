// Package store is PostgreSQL: the only place where the configuration is true.
//
// A write transaction takes the row lock of config_head first, so that revisions are gapless and in the
// order of their commits. The rest of it goes out in one batch with the COMMIT: two round trips, for one
// revision as for several. What is large is stored while it is still being decided, see [Tx.Early].
package store

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
)

//go:embed migrations/*.sql
var migrations embed.FS

// ErrNotFound says that there is no such row.
var ErrNotFound = errors.New("not found")

// NotifyChannel is where every commit is announced.
const NotifyChannel = "marchproxy_revision"

// Store is a pool of connections.
type Store struct {
	pool *pgxpool.Pool
	// box signs the audit.
	box *seal.Box
	// instance marks this api's own announcements.
	instance string
	// known is the state of the head that was written last.
	known atomic.Pointer[known]

	mu      sync.Mutex
	trouble Trouble
	raised  chan struct{} // there is a trouble that there was not
}

// Open connects, and brings the schema up to date. The box signs the records of the audit; nil is for who writes none.
func Open(ctx context.Context, url string, box *seal.Box) (*Store, error) {
	s, err := connect(ctx, url, "", box)
	if err != nil {
		return nil, err
	}
	if err := s.migrate(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// connect makes the pool, whose tables are in a schema of PostgreSQL's, or where the user has them for "".
func connect(ctx context.Context, url, in string, box *seal.Box) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("DATABASE_URL cannot be read; it must look like " +
			"postgresql://user:password@host:5432/marchproxy")
	}
	cfg.MaxConns = max(cfg.MaxConns, 8)
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	if in != "" {
		cfg.ConnConfig.RuntimeParams["search_path"] = in
	}
	if cfg.ConnConfig.TLSConfig != nil {
		cfg.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error { return renew(c, url) }
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return &Store{pool: pool, box: box, instance: uuid.NewString(), raised: make(chan struct{}, 1)}, nil
}

// renew reads the certificates again that a URL names: they may have been renewed since the start.
func renew(c *pgx.ConnConfig, url string) error {
	now, err := pgx.ParseConfig(url)
	if err != nil {
		return errors.New("DATABASE_URL: its certificate files cannot be read")
	}
	now.ConnectTimeout, now.RuntimeParams = c.ConnectTimeout, c.RuntimeParams
	c.Config = now.Config // whole: it holds on to what reads a client's certificate by the address of its TLSConfig
	return nil
}

// Unproven is a host on another machine to which a URL lets a connection go whose other end has not shown that it is
// the database, and whether that goes unencrypted besides; "" where there is none.
func Unproven(url string) (host string, plain bool) {
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return "", false // [Open] says so
	}
	ways := []*pgconn.FallbackConfig{{Host: c.Host, TLSConfig: c.TLSConfig}}
	for _, w := range append(ways, c.Fallbacks...) {
		switch {
		case strings.HasPrefix(w.Host, "/"), identity.Loopback(w.Host):
		case w.TLSConfig == nil:
			return w.Host, true
		case w.TLSConfig.InsecureSkipVerify && w.TLSConfig.VerifyPeerCertificate == nil:
			host = w.Host
		}
	}
	return host, false
}

// Close ends every connection.
func (s *Store) Close() { s.pool.Close() }

// Ping says whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return s.pool.Ping(ctx) }

func (s *Store) migrate(ctx context.Context) error {
	if err := s.withMigrations(func(p *goose.Provider) error {
		_, err := p.Up(ctx)
		return err
	}); err != nil {
		return err
	}
	if _, err := s.pool.Exec(ctx, `INSERT INTO config_head (epoch, revision, state) VALUES ($1, 0, '{}') ON CONFLICT DO `+
		`NOTHING`, uuid.New()); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// withMigrations hands out what brings the schema from one version to another.
func (s *Store) withMigrations(f func(*goose.Provider) error) error {
	db := stdlib.OpenDBFromPool(s.pool)
	defer func() { _ = db.Close() }()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
	if err == nil {
		err = f(p)
	}
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// Head is the newest revision.
type Head struct {
	Epoch    string
	Revision int64
	State    map[string]resource.KindState
}

// Equal says whether two heads are the same. After an older backup was restored, one revision can have two states.
func (h Head) Equal(o Head) bool {
	return h.Epoch == o.Epoch && h.Revision == o.Revision && maps.Equal(h.State, o.State)
}

// Describes says why a state is not the one that the head speaks of; nil where it is.
func (h Head) Describes(st *config.State) error {
	found := st.Summary()
	if maps.Equal(found, h.State) {
		return nil
	}
	for _, k := range resource.Kinds {
		if f, h := found[k.Name], h.State[k.Name]; f != h {
			return fmt.Errorf("the database does not agree with itself: %s has %d objects with hash %q, its head says %d with %q; "+
				"restore a backup", k.Name, f.Count, f.Hash, h.Count, h.Hash)
		}
	}
	return errors.New("the database's head speaks of kinds that this version does not know; run the version that wrote it")
}

// selectHead is what [Head.scan] reads.
const selectHead = `SELECT epoch::text, revision, state FROM config_head`

func (h *Head) scan(row pgx.Row) error { return row.Scan(&h.Epoch, &h.Revision, &h.State) }

// Head reads it.
func (s *Store) Head(ctx context.Context) (Head, error) { return readHead(ctx, s.pool) }

func readHead(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
},
) (Head, error) {
	var h Head
	if err := h.scan(db.QueryRow(ctx, selectHead)); err != nil {
		return h, fmt.Errorf("read head: %w", err)
	}
	return h, nil
}

// RenewEpoch begins another life of the database, and wakes every api, this one too.
func (s *Store) RenewEpoch(ctx context.Context) (string, error) {
	epoch := uuid.New().String()
	if _, err := s.pool.Exec(ctx, `WITH renewed AS (UPDATE config_head SET epoch = $1 RETURNING epoch) SELECT pg_notify('`+
		NotifyChannel+`', '') FROM renewed`, epoch); err != nil {
		return "", fmt.Errorf("renew epoch: %w", err)
	}
	return epoch, nil
}

// Snapshot reads the head and every object of it, at one moment.
func (s *Store) Snapshot(ctx context.Context) (Head, []*resource.Object, error) {
	var h Head
	var out []*resource.Object
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{
		IsoLevel:   pgx.RepeatableRead,
		AccessMode: pgx.ReadOnly,
	}, func(tx pgx.Tx) error {
		if err := h.scan(tx.QueryRow(ctx, selectHead)); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT payload::text FROM resources`)
		if err != nil {
			return err
		}
		payloads, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (payload []byte, err error) {
			return payload, row.Scan(&payload)
		})
		if err != nil {
			return err
		}
		out, err = resource.ParsePayloads(payloads)
		return err
	})
	if err != nil {
		return h, nil, fmt.Errorf("read configuration: %w", err)
	}
	return h, out, nil
}

func scanObject(row pgx.CollectableRow) (*resource.Object, error) {
	var payload string
	if err := row.Scan(&payload); err != nil {
		return nil, err
	}
	return resource.ParsePayload([]byte(payload))
}

// Committed is one revision as the relay publishes it.
type Committed struct {
	Commit  resource.Commit
	Objects []*resource.Object // tombstones included
	// Follows is the digest of the state that it has changed; "" where that is not known.
	Follows string
}

// StateAt reads the state's hash as it was at a revision, without what it changed.
func (s *Store) StateAt(ctx context.Context, n int64) (state map[string]resource.KindState, err error) {
	err = s.pool.QueryRow(ctx, `SELECT state FROM revisions WHERE revision = $1`, n).Scan(&state)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read revision %d: %w", n, err)
	}
	return state, nil
}

// Revision reads one revision for the relay; its epoch is the head's.
func (s *Store) Revision(ctx context.Context, n int64) (Committed, error) {
	c := Committed{Commit: resource.Commit{Revision: n}}
	var at time.Time
	err := s.pool.QueryRow(ctx, `SELECT (SELECT epoch::text FROM config_head), at, actor, message, request_id,`+
		` traceparent, state FROM revisions WHERE revision = $1`, n).
		Scan(&c.Commit.Epoch, &at, &c.Commit.Actor, &c.Commit.Message, &c.Commit.RequestID, &c.Commit.Traceparent,
			&c.Commit.State)
	if errors.Is(err, pgx.ErrNoRows) {
		return c, ErrNotFound
	}
	if err != nil {
		return c, fmt.Errorf("read revision %d: %w", n, err)
	}
	c.Commit.At = resource.Time(at)
	rows, err := s.pool.Query(ctx, `SELECT kind, name, after::text FROM changes WHERE revision = $1 ORDER BY kind, name`,
		n)
	if err != nil {
		return c, fmt.Errorf("read revision %d: %w", n, err)
	}
	var kind, name string
	var after *string
	_, err = pgx.ForEachRow(rows, []any{&kind, &name, &after}, func() error {
		o := resource.Tombstone(resource.Ref{Kind: kind, Name: name}, n)
		if after != nil {
			var err error
			if o, err = resource.ParsePayload([]byte(*after)); err != nil {
				return err
			}
		}
		c.Objects = append(c.Objects, o)
		c.Commit.Changes = append(c.Commit.Changes, resource.ChangedResource{Kind: kind, Name: name, Deleted: after == nil})
		return nil
	})
	if err != nil {
		return c, fmt.Errorf("read revision %d: %w", n, err)
	}
	return c, nil
}

// RevisionsAfter reads the commits after a revision, in order, without their states.
func (s *Store) RevisionsAfter(ctx context.Context, after int64, limit int) ([]resource.Commit, error) {
	rows, err := s.pool.Query(ctx,
		`SELECT (SELECT epoch::text FROM config_head), r.revision, r.at, r.actor, r.message, r.request_id,
			(SELECT json_agg(json_build_object('kind', c.kind, 'name', c.name, 'deleted', c.after IS NULL) ORDER BY c.kind, c.name)
				FROM (SELECT kind, name, after FROM changes WHERE revision = r.revision ORDER BY kind, name LIMIT $3) AS c)
		FROM revisions r WHERE r.revision > $1 ORDER BY r.revision LIMIT $2`, after, limit, resource.MaxChanges)
	if err != nil {
		return nil, fmt.Errorf("read revisions: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (resource.Commit, error) {
		var c resource.Commit
		var at time.Time
		err := row.Scan(&c.Epoch, &c.Revision, &at, &c.Actor, &c.Message, &c.RequestID, &c.Changes)
		c.At = resource.Time(at)
		return c, err
	})
}

// Lead tries to become the one api that publishes; release gives it up. Head is [Store.Head] by the connection that
// holds the lock: an error says that it has gone.
func (s *Store) Lead(
	ctx context.Context,
) (release func(), head func(context.Context) (Head, error), ok bool, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, nil, false, fmt.Errorf("lead: %w", err)
	}
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock(7236105)`).Scan(&ok); err != nil || !ok {
		conn.Release()
		if err != nil {
			return nil, nil, false, fmt.Errorf("lead: %w", err)
		}
		return nil, nil, false, nil
	}
	raw := conn.Hijack()
	release = func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = raw.Close(limit) // the lock goes with the connection
	}
	return release, func(ctx context.Context) (Head, error) { return readHead(ctx, raw) }, true, nil
}

// Listen calls wake with the revision of every commit that another api makes, and all of it where the commit has said
// it; with 0 at every renewed epoch and whenever it has been deaf in between. It does so until the context ends.
func (s *Store) Listen(ctx context.Context, wake func(revision int64, whole *Committed)) {
	for ctx.Err() == nil {
		_ = s.listenOnce(ctx, wake) // the database is away: the poll stands in
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

func (s *Store) listenOnce(ctx context.Context, wake func(int64, *Committed)) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	raw := conn.Hijack()
	defer func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = raw.Close(limit)
	}()
	if _, err := raw.Exec(ctx, "LISTEN "+NotifyChannel); err != nil {
		return err
	}
	wake(0, nil)
	for {
		n, err := raw.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if instance, revision, whole := readAnnouncement(n.Payload); instance != s.instance {
			wake(revision, whole())
		}
	}
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("store: %v", err)) // maps and structs of plain fields only
	}
	return string(b)
}
