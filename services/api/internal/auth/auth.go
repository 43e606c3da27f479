// Package auth knows who asks, and what they may do: bearer tokens, stored as hashes, each with a role and, if it has
// any, bounds. [Check] decides on every write, whichever door it comes through. There is no default credential: the
// first boot prints a token once.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Identity is who asks.
type Identity struct {
	// ID is the token's: a name can be given again after its token was deleted, an id cannot. "" for the system itself.
	ID string
	// Name and Role; without a role nothing is allowed.
	Name, Role string
	// Bounds within which the identity writes; none where empty.
	Bounds Bounds
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

// Tokens finds a token by the SHA-256 of its secret, and notes that it was used.
type Tokens interface {
	Token(ctx context.Context, sha256 []byte) (t Token, found bool, err error)
}

// Auth identifies requests.
type Auth struct {
	tokens Tokens
	// dev lets a program on this machine in without a token.
	dev bool
}

// New returns an Auth; dev is for development only.
func New(tokens Tokens, dev bool) *Auth { return &Auth{tokens, dev} }

// Request is what is known of a request.
type Request struct{ Authorization, Remote, Host, Origin string }

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

// Identify says who asks. The error is a sentence for the asker.
func (a *Auth) Identify(ctx context.Context, r Request) (Identity, error) {
	if r.Authorization == "" {
		why := ""
		if a.dev {
			var in bool
			if in, why = local(r); in {
				return Identity{Name: "dev", Role: Admin}, nil
			}
		}
		return Identity{}, errors.New("a token is needed: send Authorization: Bearer TOKEN" + why)
	}
	scheme, secret, ok := strings.Cut(r.Authorization, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return Identity{}, errors.New("the Authorization header must be: Bearer TOKEN")
	}
	t, found, err := a.tokens.Token(ctx, Sum(strings.TrimSpace(secret)))
	switch {
	case err != nil:
		return Identity{}, errors.Join(ErrUnavailable, err)
	case !found:
		return Identity{}, errors.New("the token is not known; it may have been deleted")
	case !t.ExpiresAt.IsZero() && !time.Now().Before(t.ExpiresAt):
		return Identity{}, fmt.Errorf("the token has ended, on %s; an admin makes a new one", t.ExpiresAt.UTC().Format(time.RFC3339))
	}
	return t.Identity, nil
}

// local says whether a program on this machine asks, and not a web page in its browser: a page has an
// Origin, or has made the browser believe that a foreign name is this machine. To those who ask from this
// machine it says why not, in words that end a sentence.
func local(r Request) (in bool, why string) {
	peer, err := netip.ParseAddrPort(r.Remote)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false, ""
	}
	if r.Origin != "" {
		return false, "; only programs on this machine are let in without one, and a request with an Origin header comes from a web page"
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); strings.EqualFold(host, "localhost") || (err == nil && ip.IsLoopback()) {
		return true, ""
	}
	return false, fmt.Sprintf("; programs on this machine are let in without one where the URL's host is localhost, 127.0.0.1 or [::1], "+
		"and the Host of this request is %.100q", r.Host)
}
