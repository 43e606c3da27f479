package store_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/audit"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

const (
	secret  = "the secret key of this test"
	another = "another secret key of this test"
)

// opened is a store that signs with the first of some secrets.
func opened(t testing.TB, url, secrets string) *store.Store {
	t.Helper()
	box, err := seal.New(secrets)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), url, box)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// by is who writes in these tests.
var by = store.By{
	Who:       auth.Identity{Name: "ada", ID: "4fd1c7b6-0000-0000-0000-000000000001", Role: auth.Admin},
	RequestID: "req",
}

// write makes a revision of some services, as the writer does, after whatever there is.
func write(t testing.TB, s *store.Store, services int) {
	t.Helper()
	tx, err := s.Begin(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	n := tx.Revision + 1
	r := store.Record{
		Revision: n, At: time.Now(), Actor: by.Who.Name, ActorID: by.Who.ID, Message: fmt.Sprint("write ", n),
		RequestID: by.RequestID,
		State:     map[string]resource.KindState{"Service": {Count: n, Hash: strings.Repeat("0", 64)}},
	}
	for i := range services {
		o, err := resource.New(resource.Ref{Kind: "Service", Name: fmt.Sprintf("s-%d-%d", n, services-i)},
			&configv1.Service{Endpoints: []*configv1.Endpoint{{Host: "192.0.2.1", Port: 80}}})
		if err != nil {
			t.Fatal(err)
		}
		o.Revision = n
		r.Changes = append(r.Changes, config.Change{After: o})
	}
	if err := tx.Commit(t.Context(), []store.Record{r}); err != nil {
		t.Fatal(err)
	}
}

// token makes a token, or deletes it.
func token(t testing.TB, s *store.Store, name string, made bool) {
	t.Helper()
	row := store.TokenRow{Token: auth.Token{Identity: auth.Identity{Name: name, Role: auth.Viewer}}, CreatedAt: time.Now()}
	err := s.CreateToken(t.Context(), &row, auth.Sum(name), by)
	if !made {
		_, err = s.DeleteToken(t.Context(), name, by)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// history is nine records: seven revisions of three services each, and two tokens.
func history(t testing.TB, s *store.Store) {
	t.Helper()
	for n := range 7 {
		write(t, s, 3)
		if n == 1 || n == 4 {
			token(t, s, fmt.Sprint("t", n), true)
		}
	}
}

// verified verifies in pages that end as early as they may, and takes what is handed on through JSON, as the API does.
func verified(t testing.TB, s *store.Store, hash string) store.Verified {
	t.Helper()
	var v store.Verified
	for range 1000 {
		if err := s.Verify(t.Context(), &v, hash, time.Now()); err != nil {
			t.Fatal(err)
		}
		if v.Done || v.Broken != nil {
			return v
		}
		raw, err := json.Marshal(&v)
		if err != nil {
			t.Fatal(err)
		}
		v = store.Verified{}
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("no end")
	return v
}

// whole fails unless the audit has so many records, all of which fit.
func whole(t testing.TB, s *store.Store, records int64) store.Verified {
	t.Helper()
	v := verified(t, s, "")
	if v.Broken != nil || v.Records != records || v.Unchained != 0 || v.FoundN != nil {
		t.Fatalf("%+v %+v, want %d records", v, v.Broken, records)
	}
	return v
}

// exported is the whole audit as a file.
func exported(t testing.TB, s *store.Store, since, until time.Time) []byte {
	t.Helper()
	h, err := s.Stretch(t.Context(), since, until)
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, '\n')
	if err := s.Export(t.Context(), h, func(lines []byte) error {
		out = append(out, lines...)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// number is a record's, -1 for none.
func number(n *int64) int64 {
	if n == nil {
		return -1
	}
	return *n
}

// TestChain: what is written is chained, in order, and the file of it can be checked against itself and the database.
func TestChain(t *testing.T) {
	url := pgtest.Database(t)
	s := opened(t, url, secret)
	if v := whole(t, s, 0); v.Last.N != 0 || v.Last.Hash != "" {
		t.Errorf("%+v", v)
	}
	history(t, s)
	v := whole(t, s, 9)
	if v.Entries != 23 || v.Adopted != 0 || v.Unproven != 0 || v.Revision != 7 {
		t.Errorf("%+v", v)
	}
	_, head, err := s.Ends(t.Context())
	if err != nil || head != v.Last || len(head.Hash) != 64 {
		t.Errorf("%+v %v, verified until %+v", head, err, v.Last)
	}
	file := exported(t, s, time.Time{}, time.Time{})
	got, err := audit.Check(bytes.NewReader(file), "", nil)
	if err != nil || got.Last != v.Last || got.Records != 9 || got.Entries != 23 || got.After.N != 0 {
		t.Errorf("%+v %v\n%s", got, err, file)
	}
	// Every record's hash is found in both.
	for _, line := range strings.Split(strings.TrimSpace(string(file)), "\n")[1:] {
		var l audit.Line
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if v := verified(t, s, l.Hash); v.FoundN == nil || *v.FoundN != l.N || !v.Done {
			t.Errorf("record %d is found as %v", l.N, number(v.FoundN))
		}
	}
	if v := verified(t, s, strings.Repeat("00", 32)); v.FoundN != nil {
		t.Errorf("a hash that there never was is that of record %d", number(v.FoundN))
	}
	// What the database's own order of names is does not matter: three services of a revision were given backwards.
	if !strings.Contains(string(file), `"name":"s-1-1","action":"create"},{"kind":"Service","name":"s-1-2"`) {
		t.Errorf("entries are not in order:\n%s", file)
	}
	// A part by time.
	at := pgtest.Value[time.Time](t, url, `SELECT at FROM audit_chain WHERE n = 4`)
	for what, c := range map[string]struct {
		since, until   time.Time
		after, records int64
	}{
		"since":   {at, time.Time{}, 3, 6},
		"until":   {time.Time{}, at, 0, 3},
		"both":    {at, at.Add(time.Microsecond), 3, 1},
		"nothing": {at.Add(time.Hour), time.Time{}, 9, 0},
		"before":  {time.Time{}, at.Add(-time.Hour), 0, 0},
		"neither": {at.Add(time.Hour), at.Add(-time.Hour), 9, 0},
	} {
		if got, err := audit.Check(bytes.NewReader(exported(t, s, c.since, c.until)), "", nil); err != nil ||
			got.After.N != c.after || got.Records != c.records {
			t.Errorf("%s: %+v %v", what, got, err)
		}
	}
}

// TestTampered: whatever somebody changes who has the database and not SECRET_KEY, the first record that does not fit
// is named.
func TestTampered(t *testing.T) {
	for what, c := range map[string]struct {
		sql    string
		n      int64
		reason string
	}{
		"a revision's actor":  {`UPDATE revisions SET actor = 'bob' WHERE revision = 4`, 5, "was changed"},
		"a revision's reason": {`UPDATE revisions SET message = '' WHERE revision = 4`, 5, "was changed"},
		"a revision's time": {
			`UPDATE revisions SET at = at + interval '1 us' WHERE revision = 4`, 5,
			"was changed",
		},
		"a revision's token":   {`UPDATE revisions SET actor_id = '' WHERE revision = 4`, 5, "was changed"},
		"a revision's request": {`UPDATE revisions SET request_id = 'x' WHERE revision = 4`, 5, "was changed"},
		"a revision's configuration": {`UPDATE revisions SET state = '{"Service":{"count":9,"hash":"00"}}' WHERE ` +
			`revision = 4`, 5, "configuration's hash"},
		"an object's name": {
			`UPDATE changes SET name = 'x' WHERE revision = 4 AND name = 's-4-2'`, 5,
			"was changed",
		},
		"an object's kind": {
			`UPDATE changes SET kind = 'Route' WHERE revision = 4 AND name = 's-4-2'`, 5,
			"was changed",
		},
		"what was done to an object": {
			`UPDATE changes SET before = '{}' WHERE revision = 4 AND name = 's-4-2'`, 5,
			"was changed",
		},
		"a token's actor":          {`UPDATE token_changes SET actor = 'bob' WHERE name = 't4'`, 7, "was changed"},
		"what was done to a token": {`UPDATE token_changes SET action = 'delete' WHERE name = 't4'`, 7, "was changed"},
		"a token's role": {
			`UPDATE token_changes SET message = 'role viewer' WHERE name = 't4'`, 7,
			"was changed",
		},
		"a revision is gone": {`DELETE FROM revisions WHERE revision = 4`, 5, "had 3 entries, and has 0"},
		"an object is gone": {
			`DELETE FROM changes WHERE revision = 4 AND name = 's-4-2'`, 5,
			"had 3 entries, and has 2",
		},
		"a token's entry is gone": {`DELETE FROM token_changes WHERE name = 't4'`, 7, "had 1 entries, and has 0"},
		"a revision is gone, chained": {`DELETE FROM revisions WHERE revision = 4; DELETE FROM changes WHERE revision = ` +
			`4; DELETE FROM audit_chain WHERE n = 5`, 5, "the next record in the audit is 6"},
		"the first one is gone": {`DELETE FROM revisions WHERE revision = 1; DELETE FROM changes WHERE revision = ` +
			`1; DELETE FROM audit_chain WHERE n = 1`, 1, "the next record in the audit is 2"},
		"an object is added": {
			`INSERT INTO changes (revision, kind, name, after) VALUES (4, 'Service', 'z', '{}')`,
			5, "had 3 entries, and has 4",
		},
		"an old entry is added": {
			`INSERT INTO audit VALUES (now(), 4, 'Service', 'z', 'create', 'bob', '', '')`, 5,
			"than the rest of its revision",
		},
		"an older entry is added": {
			`INSERT INTO audit VALUES (now(), 0, 'Service', 'z', 'create', 'bob', '', '')`, 9,
			"belong to no record",
		},
		"a later entry is added": {
			`INSERT INTO audit VALUES (now(), 99, 'Service', 'z', 'create', 'bob', '', '')`, 9,
			"belong to no record",
		},
		"a token's entry is added": {`INSERT INTO token_changes (at, actor, request_id, action, name, role, n) VALUES ` +
			`(now(), 'bob', '', 'create', 'x', 'admin', 99)`, 9, "belong to no record"},
		"two are swapped": {`UPDATE revisions SET revision = 99 WHERE revision = 4; UPDATE revisions SET ` +
			`revision = 4 WHERE revision = 5; UPDATE revisions SET revision = 5 WHERE revision = 99`, 5, "was changed"},
		"two are swapped, chained": {`UPDATE audit_chain SET n = 99 WHERE n = 5; UPDATE audit_chain SET n = 5 WHERE n ` +
			`= 6; UPDATE audit_chain SET n = 6 WHERE n = 99`, 5, "its revision is 5, and that before it 3"},
		"the last is gone": {`DELETE FROM audit_chain WHERE n = 9`, 9, "the audit's head is record 9"},
		"the last is gone, its head": {`DELETE FROM audit_chain WHERE n = 9; UPDATE config_head SET chain_n = 8,` +
			` chain_hash = (SELECT hash FROM audit_chain WHERE n = 8)`, 8, "is not the audit's head"},
		"the head is another": {`UPDATE config_head SET chain_hash = sha256('x')`, 9, "is not the audit's head"},
		"the hash is another": {`UPDATE audit_chain SET hash = sha256('x') WHERE n = 5`, 5, "was changed"},
		"the signature is another": {
			`UPDATE audit_chain SET signature = sha256('x') WHERE n = 5`, 5,
			"somebody else has written it",
		},
		"the signature's key is": {
			`UPDATE audit_chain SET key = 'abcdabcd' WHERE n = 5`, 5,
			"was an earlier one, give it as well",
		},
		"the chain's time is another": {
			`UPDATE audit_chain SET at = at - interval '1 day' WHERE n = 5`, 5,
			"time in the chain",
		},
		"it is said to be older": {`UPDATE audit_chain SET adopted = now() WHERE n = 5`, 5, "was changed"},
		"a beginning is made up": {`UPDATE audit_anchor SET n = 2, revision = 2, hash = (SELECT hash FROM ` +
			`audit_chain WHERE n = 2), key = (SELECT key FROM audit_chain LIMIT 1); DELETE FROM audit_chain WHERE n <= 2; ` +
			`DELETE FROM revisions WHERE revision <= 2; DELETE FROM changes WHERE revision <= 2`, 2, "retention"},
		"a beginning, with a key's": {`UPDATE audit_anchor SET n = 2, revision = 2, hash = (SELECT hash FROM ` +
			`audit_chain WHERE n = 2), key = 'abcdabcd'`, 2, "give it as well"},
		"the beginning is not there":   {`DELETE FROM audit_anchor`, 1, "audit_anchor is empty"},
		"the actor is another, hashed": {"", 5, "somebody else has written it"}, // below
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			s := opened(t, url, secret)
			history(t, s)
			whole(t, s, 9)
			if c.sql == "" {
				rehash(t, url, s)
			} else {
				for _, sql := range strings.Split(c.sql, "; ") {
					pgtest.Exec(t, url, sql)
				}
			}
			check := func() {
				t.Helper()
				if v := verified(t, s, ""); v.Broken == nil || v.Broken.N != c.n || !strings.Contains(v.Broken.Reason, c.reason) ||
					v.Done {
					t.Errorf("%+v, want record %d", v.Broken, c.n)
				}
			}
			check()
			if c.n == 9 || strings.Contains(c.reason, "audit's head") {
				return // what is written next would be another record 9
			}
			write(t, s, 1) // what is written later hides nothing
			check()
		})
	}
}

// rehash changes an actor and makes every later hash anew, as somebody does who knows how and has no key.
func rehash(t *testing.T, url string, s *store.Store) {
	t.Helper()
	pgtest.Exec(t, url, `UPDATE revisions SET actor = 'bob' WHERE revision = 4`)
	previous := ""
	for _, line := range strings.Split(strings.TrimSpace(string(exported(t, s, time.Time{}, time.Time{}))), "\n")[1:] {
		var l audit.Line
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		previous = l.Sum(previous)
		raw, err := hex.DecodeString(previous)
		if err != nil {
			t.Fatal(err)
		}
		pgtest.Exec(t, url, `UPDATE audit_chain SET hash = $1 WHERE n = $2`, raw, l.N)
		pgtest.Exec(t, url, `UPDATE config_head SET chain_hash = $1`, raw)
	}
	if _, err := audit.Check(bytes.NewReader(exported(t, s, time.Time{}, time.Time{})), "", nil); err != nil {
		t.Fatal("the hashes are not made anew as they should be:", err)
	}
}

// TestTailCutOff: who takes the last records away, and all that belongs to them, is found out by a head that was noted
// before.
func TestTailCutOff(t *testing.T) {
	url := pgtest.Database(t)
	s := opened(t, url, secret)
	history(t, s)
	_, head, err := s.Ends(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Restore(t, url, 6)
	if v := whole(t, s, 8); v.Revision != 6 {
		t.Errorf("%+v", v)
	}
	if v := verified(t, s, head.Hash); v.FoundN != nil {
		t.Errorf("the head that was there before is record %d", number(v.FoundN))
	}
	write(t, s, 3)
	whole(t, s, 9)
	if v := verified(t, s, head.Hash); v.FoundN != nil {
		t.Errorf("the head that was there before is record %d", number(v.FoundN))
	}
}

// TestRetention: what retention deletes is the beginning of the chain, which then begins where it says, signed. What is
// left is whole.
func TestRetention(t *testing.T) {
	url := pgtest.Database(t)
	s := opened(t, url, secret)
	history(t, s)
	second := pgtest.Value[[]byte](t, url, `SELECT hash FROM audit_chain WHERE n = 5`)
	prune := func(k store.Keep, published int64, now time.Time, revisions, entries int64) {
		t.Helper()
		if r, e, err := s.Prune(t.Context(), k, published, now); err != nil || r != revisions || e != entries {
			t.Fatalf("%d revisions and %d entries have gone, %v, want %d and %d", r, e, err, revisions, entries)
		}
	}
	later := time.Now().Add(time.Hour)
	prune(store.Keep{Revisions: 3}, 7, later, 4, 0)
	whole(t, s, 9) // what has moved is what it was
	prune(store.Keep{Revisions: 3, Audit: 2 * time.Hour}, 7, later, 0, 0)
	prune(store.Keep{Revisions: 3, Audit: time.Minute}, 7, later, 0, 4*3+1)
	v := whole(t, s, 4)
	if v.Last.N != 9 || v.Revision != 7 {
		t.Errorf("%+v", v)
	}
	// The token's entry after a revision that is kept stays, however old.
	if n := pgtest.Value[int64](t, url, `SELECT count(*) FROM token_changes`); n != 1 {
		t.Errorf("%d entries of tokens", n)
	}
	if n := pgtest.Value[int64](t, url, `SELECT count(*) FROM audit`); n != 0 {
		t.Errorf("%d entries", n)
	}
	if v := verified(t, s, hex.EncodeToString(second)); v.FoundN == nil || *v.FoundN != 5 {
		t.Errorf("the last record that was deleted is found as %d", number(v.FoundN))
	}
	if got, err := audit.Check(bytes.NewReader(exported(t, s, time.Time{}, time.Time{})), "", nil); err != nil ||
		got.After.N != 5 || got.Records != 4 {
		t.Errorf("%+v %v", got, err)
	}
	// The key is changed: the beginning is signed anew while the old one is known.
	both := opened(t, url, another+","+secret)
	whole(t, both, 4)
	if _, _, err := both.Prune(t.Context(), store.Keep{Revisions: 3, Audit: time.Minute}, 7, later); err != nil {
		t.Fatal(err)
	}
	if v := whole(t, opened(t, url, another), 4); v.Unproven != 4 {
		t.Errorf("without the old key %d records are unproven, want 4", v.Unproven)
	}
	// One that is made up is not built upon.
	pgtest.Exec(t, url, `UPDATE audit_anchor SET n = 6`)
	if _, _, err := both.Prune(t.Context(), store.Keep{Revisions: 1, Audit: time.Minute}, 7, later); err == nil ||
		!strings.Contains(err.Error(), "up to record 6 is not signed with the SECRET_KEY") {
		t.Error(err)
	}
}

// TestRotatedKey: records outlive a change of SECRET_KEY; who has only the new one has those that came later as proof.
func TestRotatedKey(t *testing.T) {
	url := pgtest.Database(t)
	history(t, opened(t, url, secret))
	both := opened(t, url, another+","+secret)
	write(t, both, 1)
	if v := whole(t, both, 10); v.Unproven != 0 {
		t.Errorf("%+v", v)
	}
	fresh := opened(t, url, another)
	if v := whole(t, fresh, 10); v.Unproven != 9 {
		t.Errorf("%+v", v)
	}
	pgtest.Exec(t, url, `UPDATE revisions SET actor = 'bob' WHERE revision = 4`)
	if v := verified(t, fresh, ""); v.Broken == nil || v.Broken.N != 5 {
		t.Errorf("%+v", v.Broken)
	}
	rehash(t, url, fresh)
	if v := verified(t, fresh, ""); v.Broken == nil || v.Broken.N != 10 { // the first whose key is here
		t.Errorf("%+v", v.Broken)
	}
}

// TestTwoApis: two apis that write at once, revisions and tokens, make one chain.
func TestTwoApis(t *testing.T) {
	url := pgtest.Database(t)
	apis := []*store.Store{opened(t, url, secret), opened(t, url, secret)}
	const writes = 60
	var wg sync.WaitGroup
	for i, s := range apis {
		wg.Go(func() {
			for range writes {
				write(t, s, 2)
			}
		})
		wg.Go(func() {
			for n := range writes {
				token(t, s, fmt.Sprintf("t-%d-%d", i, n), true)
			}
		})
	}
	stop := make(chan struct{})
	var looks sync.WaitGroup
	looks.Go(func() { // who verifies meanwhile sees a whole chain as well
		for {
			select {
			case <-stop:
				return
			default:
			}
			if v := verified(t, apis[0], ""); v.Broken != nil {
				t.Errorf("%+v", v.Broken)
				return
			}
		}
	})
	wg.Wait()
	close(stop)
	looks.Wait()
	if v := whole(t, apis[1], 4*writes); v.Entries != 2*writes*2+2*writes {
		t.Errorf("%+v", v)
	}
}

// TestAdopt: the records of a database from before there was a chain are chained, in the order of their revisions and
// times, and so is what an api of the version before writes beside this one.
func TestAdopt(t *testing.T) {
	url := pgtest.Database(t)
	s := opened(t, url, secret)
	revise(t, url, 1, 1300) // an hour apart
	pgtest.Exec(t, url, `INSERT INTO token_changes (at, actor, request_id, action, name, role)
		SELECT at + interval '1 minute', 'ci', '', 'create', 't' || revision, 'admin' FROM revisions WHERE revision % 100 = 0`)
	pgtest.Exec(t, url, `UPDATE revisions SET at = at - interval '1 day' WHERE revision = 700`) // a clock was wrong
	if r, _, err := s.Prune(t.Context(), store.Keep{Revisions: 300}, 1300, time.Now()); err != nil || r != 1000 {
		t.Fatal(r, err)
	}
	if v := verified(t, s, ""); v.Broken != nil || v.Records != 0 || v.Unchained != 1313 {
		t.Errorf("%+v", v)
	}
	if n, err := s.Adopt(t.Context()); err != nil || n != 1313 {
		t.Fatal(n, err)
	}
	v := whole(t, s, 1313)
	if v.Entries != 2613 || v.Adopted != 1313 || time.Since(v.AdoptedAt) > time.Minute || v.Revision != 1300 {
		t.Errorf("%+v", v)
	}
	if n := pgtest.Value[int64](t, url,
		`SELECT count(*) FROM (SELECT revision, lag(revision) OVER (ORDER BY n) AS before FROM audit_chain) AS c
		WHERE revision = 0 AND before % 100 <> 0`); n != 0 {
		t.Errorf("%d tokens are not where they belong", n)
	}
	if n, err := s.Adopt(t.Context()); err != nil || n != 0 {
		t.Error(n, err)
	}
	// Beside one of the version before.
	revise(t, url, 1301, 1303)
	token(t, s, "new", true)
	write(t, s, 2)
	pgtest.Exec(t, url, `INSERT INTO token_changes (at, actor, request_id, action, name, role) VALUES (now(), 'ci', '',`+
		` 'create', 'old', 'admin')`)
	if v := verified(t, s, ""); v.Broken != nil || v.Records != 1313+5 || v.Unchained != 1 {
		t.Errorf("%+v %+v", v, v.Broken)
	}
	if n, err := s.Adopt(t.Context()); err != nil || n != 1 {
		t.Error(n, err)
	}
	whole(t, s, 1313+6)
	if _, err := audit.Check(bytes.NewReader(exported(t, s, time.Time{}, time.Time{})), "", nil); err != nil {
		t.Error(err)
	}
	// Somebody changes what was adopted.
	pgtest.Exec(t, url, `UPDATE audit SET actor = 'bob' WHERE revision = 17`)
	var broken *audit.BrokenError
	if v := verified(t, s, ""); v.Broken == nil || v.Broken.Revision != 17 {
		t.Errorf("%+v", v.Broken)
	}
	if _, err := audit.Check(bytes.NewReader(exported(t, s, time.Time{}, time.Time{})), "",
		nil); !errors.As(err, &broken) {
		t.Error("the file of it fits:", err)
	}
}
