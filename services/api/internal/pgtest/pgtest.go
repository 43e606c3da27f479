// Package pgtest gives the tests of a package a real PostgreSQL, the one that `marchproxy dev` runs, and each
// test a database of its own on it.
package pgtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	_ "github.com/marchproxy/marchproxy/pkg/hermetic" // what the user has set is for other programs
	"github.com/marchproxy/marchproxy/pkg/porttest"
)

// variable carries the server's URL from [Main] to the tests.
const variable = "MARCHPROXY_PGTEST_URL"

// Main runs a package's tests beside a server of their own: os.Exit(pgtest.Main(m)).
func Main(m *testing.M) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop, err := start(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return 1
	}
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return 1
	}
	return code
}

func start(ctx context.Context) (stop func() error, err error) {
	dir, err := os.MkdirTemp("", "marchproxy-pgtest-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // the server's user must get in
		return nil, err
	}
	bin := filepath.Join(dir, "marchproxy")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin,
		"github.com/marchproxy/marchproxy/services/cli/cmd/marchproxy").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	ports, err := porttest.Take(1)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, bin, "dev", "database", "--state-dir", dir, "--postgres-port", strconv.Itoa(ports[0]))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // a test that times out stops nothing itself
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the database does not start: %s", complaints.String()), cmd.Wait())
	}
	if err := os.Setenv(variable, strings.TrimSpace(line)); err != nil {
		return nil, err
	}
	return func() error {
		return errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait(), remove(dir))
	}, nil
}

// remove removes a directory in which a server that was killed may still write for a moment.
func remove(dir string) (err error) {
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if err = os.RemoveAll(dir); err == nil || time.Now().After(limit) {
			return err
		}
	}
}

// Database makes an empty database and returns its URL.
func Database(t testing.TB) string {
	t.Helper()
	return create(t, "", "")
}

// DatabaseIn makes an empty database whose tables are in a directory, which the server takes over; the log stays where
// it was. The test's end removes it.
func DatabaseIn(t testing.TB, dir string) string {
	t.Helper()
	if os.Geteuid() == 0 { // the server is not
		if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chown(dir, nobody, nobody)); err != nil {
			t.Fatal(err)
		}
	}
	server := os.Getenv(variable)
	space := "space_" + strconv.FormatInt(time.Now().UnixNano(), 36)
	Exec(t, server, "CREATE TABLESPACE "+space+" LOCATION '"+dir+"'")
	database := create(t, "", space)
	t.Cleanup(func() {
		name := database[strings.LastIndexByte(database, '/')+1:]
		name, _, _ = strings.Cut(name, "?")
		Exec(t, server, "DROP DATABASE "+name+" WITH (FORCE)")
		Exec(t, server, "DROP TABLESPACE "+space)
	})
	return database
}

// nobody is the user that the server runs as where the test is root.
const nobody = 65534

// Copy makes a database of what another holds at this moment: a backup. Connections to the other are cut.
func Copy(t testing.TB, of string) string {
	t.Helper()
	return create(t, of, "")
}

// Restore takes back what was written after a revision, as an older backup does that is restored in place. Objects that
// there were already must not have been changed since.
func Restore(t testing.TB, database string, revision int64) {
	t.Helper()
	Exec(t, database, fmt.Sprintf(
		`BEGIN; DELETE FROM changes WHERE revision > %[1]d; DELETE FROM revisions WHERE revision > %[1]d;
		DELETE FROM resources WHERE revision > %[1]d;
		DELETE FROM audit_chain WHERE n >= (SELECT min(n) FROM audit_chain WHERE revision > %[1]d);
		DELETE FROM token_changes WHERE n NOT IN (SELECT n FROM audit_chain);
		UPDATE config_head SET chain_revision = %[1]d, chain_n = last.n, chain_hash = last.hash FROM (SELECT n, hash FROM audit_chain ORDER BY n DESC LIMIT 1) AS last;
		UPDATE config_head SET revision = %[1]d, state = (SELECT state FROM revisions WHERE revision = %[1]d); COMMIT`,
		revision,
	))
}

// Exec runs a statement as the database's owner.
func Exec(t testing.TB, database, sql string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, sql, args...); err != nil {
		t.Fatal(err)
	}
}

// Value is what a query answers with.
func Value[T any](t testing.TB, database, sql string, args ...any) (out T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }() // read only
	if err := conn.QueryRow(ctx, sql, args...).Scan(&out); err != nil {
		t.Fatal(sql, err)
	}
	return out
}

// Hold runs a statement in a transaction that stays open, with its locks, until release is called.
func Hold(t testing.TB, database, sql string) (release func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, "BEGIN; "+sql); err != nil {
		t.Fatal(err)
	}
	release = func() { _ = conn.Close(context.Background()) } // the transaction ends with it
	t.Cleanup(release)
	return release
}

// Waiting waits until a connection to the database waits for a lock.
func Waiting(t testing.TB, database string) {
	t.Helper()
	const sql = `SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = ` +
		`current_database()`
	for limit := time.Now().Add(30 * time.Second); Value[int64](t, database, sql) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("nobody waits for a lock")
		}
	}
}

func create(t testing.TB, template, space string) string {
	t.Helper()
	server := os.Getenv(variable)
	u, err := url.Parse(server)
	if err != nil || server == "" {
		t.Fatal("pgtest: the package's TestMain does not call pgtest.Main")
	}
	name := "test_" + strconv.FormatInt(time.Now().UnixNano(), 36)
	statement := "CREATE DATABASE " + name
	if template != "" {
		old, err := url.Parse(template)
		if err != nil {
			t.Fatal(err)
		}
		from := strings.TrimPrefix(old.Path, "/")
		Exec(t, server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", from)
		statement += " TEMPLATE " + from
	}
	if space != "" {
		statement += " TABLESPACE " + space
	}
	Exec(t, server, statement)
	u.Path = "/" + name
	return u.String()
}
