package pgtest

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// TestDatabase: the tests' server, which is dev's, is the same on every machine and touches nothing outside its
// directory.
func TestDatabase(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }() // read only
	for setting, want := range map[string]string{
		"server_encoding": "UTF8", "lc_messages": "C", "unix_socket_directories": "", "dynamic_shared_memory_type": "mmap",
		"listen_addresses": "127.0.0.1",
	} {
		var got string
		if err := conn.QueryRow(t.Context(), "SELECT current_setting($1)", setting).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q %v, want %q", setting, got, err, want)
		}
	}
	var collation string
	if err := conn.QueryRow(t.Context(), "SELECT datcollate FROM pg_database WHERE datname = current_database()").
		Scan(&collation); err != nil || collation != "C" {
		t.Errorf("the collation is %q %v, want C", collation, err)
	}
}
