// Package auth knows who asks, and what they may do: users with their passwords and bearer tokens, both stored as
// hashes, each with a role and, if it has any, bounds; and sessions of browsers, each of which stands for a user or a
// token. [Check] decides on every write, whichever door it comes through. There is no default credential: the first
// boot prints a token once.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Identity is who asks.
type Identity struct {
	// ID is the token's or the user's: a name can be given again after its token was deleted, an id cannot. "" for the
	// system itself.
	ID string
	// Name and Role; without a role nothing is allowed.
	Name, Role string
	// Bounds within which the identity writes; none where empty.
	Bounds Bounds
	// User says that this is a user who has signed in, and no token.
	User bool
	// Of is the user whose own token this is, as he is now, or nil: the token does no more than he may.
	Of *Identity
}

// String is what the identity is called in a sentence.
func (who Identity) String() string {
	if who.User {
		return "user " + strconv.Quote(who.Name)
	}
	return "token " + strconv.Quote(who.Name)
}

// SystemName is the actor of what the system writes by itself.
const SystemName = "marchproxy"

// System is the identity of the system itself.
func System() Identity { return Identity{Name: SystemName, Role: Admin} }

// Reserved says whether a name is for the system's own actors, so that no token can write as if it were one.
func Reserved(name string) bool {
	switch name {
	case SystemName, "dev", BootstrapName, "system", "xds-config":
		return true
	default:
		return strings.HasPrefix(name, SystemName+"-")
	}
}

// BootstrapName is the name of the first token.
const BootstrapName = "bootstrap"

// Token is what is known of a token.
type Token struct {
	Identity
	// ExpiresAt is when it opens nothing any more, zero for never.
	ExpiresAt time.Time
}

// Tokens finds a token by the SHA-256 of its secret, or whom a session stands for by the SHA-256 of its own, and notes
// that the token was used. A session ends no later than its token or its user. Nobody is found by what is of a user who
// is disabled.
type Tokens interface {
	Token(ctx context.Context, sha256 []byte) (t Token, found bool, err error)
	Session(ctx context.Context, sha256 []byte) (t Token, found bool, err error)
}

// Auth identifies requests.
type Auth struct {
	tokens Tokens

	mu sync.Mutex
	// seen are the tokens that the database has told of within [remembers], by the hash of their secret.
	seen map[[sha256.Size]byte]sighting
}

type sighting struct {
	Token
	at time.Time
}

const (
	// remembers is for how long a token that was right goes on while the database does not answer: whoever is to find
	// out what is wrong can read the status meanwhile. What is written needs the database anyway.
	remembers = 10 * time.Minute
	// answers is how long the database may take to tell of a token that is remembered.
	answers = 2 * time.Second
)

// New returns an Auth.
func New(tokens Tokens) *Auth { return &Auth{tokens: tokens, seen: map[[sha256.Size]byte]sighting{}} }

// Request is what is known of a request.
type Request struct {
	// Authorization is the header; where it is "", Session counts.
	Authorization string
	// Session is the secret in a browser's cookie.
	Session string
}

// SessionLasts is how long somebody stays signed in.
const SessionLasts = 12 * time.Hour

// NewSecret makes a token's secret: 256 random bits.
func NewSecret() (secret string, sum []byte) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	secret = "mp_" + base64.RawURLEncoding.EncodeToString(b[:])
	return secret, Sum(secret)
}

// Sum is the hash that is stored.
func Sum(secret string) []byte {
	s := sha256.Sum256([]byte(secret))
	return s[:]
}

// ErrUnavailable says that the tokens cannot be looked at now.
var ErrUnavailable = errors.New("the database does not answer, so the token cannot be checked; try again")

// Identify says who asks. The error is a sentence for the asker. Where a request comes from is no credential: other
// users of the machine, the pages of its browsers and the proxies on it all come from loopback, too.
func (a *Auth) Identify(ctx context.Context, r Request) (Identity, error) {
	if r.Authorization == "" && r.Session != "" {
		t, found, err := a.look(ctx, Sum(r.Session), a.tokens.Session)
		switch {
		case err != nil:
			return Identity{}, errors.Join(ErrUnavailable, err)
		case !found || !time.Now().Before(t.ExpiresAt):
			return Identity{}, errors.New("the session has ended; sign in again")
		}
		return t.Identity, nil
	}
	if r.Authorization == "" {
		return Identity{}, errors.New("a token is needed: send Authorization: Bearer TOKEN")
	}
	scheme, secret, ok := strings.Cut(r.Authorization, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return Identity{}, errors.New("the Authorization header must be: Bearer TOKEN")
	}
	t, found, err := a.look(ctx, Sum(strings.TrimSpace(secret)), a.tokens.Token)
	switch {
	case err != nil:
		return Identity{}, errors.Join(ErrUnavailable, err)
	case !found:
		return Identity{}, errors.New("the token is not known; it may have been deleted")
	case !t.ExpiresAt.IsZero() && !time.Now().Before(t.ExpiresAt):
		return Identity{}, fmt.Errorf("the token has ended, on %s; an admin makes a new one",
			t.ExpiresAt.UTC().Format(time.RFC3339))
	}
	return t.Identity, nil
}

// look asks the database, and remembers what it says for the time when it says nothing.
func (a *Auth) look(
	ctx context.Context, sum []byte, ask func(context.Context, []byte) (Token, bool, error),
) (Token, bool, error) {
	key, now := [sha256.Size]byte(sum), time.Now()
	a.mu.Lock()
	old, known := a.seen[key]
	a.mu.Unlock()
	if known = known && now.Sub(old.at) < remembers; known {
		limit, cancel := context.WithTimeout(ctx, answers)
		defer cancel()
		ctx = limit
	}
	t, found, err := ask(ctx, sum)
	if err != nil && known {
		return old.Token, true, nil
	}
	if err != nil {
		return Token{}, false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !found {
		delete(a.seen, key)
		return t, false, nil
	}
	if !known { // what is old goes when something new comes
		for k, s := range a.seen {
			if now.Sub(s.at) >= remembers {
				delete(a.seen, k)
			}
		}
	}
	a.seen[key] = sighting{t, now}
	return t, true, nil
}
