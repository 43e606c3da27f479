package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Object reads one object.
func (s *Store) Object(ctx context.Context, r resource.Ref) (*resource.Object, error) {
	rows, err := s.pool.Query(ctx, `SELECT payload::text FROM resources WHERE kind = $1 AND name = $2`, r.Kind, r.Name)
	if err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	o, err := pgx.CollectExactlyOneRow(rows, scanObject)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	return o, err
}

// Filter narrows a list; empty fields do not.
type Filter struct {
	Kind, After, Owner, Prefix, LabelName, LabelValue string
	// Host and Service are for routes: those that list the host, or send to the service.
	Host, Service string
	Limit         int
}

// numbered adds values to a statement's arguments, and says how the statement names each.
func numbered(args *[]any) func(v any) string {
	return func(v any) string {
		*args = append(*args, v)
		return "$" + strconv.Itoa(len(*args))
	}
}

// query is the page's statement. It has only the conditions that are asked for, each of which an index answers.
func (f Filter) query() (sql string, args []any) {
	arg := numbered(&args)
	where := `kind = ` + arg(f.Kind) + ` AND name > ` + arg(f.After)
	if f.Prefix != "" {
		// No name has a character as high as \x7f. The range is for the index.
		where += ` AND name >= ` + arg(f.Prefix) + ` AND name < ` + arg(f.Prefix+"\x7f") + ` AND starts_with(name, ` +
			arg(f.Prefix) + `)`
	}
	if f.Owner != "" {
		where += ` AND owner = ` + arg(f.Owner)
	}
	if f.LabelName != "" {
		where += ` AND labels @> ` + arg(mustJSON(map[string]string{f.LabelName: f.LabelValue})) + `::jsonb`
	}
	if f.Host != "" {
		where += ` AND hosts @> ` + arg(mustJSON([]string{f.Host})) + `::jsonb`
	}
	if f.Service != "" {
		where += ` AND services @> ` + arg(mustJSON([]string{f.Service})) + `::jsonb`
	}
	return `SELECT payload::text FROM resources WHERE ` + where + ` ORDER BY name LIMIT ` + arg(f.Limit), args
}

// Objects reads a page in the order of names, and the revision that it was read at.
func (s *Store) Objects(ctx context.Context, f Filter) (objects []*resource.Object, revision int64, err error) {
	err = pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{
		IsoLevel:   pgx.RepeatableRead,
		AccessMode: pgx.ReadOnly,
	}, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT revision FROM config_head`).Scan(&revision); err != nil {
			return err
		}
		sql, args := f.query()
		rows, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		objects, err = pgx.CollectRows(rows, scanObject)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list objects: %w", err)
	}
	return objects, revision, nil
}

// RevisionsOf are the revisions of a kind's objects, by their names: what a cache needs to know of them.
func (s *Store) RevisionsOf(ctx context.Context, kind string) (map[string]int64, error) {
	rows, err := s.pool.Query(ctx, `SELECT name, revision FROM resources WHERE kind = $1`, kind)
	if err != nil {
		return nil, fmt.Errorf("list revisions of objects: %w", err)
	}
	out := map[string]int64{}
	var name string
	var revision int64
	if _, err = pgx.ForEachRow(rows, []any{&name, &revision},
		func() error { out[name] = revision; return nil }); err != nil {
		return nil, fmt.Errorf("list revisions of objects: %w", err)
	}
	return out, nil
}

// Named reads some of a kind's objects; what is not there is left out.
func (s *Store) Named(ctx context.Context, kind string, names []string) ([]*resource.Object, error) {
	rows, err := s.pool.Query(ctx, `SELECT payload::text FROM resources WHERE kind = $1 AND name = ANY($2)`, kind, names)
	if err != nil {
		return nil, fmt.Errorf("read objects: %w", err)
	}
	return pgx.CollectRows(rows, scanObject)
}

// RevisionRow is one revision without its changes.
type RevisionRow struct {
	Revision                  int64
	At                        time.Time
	Actor, Message, RequestID string
	ChangeCount               int32
}

// Revisions reads a page, the newest first, below a revision.
func (s *Store) Revisions(ctx context.Context, below int64, limit int) ([]RevisionRow, error) {
	rows, err := s.pool.Query(ctx, `SELECT revision, at, actor, message, request_id, change_count FROM revisions WHERE `+
		`revision < $1 ORDER BY revision DESC LIMIT $2`, below, limit)
	if err != nil {
		return nil, fmt.Errorf("list revisions: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[RevisionRow])
}

// ChangeRow is one object before and after a revision; nil where it was not there.
type ChangeRow struct{ Before, After *resource.Object }

// Changes reads what a revision changed.
func (s *Store) Changes(ctx context.Context, revision int64) ([]ChangeRow, error) {
	rows, err := s.pool.Query(ctx, `SELECT before::text, after::text FROM changes WHERE revision = $1 ORDER BY kind, name`,
		revision)
	if err != nil {
		return nil, fmt.Errorf("read changes: %w", err)
	}
	return pgx.CollectRows(rows, scanChange)
}

func scanChange(row pgx.CollectableRow) (c ChangeRow, err error) {
	var before, after *string
	if err := row.Scan(&before, &after); err != nil {
		return c, err
	}
	if c.Before, err = parse(before); err != nil {
		return c, err
	}
	c.After, err = parse(after)
	return c, err
}

func parse(payload *string) (*resource.Object, error) {
	if payload == nil {
		return nil, nil //nolint:nilnil // no object is an answer
	}
	return resource.ParsePayload([]byte(*payload))
}
