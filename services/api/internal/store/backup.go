package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
)

// tables is all that the api keeps, in the order of a backup.
var tables = []string{
	"config_head", "resources", "users", "tokens", "idempotency", "revisions", "changes", "token_changes", "audit", "audit_anchor",
	"audit_chain", "issuance_accounts",
}

// versions is the table in which goose notes which migrations there were. A restore makes it by migrating.
const versions = "goose_db_version"

// Table is one of a backup, with the columns that its rows have.
type Table struct {
	Name    string   `json:"table"`
	Columns []string `json:"columns"`
}

// copied names it as COPY does.
func (t Table) copied() string {
	quoted := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		quoted[i] = pgx.Identifier{c}.Sanitize()
	}
	return pgx.Identifier{t.Name}.Sanitize() + " (" + strings.Join(quoted, ", ") + ")"
}

// Origin says of which database and moment a backup is.
type Origin struct {
	// Schema is the last migration that the database has had.
	Schema int64 `json:"schema"`
	// Epoch and Revision of its head.
	Epoch    string `json:"epoch"`
	Revision int64  `json:"revision"`
}

// Sink takes a backup, one call after another.
type Sink interface {
	// Begin comes first.
	Begin(Origin) error
	// Table says where a table's rows go, as COPY's text format has them. All of them are written before the next call.
	Table(Table) (io.Writer, error)
	// End says how many rows the last table has had.
	End(rows int64) error
}

// Backup writes all that a database has, as of one moment, and changes nothing, not even the schema's version. Others
// go on writing meanwhile. The box must open whatever is sealed: a backup that nobody can use is found out now.
func Backup(ctx context.Context, url string, box *seal.Box, to Sink) error {
	s, err := connect(ctx, url, "", box)
	if err != nil {
		return err
	}
	defer s.Close()
	return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{
		IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly,
	}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, textual); err != nil {
			return fmt.Errorf("read the database: %w", err)
		}
		if err := backup(ctx, tx, to, func() error { return opens(ctx, tx, box) }); err != nil {
			return fmt.Errorf("back up: %w", err)
		}
		return nil
	})
}

// textual has values written in one way, whatever the database's defaults are.
const textual = `SET LOCAL datestyle = 'ISO'; SET LOCAL bytea_output = 'hex'; SET LOCAL client_encoding = 'UTF8'; ` +
	`SET LOCAL timezone = 'UTC'`

func backup(ctx context.Context, tx pgx.Tx, to Sink, check func() error) error {
	o, err := origin(ctx, tx)
	if err != nil {
		return err
	}
	if o.Schema == 0 {
		return errors.New("the database that DATABASE_URL names is empty: no api has used it")
	}
	if err := check(); err != nil {
		return err
	}
	if err := to.Begin(o); err != nil {
		return err
	}
	for _, name := range tables {
		t := Table{Name: name}
		if t.Columns, err = writable(ctx, tx, name); err != nil {
			return err
		}
		if len(t.Columns) == 0 {
			continue // a later version's
		}
		w, err := to.Table(t)
		if err != nil {
			return err
		}
		tag, err := tx.Conn().PgConn().CopyTo(ctx, w, `COPY `+t.copied()+` TO STDOUT`)
		if err != nil {
			return fmt.Errorf("table %s: %w", name, err)
		}
		if err := to.End(tag.RowsAffected()); err != nil {
			return err
		}
	}
	return nil
}

// origin is what a database holds; its schema is 0 where it holds nothing of an api's.
func origin(ctx context.Context, q querier) (o Origin, err error) {
	var there bool
	if err := q.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL AND to_regclass('config_head') IS NOT NULL`, versions).
		Scan(&there); err != nil || !there {
		return o, err
	}
	err = q.QueryRow(ctx, `SELECT (SELECT max(version_id) FROM `+versions+` WHERE is_applied), epoch::text, revision `+
		`FROM config_head`).Scan(&o.Schema, &o.Epoch, &o.Revision)
	return o, err
}

// writable are the columns of a table that can be written; none where there is no such table.
func writable(ctx context.Context, q querier, table string) ([]string, error) {
	rows, err := q.Query(ctx, `SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema()
		AND table_name = $1 AND is_generated = 'NEVER' ORDER BY ordinal_position`, table)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// opens fails where something is sealed with a key that the box has not.
func opens(ctx context.Context, q querier, box *seal.Box) error {
	var kinds []string
	for _, k := range resource.Kinds {
		if len(resource.SecretFields(k.New().ProtoReflect().Descriptor())) > 0 {
			kinds = append(kinds, k.Name)
		}
	}
	rows, err := q.Query(ctx, `SELECT payload::text FROM resources WHERE kind = ANY ($1)`, kinds)
	if err != nil {
		return err
	}
	objects, err := pgx.CollectRows(rows, scanObject)
	if err != nil {
		return err
	}
	return unopened(objects, box)
}

// unopened names what the box does not open, in an error.
func unopened(objects []*resource.Object, box *seal.Box) error {
	var wrong []string
	for _, o := range objects {
		for _, x := range resource.Secrets(o.Message()) {
			if x.Use != configv1.Secret_SECRET_SEALED || x.Get() == "" {
				continue
			}
			if _, err := box.Open(x.Get(), o.Kind, o.Name, x.Field); err != nil {
				wrong = append(wrong, fmt.Sprintf("%s/%s: %s: %v", o.Kind, o.Name, x.Field, err))
			}
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	more := ""
	if n := len(wrong) - 3; n > 0 {
		wrong, more = wrong[:3], fmt.Sprintf("; and %d others", n)
	}
	return fmt.Errorf("SECRET_KEY does not open what is sealed: %s%s. Set it to the one of the time of the backup; "+
		"several with commas: the first seals, all open", strings.Join(wrong, "; "), more)
}

// Source is a backup that is read.
type Source interface {
	// Origin is what it begins with.
	Origin() Origin
	// Next is the next table, whose rows are read to their end before the next call; io.EOF after the last, which
	// says that nothing is missing and nothing was changed. Another error says what is wrong.
	Next() (Table, io.Reader, error)
}

// Restoring says how a backup comes back.
type Restoring struct {
	// Replace lets what the database has go.
	Replace bool
	// Check does all that can fail, and then changes nothing.
	Check bool
	// FirstToken is the hash of API_FIRST_TOKEN, which is the token bootstrap at every start of an api; nil where there is
	// none.
	FirstToken []byte
	// Doing is called with what is being done.
	Doing func(string)
}

// Restored says what was restored.
type Restored struct {
	// Before is what the database had; its schema is 0 where it was empty.
	Before Origin
	// After is what it has: another epoch than the backup.
	After Origin
	// Objects of the configuration.
	Objects int
}

// staged is a schema of PostgreSQL's, beside the api's tables, in which a backup is made ready.
const staged = "marchproxy_restore"

// ErrUsed says that a database has something that nobody has agreed to lose.
var ErrUsed = errors.New("the database is in use")

// Restore makes a database what a backup says. All of it is loaded beside what there is, brought to this version of the
// schema and checked; then one transaction puts it in the place of what there was, with an epoch of its own, and wakes
// every api. Whatever fails before leaves everything as it was. Apis may run: they wait for that transaction, and go on
// with what it has left.
func Restore(ctx context.Context, url string, box *seal.Box, from Source, r Restoring) (out Restored, err error) {
	now, err := connect(ctx, url, "", nil)
	if err != nil {
		return out, err
	}
	defer now.Close()
	conn, err := now.pool.Acquire(ctx)
	if err != nil {
		return out, fmt.Errorf("open database: %w", err)
	}
	defer conn.Release()
	if out.Before, err = now.mayRestore(ctx, conn.Conn(), from.Origin(), r); err != nil {
		return out, err
	}
	drop := func(ctx context.Context) error {
		_, err := conn.Exec(ctx, `DROP SCHEMA IF EXISTS `+staged+` CASCADE`)
		return err
	}
	if err := drop(ctx); err != nil { // a restore that was killed has left it
		return out, fmt.Errorf("prepare the restore: %w", err)
	}
	if _, err := conn.Exec(ctx, `CREATE SCHEMA `+staged); err != nil {
		return out, fmt.Errorf("prepare the restore: %w (the user needs: GRANT CREATE ON DATABASE)", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		err = errors.Join(err, drop(ctx)) // where it has taken the place of what there was, it is gone
	}()
	st, err := connect(ctx, url, staged, box)
	if err != nil {
		return out, err
	}
	defer st.Close()
	if err := st.load(ctx, from, r.Doing); err != nil {
		return out, err
	}
	r.Doing("checking")
	if out.Objects, err = st.sound(ctx, from.Origin()); err != nil {
		return out, err
	}
	if r.Check {
		out.After = from.Origin()
		return out, nil
	}
	if r.FirstToken != nil {
		if err := st.SetBootstrap(ctx, r.FirstToken); err != nil {
			return out, err
		}
	}
	r.Doing("taking the place of what there was")
	out.After, err = takePlace(ctx, conn.Conn())
	return out, err
}

// mayRestore says what the database has, or why nothing is restored into it.
func (s *Store) mayRestore(ctx context.Context, conn *pgx.Conn, from Origin, r Restoring) (before Origin, err error) {
	var alone bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock(7236106)`).Scan(&alone); err != nil {
		return before, fmt.Errorf("open database: %w", err)
	}
	if !alone {
		return before, errors.New("another restore is at work in this database; wait for it")
	}
	var newest int64
	if err := s.withMigrations(func(p *goose.Provider) error {
		for _, m := range p.ListSources() {
			newest = max(newest, m.Version)
		}
		return nil
	}); err != nil {
		return before, err
	}
	if before, err = origin(ctx, conn); err != nil {
		return before, fmt.Errorf("read the database: %w", err)
	}
	switch {
	case from.Schema > newest:
		return before, fmt.Errorf("the backup is of a later version (its schema is %d, this program knows %d): restore it "+
			"with the version that made it, or a later one", from.Schema, newest)
	case before.Schema > newest:
		return before, fmt.Errorf("the database is of a later version (its schema is %d, this program knows %d): its apis "+
			"would not find what they need. To go back to this version, restore into an empty database", before.Schema, newest)
	case before.Schema > 0 && !r.Replace && !r.Check:
		return before, fmt.Errorf("%w: it has revision %d of the epoch %s, and the backup revision %d of %s. "+
			"--replace lets what it has go", ErrUsed, before.Revision, before.Epoch, from.Revision, from.Epoch)
	}
	return before, nil
}

// load fills the empty schema with a backup: as it was, and then brought to this version.
func (s *Store) load(ctx context.Context, from Source, doing func(string)) error {
	if err := s.withMigrations(func(p *goose.Provider) error {
		_, err := p.UpTo(ctx, from.Origin().Schema)
		return err
	}); err != nil {
		return err
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer conn.Release()
	for {
		t, rows, err := from.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if !slices.Contains(tables, t.Name) {
			return fmt.Errorf("the backup has a table %q, which this version does not know", t.Name)
		}
		// A migration may have put a row there.
		if _, err := conn.Exec(ctx, `TRUNCATE `+pgx.Identifier{t.Name}.Sanitize()); err != nil {
			return fmt.Errorf("restore %s: %w", t.Name, err)
		}
		read := &remembered{Reader: rows}
		if _, err := conn.Conn().PgConn().CopyFrom(ctx, read, `COPY `+t.copied()+` FROM STDIN`); read.err != nil {
			return read.err
		} else if err != nil {
			return fmt.Errorf("restore %s: %w", t.Name, err)
		}
	}
	doing("bringing it to this version")
	if err := s.migrate(ctx); err != nil {
		return err
	}
	for _, name := range tables {
		if _, err := conn.Exec(ctx, `ANALYZE `+pgx.Identifier{name}.Sanitize()); err != nil {
			return fmt.Errorf("restore %s: %w", name, err)
		}
	}
	return nil
}

// remembered keeps a reader's error, of which the server's answer to COPY has the words alone.
type remembered struct {
	io.Reader
	err error
}

func (s *remembered) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// sound says how many objects the configuration has that was loaded, or why no api could go on with it.
func (s *Store) sound(ctx context.Context, from Origin) (int, error) {
	head, objects, err := s.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	st := config.New()
	st.Apply(objects)
	if err := head.Describes(st); err != nil {
		return 0, err
	}
	if head.Epoch != from.Epoch || head.Revision != from.Revision {
		return 0, fmt.Errorf("the backup says that it is of revision %d, and holds revision %d", from.Revision, head.Revision)
	}
	return len(objects), unopened(objects, s.box)
}

const (
	// patience is how long the last transaction waits for who reads or writes what it takes away, each time; others wait
	// for it meanwhile.
	patience = `5s`
	attempts = 4
)

// takePlace puts what was made ready in the place of what there was.
func takePlace(ctx context.Context, conn *pgx.Conn) (o Origin, err error) {
	for range attempts {
		err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '`+patience+`'`); err != nil {
				return err
			}
			if err := exchange(ctx, tx); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `UPDATE config_head SET epoch = $1`, uuid.New()); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `SELECT pg_notify('`+NotifyChannel+`', '')`); err != nil {
				return err
			}
			o, err = origin(ctx, tx)
			return err
		})
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != "55P03" && pg.Code != "40P01" { // lock_not_available, deadlock_detected
			break
		}
		err = fmt.Errorf("somebody else holds on to the tables: stop the apis, and what else reads them, and try again: %w",
			err)
	}
	if err != nil {
		return o, fmt.Errorf("take the place of what there was: %w", err)
	}
	return o, nil
}

// exchange takes the api's tables and functions away, and brings those that are staged to their place.
func exchange(ctx context.Context, tx pgx.Tx) error {
	var to string
	var there bool
	const here = `SELECT current_schema(), to_regclass('config_head') IS NOT NULL`
	if err := tx.QueryRow(ctx, here).Scan(&to, &there); err != nil {
		return err
	}
	to = pgx.Identifier{to}.Sanitize()
	if there { // writers take it first as well
		if _, err := tx.Exec(ctx, `LOCK TABLE config_head IN ACCESS EXCLUSIVE MODE`); err != nil {
			return err
		}
	}
	rows, err := tx.Query(ctx, `SELECT 'TABLE', c.oid::regclass::text, quote_ident(c.relname) FROM pg_class AS c
			WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r'
		UNION ALL SELECT 'FUNCTION', p.oid::regprocedure::text, quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')'
			FROM pg_proc AS p WHERE p.pronamespace = $1::regnamespace
		ORDER BY 1 DESC, 2`, staged)
	if err != nil {
		return err
	}
	type object struct{ What, Staged, Name string }
	objects, err := pgx.CollectRows(rows, pgx.RowToStructByPos[object])
	if err != nil {
		return err
	}
	for _, o := range objects {
		if _, err := tx.Exec(ctx, fmt.Sprintf(`DROP %s IF EXISTS %s.%s`, o.What, to, o.Name)); err != nil {
			return err
		}
	}
	for _, o := range objects {
		if _, err := tx.Exec(ctx, fmt.Sprintf(`ALTER %s %s SET SCHEMA %s`, o.What, o.Staged, to)); err != nil {
			return err
		}
	}
	return nil
}
