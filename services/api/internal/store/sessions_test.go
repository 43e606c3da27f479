package store_test

import (
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// TestSessions: a session ends when it is ended, when another one takes its place, with its token, and when the first
// token gets another secret; and not later than its token does.
func TestSessions(t *testing.T) {
	st := opened(t, pgtest.Database(t), secret)
	if err := st.SetBootstrap(t.Context(), auth.Sum("first")); err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(time.Minute).Truncate(time.Millisecond)
	row := store.TokenRow{Token: auth.Token{Identity: auth.Identity{Name: "ci", Role: auth.Viewer}, ExpiresAt: soon}}
	if err := st.CreateToken(t.Context(), &row, auth.Sum("ci"), store.By{Who: auth.System()}); err != nil {
		t.Fatal(err)
	}
	first, _, err := st.Token(t.Context(), auth.Sum("first"))
	if err != nil {
		t.Fatal(err)
	}
	begin := func(name, old, token string) {
		t.Helper()
		var sum []byte
		if old != "" {
			sum = auth.Sum(old)
		}
		if err := st.CreateSession(t.Context(), auth.Sum(name), sum, auth.Identity{ID: token}, store.SessionRow{}); err != nil {
			t.Fatal(err)
		}
	}
	lives := func(name string, want bool) auth.Token {
		t.Helper()
		got, found, err := st.Session(t.Context(), auth.Sum(name))
		if err != nil || found != want {
			t.Errorf("session %s is there: %v, want %v; %v", name, found, want, err)
		}
		return got
	}
	begin("a", "", first.ID)
	begin("b", "", row.ID)
	if got := lives("a", true); got.Name != auth.BootstrapName || got.Role != auth.Admin || got.ExpiresAt.Before(soon) {
		t.Errorf("%+v", got)
	}
	if got := lives("b", true); got.Name != "ci" || !got.ExpiresAt.Equal(soon) {
		t.Errorf("%+v, its token ends at %v", got, soon)
	}
	if _, found, err := st.Token(t.Context(), auth.Sum("a")); err != nil || found {
		t.Errorf("a session's secret is a token's: %v", err)
	}
	begin("c", "a", first.ID)
	lives("a", false)
	if _, err := st.DeleteToken(t.Context(), "ci", store.By{Who: auth.System()}); err != nil {
		t.Fatal(err)
	}
	lives("b", false)
	if err := st.SetBootstrap(t.Context(), auth.Sum("first")); err != nil { // as each start of the api does
		t.Fatal(err)
	}
	lives("c", true)
	if err := st.SetBootstrap(t.Context(), auth.Sum("another")); err != nil {
		t.Fatal(err)
	}
	lives("c", false)
	begin("d", "", first.ID)
	for range 2 {
		if err := st.DeleteSession(t.Context(), auth.Sum("d")); err != nil {
			t.Fatal(err)
		}
	}
	lives("d", false)
}
