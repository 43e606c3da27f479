package auth

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// database knows one token, unless it is away or hangs.
type database struct {
	token       Token
	known       bool
	away, hangs bool
}

func (d *database) Token(ctx context.Context, _ []byte) (Token, bool, error) {
	switch {
	case d.hangs:
		<-ctx.Done()
		return Token{}, false, ctx.Err()
	case d.away:
		return Token{}, false, errors.New("the database is away")
	default:
		return d.token, d.known, nil
	}
}

func (d *database) Session(ctx context.Context, sum []byte) (Token, bool, error) {
	return d.Token(ctx, sum)
}

// TestWhileTheDatabaseIsAway: who was right a moment ago goes on, for a time, and nobody else.
func TestWhileTheDatabaseIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &database{known: true, token: Token{
			Identity: Identity{Name: "ci", Role: Viewer}, ExpiresAt: time.Now().Add(20 * time.Minute),
		}}
		a := New(d)
		asks := func(secret string) error {
			who, err := a.Identify(t.Context(), Request{Authorization: "Bearer " + secret})
			if err == nil && (who.Name != "ci" || who.Role != Viewer) {
				t.Errorf("%v", who)
			}
			return err
		}
		if err := asks("right"); err != nil {
			t.Fatal(err)
		}
		d.away = true
		if err := asks("right"); err != nil {
			t.Error(err)
		}
		if err := asks("never seen"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("what was never seen: %v", err)
		}
		d.away, d.hangs = false, true
		since := time.Now()
		if err := asks("right"); err != nil || time.Since(since) > answers {
			t.Errorf("while the database hangs: %v after %v", err, time.Since(since))
		}
		time.Sleep(remembers)
		d.away, d.hangs = true, false
		if err := asks("right"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("after %v: %v", remembers, err)
		}
		d.away = false
		if err := asks("right"); err != nil {
			t.Error(err)
		}
		time.Sleep(remembers - time.Minute) // the token ends after nineteen minutes and these
		d.away = true
		if err := asks("right"); err != nil {
			t.Error(err)
		}
		d.away, d.known = false, false
		if err := asks("right"); err == nil {
			t.Error("a deleted token opens")
		}
		d.away = true
		if err := asks("right"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("a deleted token while the database is away: %v", err)
		}
		d.away, d.known = false, true
		if err := asks("right"); err != nil {
			t.Error(err)
		}
		d.away = true
		time.Sleep(2 * time.Minute)
		if err := asks("right"); err == nil {
			t.Error("an ended token opens")
		}
	})
}
