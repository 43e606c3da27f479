package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
)

// Forcer writes into the database past every check, as another version of the api could have, one revision an object,
// or somebody who has got at it.
type Forcer struct {
	conn *pgx.Conn
	box  *seal.Box
}

// Forcer connects to the system's database. Close it.
func (s *System) Forcer(ctx context.Context) (*Forcer, error) {
	password, err := s.secret("PGPassword")
	if err != nil {
		return nil, err
	}
	key, err := s.SecretKey()
	if err != nil {
		return nil, err
	}
	box, err := seal.New(key)
	if err != nil {
		return nil, err
	}
	url := fmt.Sprintf("postgresql://marchproxy:%s@127.0.0.1:%d/marchproxy?sslmode=disable", password, s.pgPort)
	conn, err := pgx.Connect(ctx, url)
	return &Forcer{conn, box}, err
}

// Close ends the connection.
func (f *Forcer) Close(ctx context.Context) error { return f.conn.Close(ctx) }

// Exec runs a statement, as somebody does who has the database.
func (f *Forcer) Exec(ctx context.Context, sql string, args ...any) error {
	_, err := f.conn.Exec(ctx, sql, args...)
	return err
}

// Dump is every row of every table of the database, as a dump of it has them.
func (f *Forcer) Dump(ctx context.Context) (map[string][]byte, error) {
	rows, err := f.conn.Query(ctx, `SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables
		WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`)
	if err != nil {
		return nil, err
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, table := range tables {
		var all []byte
		rows, err := f.conn.Query(ctx, `SELECT t::text FROM `+table+` AS t`)
		if err != nil {
			return nil, err
		}
		var text string
		if _, err := pgx.ForEachRow(rows, []any{&text}, func() error {
			all = append(append(all, text...), '\n')
			return nil
		}); err != nil {
			return nil, err
		}
		out[table] = all
	}
	return out, nil
}

// Put stores an object and returns its revision. Secrets of keys are sealed as the api does it.
func (f *Forcer) Put(ctx context.Context, kind, name, spec string) (int64, error) {
	k, known := resource.KindByName(kind)
	if !known {
		return 0, fmt.Errorf("kind %s", kind)
	}
	m := k.New()
	if err := protojson.Unmarshal([]byte(spec), m); err != nil {
		return 0, err
	}
	f.seal(resource.Ref{Kind: kind, Name: name}, m)
	tx, err := f.conn.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback(ctx) }() // after a commit there is nothing to take back
	var revision int64
	if err := tx.QueryRow(ctx, `SELECT revision FROM config_head FOR UPDATE`).Scan(&revision); err != nil {
		return 0, err
	}
	revision++
	now := resource.Time(time.Now())
	o, err := resource.New(resource.Ref{Kind: kind, Name: name}, m)
	if err != nil {
		return 0, err
	}
	o.UID = fmt.Sprintf("00000000-0000-4000-8000-%012d", revision)
	o.Revision, o.CreatedAt, o.UpdatedAt = revision, now, now
	state, err := with(ctx, tx, o)
	if err != nil {
		return 0, err
	}
	raw, err := json.Marshal(state)
	if err != nil {
		return 0, err
	}
	var b pgx.Batch
	b.Queue(`INSERT INTO revisions (revision, at, actor, message, request_id, traceparent, state, change_count)
		VALUES ($1, now(), 'forced', '', '', '', $2::text::json, 1)`, revision, string(raw))
	b.Queue(`INSERT INTO changes (revision, kind, name, before, after) VALUES ($1, $2, $3, NULL, $4::text::json)`,
		revision, kind, name, string(o.Payload()))
	b.Queue(`INSERT INTO resources (kind, name, revision, payload) VALUES ($1, $2, $3, $4::text::json)
		ON CONFLICT (kind, name) DO UPDATE SET revision = excluded.revision, payload = excluded.payload`,
		kind, name, revision, string(o.Payload()))
	b.Queue(`UPDATE config_head SET revision = $1, state = $2::text::json`, revision, string(raw))
	b.Queue(`SELECT pg_notify('marchproxy_revision', $1)`, fmt.Sprintf("forced %d", revision))
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return 0, err
	}
	return revision, tx.Commit(ctx)
}

// with is the state of the database with an object in it.
func with(ctx context.Context, tx pgx.Tx, o *resource.Object) (map[string]resource.KindState, error) {
	rows, err := tx.Query(ctx, `SELECT payload::text FROM resources WHERE (kind, name) <> ($1, $2)`, o.Kind, o.Name)
	if err != nil {
		return nil, err
	}
	all, payload := resource.Tally{}, ""
	all.Add(o.Kind, resource.Sum(o))
	_, err = pgx.ForEachRow(rows, []any{&payload}, func() error {
		x, err := resource.ParsePayload([]byte(payload))
		if err == nil {
			all.Add(x.Kind, resource.Sum(x))
		}
		return err
	})
	return all.State(), err
}

func (f *Forcer) seal(ref resource.Ref, m proto.Message) {
	for _, s := range resource.Secrets(m) {
		if s.Use == configv1.Secret_SECRET_SEALED && s.Get() != "" {
			s.Set(f.box.Seal(s.Get(), ref.Kind, ref.Name, s.Field))
		}
	}
}
