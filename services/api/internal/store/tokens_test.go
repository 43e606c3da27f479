package store_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// TestFirstToken: the first token is made once, and the audit says by whom; one that an api of the version before has
// made, which knows neither ids nor ends, is what it was.
func TestFirstToken(t *testing.T) {
	url := pgtest.Database(t)
	st := opened(t, url, secret)
	for _, want := range []bool{true, false} {
		if fresh, err := st.Bootstrap(t.Context(), auth.Sum("first")); err != nil || fresh != want {
			t.Fatalf("%v %v, want %v", fresh, err, want)
		}
	}
	first, found, err := st.Token(t.Context(), auth.Sum("first"))
	if err != nil || !found || first.ID == "" || first.Name != auth.BootstrapName || first.Role != auth.Admin {
		t.Errorf("%+v %v %v", first, found, err)
	}
	rows, err := st.Audit(t.Context(), store.AuditFilter{Kind: "Token", Limit: 10})
	if err != nil || len(rows) != 1 || rows[0].Actor != auth.SystemName || rows[0].Name != auth.BootstrapName ||
		!strings.Contains(rows[0].Message, first.ID) {
		t.Errorf("the audit: %+v %v", rows, err)
	}

	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), `INSERT INTO tokens (name, role, sha256, created_at) VALUES ('ci', 'editor', $1,`+
		` now())`, auth.Sum("old")); err != nil {
		t.Fatal(err)
	}
	old, found, err := st.Token(t.Context(), auth.Sum("old"))
	if err != nil || !found || old.ID == "" || old.Role != auth.Editor || !old.Bounds.Empty() || !old.ExpiresAt.IsZero() {
		t.Errorf("%+v %v %v", old, found, err)
	}
}
