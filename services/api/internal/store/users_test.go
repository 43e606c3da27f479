package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// person makes a user, whose sessions and token have his name.
func person(t *testing.T, st *store.Store, name, role string) store.UserRow {
	t.Helper()
	u := store.UserRow{Identity: auth.Identity{Name: name, Role: role}, Password: "hash of " + name}
	if err := st.CreateUser(t.Context(), &u, store.By{Who: auth.System()}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{name, name + " elsewhere"} {
		if err := st.CreateSession(t.Context(), auth.Sum(s), nil, u.Identity, store.SessionRow{}); err != nil {
			t.Fatal(err)
		}
	}
	row := store.TokenRow{Token: auth.Token{Identity: auth.Identity{Name: name + "/t", Role: role, Of: &u.Identity}}}
	if err := st.CreateToken(t.Context(), &row, auth.Sum(name+" token"), store.By{Who: u.Identity}); err != nil {
		t.Fatal(err)
	}
	return u
}

// TestUsers: what is changed of a user holds for his sessions and tokens from the next look on, and what ends them ends
// all of them; the audit has it, and never a password.
func TestUsers(t *testing.T) {
	url := pgtest.Database(t)
	st, other := opened(t, url, secret), opened(t, url, secret)
	by := store.By{Who: auth.System()}
	role := func(what, want string, look func(*store.Store) (auth.Token, bool, error)) {
		t.Helper()
		got, found, err := look(other)
		has := "none"
		if found {
			has = got.Role
			if got.Of != nil {
				has = auth.Least(got.Role, got.Of.Role)
			}
		}
		if err != nil || has != want {
			t.Errorf("%s has the role %s, want %s; %v", what, has, want, err)
		}
	}
	session := func(name, want string) {
		t.Helper()
		role("session "+name, want, func(s *store.Store) (auth.Token, bool, error) {
			return s.Session(t.Context(), auth.Sum(name))
		})
	}
	token := func(name, want string) {
		t.Helper()
		role("token of "+name, want, func(s *store.Store) (auth.Token, bool, error) {
			return s.Token(t.Context(), auth.Sum(name+" token"))
		})
	}
	change := func(name string, f func(*store.UserRow)) {
		t.Helper()
		if _, err := st.ChangeUser(t.Context(), name, func(u *store.UserRow) error { f(u); return nil }, nil, nil,
			by); err != nil {
			t.Fatal(err)
		}
	}
	// A token of one's own is no way in for an admin, and can be deleted where there is no other.
	pam, err := st.FromProvider(t.Context(), store.UserRow{Issuer: "https://id.test", Subject: "1"}, "pam", auth.Admin, "")
	if err != nil {
		t.Fatal(err)
	}
	own := store.TokenRow{Token: auth.Token{Identity: auth.Identity{Name: "pam/t", Role: auth.Admin, Of: &pam.Identity}}}
	if err := st.CreateToken(t.Context(), &own, auth.Sum("pam token"), by); err != nil {
		t.Fatal(err)
	}
	if _, err := st.DeleteToken(t.Context(), "pam/t", by); err != nil {
		t.Errorf("a token of one's own is deleted: %v", err)
	}
	person(t, st, "ann", auth.Admin)
	u := person(t, st, "bob", auth.Operator)
	session("bob", auth.Operator)
	token("bob", auth.Operator)
	change("bob", func(u *store.UserRow) { u.Role = auth.Viewer })
	session("bob", auth.Viewer)
	token("bob", auth.Viewer)
	change("bob", func(u *store.UserRow) { u.Disabled = true })
	session("bob", "none")
	token("bob", "none")
	change("bob", func(u *store.UserRow) { u.Disabled = false })
	session("bob", "none") // it was ended
	token("bob", auth.Viewer)

	// Another password ends all sessions but the one that it was changed by, which has another secret from then on.
	if err := st.CreateSession(t.Context(), auth.Sum("bob"), nil, u.Identity, store.SessionRow{}); err != nil {
		t.Fatal(err)
	}
	if err := st.CreateSession(t.Context(), auth.Sum("stolen"), nil, u.Identity, store.SessionRow{}); err != nil {
		t.Fatal(err)
	}
	if _, err := st.ChangeUser(t.Context(), "bob", func(u *store.UserRow) error { u.Password = "hash two"; return nil },
		auth.Sum("bob"), auth.Sum("bob again"), by); err != nil {
		t.Fatal(err)
	}
	session("bob", "none")
	session("stolen", "none")
	session("bob again", auth.Viewer)
	session("ann", auth.Admin)

	// The last way in for an admin stays, whichever way it would go.
	for what, err := range map[string]error{
		"deleted":  func() error { _, err := st.DeleteUser(t.Context(), "ann", by); return err }(),
		"demoted":  last(t, st, func(u *store.UserRow) { u.Role = auth.Editor }),
		"disabled": last(t, st, func(u *store.UserRow) { u.Disabled = true }),
	} {
		if !errors.Is(err, store.ErrLastAdmin) {
			t.Errorf("the last admin is %s: %v", what, err)
		}
	}
	session("ann", auth.Admin)
	if _, err := st.DeleteUser(t.Context(), "bob", by); err != nil {
		t.Fatal(err)
	}
	session("bob again", "none")
	token("bob", "none")
	if n := pgtest.Value[int64](t, url, `SELECT count(*) FROM tokens`); n != 1 {
		t.Errorf("%d tokens are left, want that of ann", n)
	}

	// A token whose user is not there is nobody's, and not the system's.
	person(t, st, "cid", auth.Editor)
	pgtest.Exec(t, url, `DELETE FROM users WHERE name = 'cid'`)
	token("cid", "none")
	session("cid", "none")

	// Names are of one person or one token.
	twice := store.UserRow{Identity: auth.Identity{Name: "ann", Role: auth.Viewer}, Password: "x"}
	if err := st.CreateUser(t.Context(), &twice, by); !errors.Is(err, store.ErrUserExists) {
		t.Errorf("a second ann: %v", err)
	}
	named := store.TokenRow{Token: auth.Token{Identity: auth.Identity{Name: "ann", Role: auth.Viewer}}}
	if err := st.CreateToken(t.Context(), &named, auth.Sum("x"), by); !errors.Is(err, store.ErrTokenExists) {
		t.Errorf("a token with a user's name: %v", err)
	}
	if fresh, err := st.Bootstrap(t.Context(), auth.Sum("first")); err != nil || fresh {
		t.Errorf("a first token beside users: %v %v", fresh, err)
	}

	rows, err := st.Audit(t.Context(), store.AuditFilter{Kind: "User", Name: "bob", Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, r := range rows {
		said = append(said, r.Action+" "+r.Message)
	}
	want := fmt.Sprintf("[delete role viewer, id %[1]s update another password update enabled update disabled update role "+
		"viewer instead of role operator create role operator, id %[1]s]", u.ID)
	if fmt.Sprint(said) != want {
		t.Errorf("the audit says\n%v, want\n%s", said, want)
	}
	if v := verified(t, st, ""); v.Broken != nil {
		t.Errorf("the audit's chain: %+v", v.Broken)
	}
}

func last(t *testing.T, st *store.Store, f func(*store.UserRow)) error {
	t.Helper()
	_, err := st.ChangeUser(t.Context(), "ann", func(u *store.UserRow) error { f(u); return nil }, nil, nil,
		store.By{Who: auth.System()})
	return err
}

// TestAttempts: wrong passwords are counted before they are looked at, by all apis together, by account and by address;
// an address that the account knows has a count of its own; and the tables do not grow with what is tried.
func TestAttempts(t *testing.T) {
	url := pgtest.Database(t)
	stores := []*store.Store{opened(t, url, secret), opened(t, url, secret)}
	st := stores[0]
	tallies := func(name, address string) []store.Tally {
		t.Helper()
		s, err := st.Tallies(t.Context(), name, address)
		if err != nil {
			t.Fatal(err)
		}
		for i := range s { // longer than this test takes on a slow machine
			s[i].First, s[i].Longest = time.Minute, time.Hour
		}
		return s
	}
	// Fifty at the same time, from as many addresses: no more are looked at than may be wrong.
	var looked, slowing atomic.Int64
	var all sync.WaitGroup
	for i := range 50 {
		of := tallies("ann", fmt.Sprintf("192.0.2.%d", i))
		all.Go(func() {
			wait, first, err := stores[i%2].Attempt(t.Context(), of)
			if err != nil {
				t.Error(err)
			}
			if wait == 0 {
				looked.Add(1)
			}
			if first {
				slowing.Add(1)
			}
		})
	}
	all.Wait()
	if looked.Load() != 5 || slowing.Load() != 1 {
		t.Errorf("%d of fifty guesses at one account are looked at, want 5; %d say that they are the last, want 1",
			looked.Load(), slowing.Load())
	}
	// The pause grows, and does not end with waiting guesses.
	for _, pause := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		wait, _, err := st.Attempt(t.Context(), tallies("ann", "192.0.2.1"))
		if err != nil || wait <= pause/2 || wait > pause {
			t.Errorf("the pause is %v, want about %v; %v", wait, pause, err)
		}
		pgtest.Exec(t, url, `UPDATE sign_in_attempts SET at = at - $1::interval`, pause)
		if wait, _, err := st.Attempt(t.Context(), tallies("ann", "192.0.2.1")); err != nil || wait != 0 {
			t.Errorf("after its pause the account still waits %v; %v", wait, err)
		}
	}
	// Whoever has signed in from an address is not kept out there by who guesses elsewhere.
	if err := st.Passed(t.Context(), tallies("ann", "198.51.100.7"), "ann", "198.51.100.7"); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, _, err := st.Attempt(t.Context(), tallies("ann", "192.0.2.1")); err != nil {
			t.Fatal(err)
		}
	}
	if wait, _, err := st.Attempt(t.Context(), tallies("ann", "198.51.100.7")); err != nil || wait != 0 {
		t.Errorf("at a known address the account waits %v; %v", wait, err)
	}
	if wait, _, err := st.Attempt(t.Context(), tallies("bob", "198.51.100.7")); err != nil || wait != 0 {
		t.Errorf("another account waits %v; %v", wait, err)
	}
	// An address that tries one account after another is slowed down, also where its own is right meanwhile.
	var waits int
	for i := range 60 {
		name := fmt.Sprint("nobody", i)
		of := tallies(name, "203.0.113.9")
		wait, _, err := st.Attempt(t.Context(), of)
		if err != nil {
			t.Fatal(err)
		}
		if wait > 0 {
			waits++
		}
		if i%10 == 9 && wait == 0 {
			if err := st.Passed(t.Context(), of, "own", "203.0.113.9"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if waits < 30 {
		t.Errorf("of 60 accounts that one address tries, %d had to wait", waits)
	}
	if n := pgtest.Value[int64](t, url, `SELECT max(length(tally)) FROM sign_in_attempts`); n != 3 {
		t.Errorf("a tally has %d bytes: there is no end of them", n)
	}
	pgtest.Exec(t, url, `UPDATE sign_in_attempts SET at = at - interval '2 hours'`)
	if err := st.ForgetAttempts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := pgtest.Value[int64](t, url, `SELECT count(*) FROM sign_in_attempts`); n != 0 {
		t.Errorf("%d old attempts are kept", n)
	}
	ann, bob := tallies("ann", "a"), tallies("bob", "b")
	if bytes.Equal(ann[0].Key, bob[0].Key) && bytes.Equal(ann[1].Key, bob[1].Key) {
		t.Error("two accounts at two addresses share both")
	}
	for i, want := range []bool{true, false} {
		if first, err := stores[i].Once(t.Context(), "state"); err != nil || first != want {
			t.Errorf("use %d of what is of use once: %v %v", i+1, first, err)
		}
	}
}
