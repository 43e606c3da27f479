package backup

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const (
	key      = "0123456789abcdef"
	otherKey = "fedcba9876543210"
	secret   = "a secret that nobody may read, of 32 bytes or more"
	token    = "the first token, of 32 characters"
)

func environment(url, key string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := map[string]string{"DATABASE_URL": url, "SECRET_KEY": key}[name]
		return v, ok
	}
}

func open(t *testing.T, url string) (*store.Store, *seal.Box) {
	t.Helper()
	box, err := seal.New(key)
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), url, box)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	return st, box
}

// filled is a database with some routes, each a revision, a policy with a sealed secret, and a token.
func filled(t *testing.T, routes int) string {
	t.Helper()
	url := pgtest.Database(t)
	st, box := open(t, url)
	more(t, st, box, 0, routes)
	if err := st.SetBootstrap(t.Context(), auth.Sum(token)); err != nil {
		t.Fatal(err)
	}
	u := store.UserRow{Identity: auth.Identity{Name: "ann", Role: auth.Viewer}, Password: "hash"}
	if err := st.CreateUser(t.Context(), &u, store.By{Who: auth.System()}); err != nil {
		t.Fatal(err)
	}
	own := store.TokenRow{Token: auth.Token{Identity: auth.Identity{Name: "ann/ci", Role: auth.Viewer, Of: &u.Identity}}}
	if err := st.CreateToken(t.Context(), &own, auth.Sum("own"), store.By{Who: u.Identity}); err != nil {
		t.Fatal(err)
	}
	return url
}

// more writes routes as an api does that has just begun.
func more(t *testing.T, st *store.Store, box *seal.Box, from, to int) {
	t.Helper()
	w, err := writer.New(t.Context(), st, box, "", zap.NewNop(), func(store.Committed) {})
	if err != nil {
		t.Fatal(err)
	}
	desired := func(kind, name string, spec proto.Message) writer.Desired {
		return writer.Desired{Ref: resource.Ref{Kind: kind, Name: name}, Spec: spec, Path: "$", SpecPath: "$"}
	}
	for i := from; i < to; i++ {
		up := []writer.Desired{desired(resource.KindRoute, fmt.Sprintf("r%d", i), &configv1.Route{
			Hosts: []string{fmt.Sprintf("r%d.example.com", i)},
			// What COPY writes otherwise than it is.
			DirectResponse: &configv1.DirectResponse{Status: 200, Body: "tab\tline\nback\\slash \\. \\N é"},
		})}
		if i == 0 {
			up = append(up, desired(resource.KindGateway, resource.DefaultGateway, &configv1.Gateway{
				Listeners: []*configv1.Listener{{Name: "http", Port: 10000}},
			}))
			up = append(up, desired(resource.KindAuthPolicy, "p", &configv1.AuthPolicy{Jwt: &configv1.Jwt{
				Keys: []*configv1.JwtKey{{Kid: "one", Algorithm: configv1.JwtKey_HS256, Secret: secret}},
			}}))
		}
		meta := writer.Meta{Who: auth.System(), Message: "\\.\n\\."}
		if _, err := w.Write(t.Context(), meta, func(*config.State) (writer.Plan, error) {
			return writer.Plan{Upserts: up}, nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// content is all that a database has but its epoch.
func content(t *testing.T, url string) string {
	t.Helper()
	var out strings.Builder
	for _, table := range []string{
		"resources", "users", "tokens", "idempotency", "revisions", "changes", "token_changes", "audit", "audit_anchor",
		"audit_chain",
	} {
		out.WriteString(pgtest.Value[string](t, url,
			`SELECT coalesce(string_agg(x::text, E'\n' ORDER BY x::text), '') FROM `+table+` AS x`))
	}
	out.WriteString(pgtest.Value[string](t, url,
		`SELECT (revision, state::text, chain_n, chain_hash, chain_revision)::text FROM config_head`))
	return out.String()
}

func epoch(t *testing.T, url string) string {
	t.Helper()
	return pgtest.Value[string](t, url, `SELECT epoch::text FROM config_head`)
}

// schema is what the tables are made of.
func schema(t *testing.T, url string) string {
	t.Helper()
	return pgtest.Value[string](t, url, `SELECT string_agg(x, E'\n' ORDER BY x) FROM (
		SELECT 'column ' || concat_ws(' ', table_schema, table_name, column_name, data_type, collation_name, is_nullable, column_default) AS x
			FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
		UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname <> 'pg_catalog'
		UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid)
			FROM pg_constraint WHERE connamespace = 'public'::regnamespace
		UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
		UNION ALL SELECT 'function ' || oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
		UNION ALL SELECT 'options ' || relname || ' ' || reloptions::text
			FROM pg_class WHERE reloptions IS NOT NULL AND relnamespace = 'public'::regnamespace) AS y`)
}

func backup(t *testing.T, url, path string) {
	t.Helper()
	if err := Write(t.Context(), environment(url, key), []string{path}); err != nil {
		t.Fatal(err)
	}
}

// TestThereAndBack: all of a database comes back byte by byte, into an empty one and into one that is used, with another
// epoch, and with the schema that a new one has. The secret is in the file in no form but its sealed one.
func TestThereAndBack(t *testing.T) {
	url, path := filled(t, 20), filepath.Join(t.TempDir(), "b")
	want := content(t, url)
	backup(t, url, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	text := unpacked(t, path)
	for _, s := range []string{secret, key, token} {
		if strings.Contains(text, s) {
			t.Errorf("the file has %q", s)
		}
	}
	if !strings.Contains(text, "sealed:v1:") {
		t.Error("the file has nothing sealed")
	}
	if err := Write(t.Context(), environment(url, key), []string{path}); err == nil ||
		!strings.Contains(err.Error(), "is there already") {
		t.Errorf("a second backup to the same file: %v", err)
	}
	fresh := pgtest.Database(t)
	if err := Restore(t.Context(), environment(fresh, key), []string{path}); err != nil {
		t.Fatal(err)
	}
	used := filled(t, 3)
	if err := Restore(t.Context(), environment(used, key), []string{path}); !errors.Is(err, store.ErrUsed) {
		t.Fatalf("a used database: %v", err)
	}
	if err := Restore(t.Context(), environment(used, key), []string{"-replace", path}); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"fresh": fresh, "used": used} {
		if got := content(t, to); got != want {
			t.Errorf("%s: something is not what it was:\n%s\n\n%s", name, got, want)
		}
		if got := schema(t, to); got != schema(t, url) {
			t.Errorf("%s: the schema is another one:\n%s\n\n%s", name, got, schema(t, url))
		}
		if epoch(t, to) == epoch(t, url) {
			t.Errorf("%s: the epoch is the old one", name)
		}
	}
	st, box := open(t, used)
	more(t, st, box, 20, 23) // an api goes on
	var v store.Verified
	if err := st.Verify(t.Context(), &v, "", time.Now().Add(time.Hour)); err != nil || v.Broken != nil || !v.Done {
		t.Errorf("the audit after it: %+v %v", v.Broken, err)
	}
}

// passing are the tables that are in no backup, and why.
var passing = map[string]string{
	"sessions":         "who is signed in signs in again",
	"sign_in_attempts": "wrong passwords are counted anew",
	"sign_in_known":    "addresses become known to their accounts again by the next sign-in",
	"sign_in_used":     "an answer of a provider is for a browser's cookie of the last ten minutes",
	"issuance":         "what is to be issued is found anew from the certificates that were restored",
	"issuance_orders":  "when orders were made, which the authority counts too",
}

// TestEverything: a backup has each table that a migration has made, but those that are named with a reason.
func TestEverything(t *testing.T) {
	url, path := filled(t, 1), filepath.Join(t.TempDir(), "b")
	backup(t, url, path)
	text := unpacked(t, path)
	for _, name := range strings.Fields(pgtest.Value[string](t, url, `SELECT string_agg(relname, ' ') FROM pg_class
		WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'goose_db_version'`)) {
		if passing[name] == "" && !strings.Contains(text, `{"table":"`+name+`"`) {
			t.Errorf("the table %s is in no backup: add it to tables in services/api/internal/store/backup.go", name)
		}
	}
}

// TestRefused: whatever is wrong with a file, or with the key, is said, and nothing is changed.
func TestRefused(t *testing.T) {
	url, dir := filled(t, 5), t.TempDir()
	path := filepath.Join(dir, "b")
	backup(t, url, path)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := filled(t, 2)
	before, life := content(t, used), epoch(t, used)
	refused := func(what string, raw []byte, key, why string) {
		t.Helper()
		path := filepath.Join(dir, "wrong")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		err := Restore(t.Context(), environment(used, key), []string{"-replace", path})
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", what, err, why)
		}
		if content(t, used) != before || epoch(t, used) != life {
			t.Fatalf("%s: the database was changed", what)
		}
		if pgtest.Value[bool](t, used, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'marchproxy_restore')`) {
			t.Fatalf("%s: something was left in the database", what)
		}
	}
	for n := 1; n < len(whole); n += len(whole) / 3 {
		refused(fmt.Sprintf("cut by %d", n), whole[:len(whole)-n], key, "")
	}
	refused("cut by one byte", whole[:len(whole)-1], key, "damaged")
	for at := 12; at < len(whole); at += len(whole) / 3 {
		raw := bytes.Clone(whole)
		raw[at] ^= 0x10
		refused(fmt.Sprintf("altered at %d", at), raw, key, "")
	}
	refused("something after it", append(bytes.Clone(whole), whole...), key, "damaged")
	refused("another key", whole, otherKey, "another SECRET_KEY")
	refused("no backup", []byte("hello"), key, "no backup")
	text := unpacked(t, path)
	refused("another format", packed(t, strings.Replace(text, "backup v1", "backup v9", 1)), key, "this version can read")
	refused("written by somebody", packed(t, strings.Replace(text, "r1.example.com", "r9.example.com", 1)), key, "hash")
	refused("of a later version", packed(t, strings.Replace(text, `"schema":`, `"schema":9`, 1)), key, "later version")
	lines := strings.SplitAfter(text, "\n")
	refused("a table of somebody's", packed(t, lines[0]+`{"table":"pg_authid","columns":["rolname"]}`+"\n"+end), key,
		"does not know")
	refused("without signature", packed(t, strings.Join(lines[:len(lines)-2], "")), key, "damaged")

	// Nobody makes a backup that does not open.
	if err := Write(t.Context(), environment(url, otherKey), []string{filepath.Join(dir, "no")}); err == nil ||
		!strings.Contains(err.Error(), "AuthPolicy/p: jwt.keys.one.secret: sealed with another SECRET_KEY") {
		t.Errorf("a backup with another key: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "no*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
	if err := Restore(t.Context(), environment(used, key), []string{"-check", path}); err != nil ||
		content(t, used) != before {
		t.Errorf("-check: %v", err)
	}
	if err := Restore(t.Context(), environment(used, otherKey+","+key), []string{"-replace", path}); err != nil {
		t.Errorf("after a rotation: %v", err)
	}
}

// TestOlder: a backup of what an older version has made changes nothing there, and is brought to this version where it is
// restored.
func TestOlder(t *testing.T) {
	url := filled(t, 3)
	// As it was before the audit was a chain.
	pgtest.Exec(t, url, `DELETE FROM token_changes WHERE name LIKE 'ann%'; DELETE FROM tokens WHERE name LIKE 'ann%';
		DROP INDEX audit_by_revision; ALTER TABLE token_changes DROP COLUMN n,
			DROP COLUMN kind, DROP CONSTRAINT token_changes_action_check;
		ALTER TABLE token_changes ADD CONSTRAINT token_changes_action_check CHECK (action IN ('create', 'delete'));
		ALTER TABLE tokens DROP COLUMN user_id; DROP TABLE users, sign_in_attempts, sign_in_known, sign_in_used;
		ALTER TABLE config_head DROP COLUMN chain_n, DROP COLUMN chain_hash, DROP COLUMN chain_revision;
		DROP TABLE audit_anchor, audit_chain; ALTER TABLE changes DROP COLUMN since, DROP COLUMN was;
		DROP TABLE sessions, issuance, issuance_orders, issuance_accounts; DELETE FROM goose_db_version WHERE version_id > 7`)
	path := filepath.Join(t.TempDir(), "b")
	backup(t, url, path)
	if v := pgtest.Value[int64](t, url, `SELECT max(version_id) FROM goose_db_version`); v != 7 {
		t.Errorf("the backup has migrated the database to %d", v)
	}
	fresh := pgtest.Database(t)
	if err := Restore(t.Context(), environment(fresh, key), []string{path}); err != nil {
		t.Fatal(err)
	}
	if got, want := schema(t, fresh), schema(t, filled(t, 1)); got != want {
		t.Errorf("the schema is not that of this version:\n%s\n\n%s", got, want)
	}
}

// TestSnapshot: what is written while a backup is made is either in it or not, and never half.
func TestSnapshot(t *testing.T) {
	url := filled(t, 5)
	st, box := open(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := 5; ctx.Err() == nil; i++ {
			more(t, st, box, i, i+1)
		}
	}()
	for i := range 3 {
		path := filepath.Join(t.TempDir(), fmt.Sprint("b", i))
		backup(t, url, path)
		if err := Restore(t.Context(), environment(pgtest.Database(t), key), []string{path}); err != nil {
			t.Error(err)
		}
	}
	cancel()
	<-written
}

func unpacked(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // read only
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func packed(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
