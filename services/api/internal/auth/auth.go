// Package auth knows who asks: bearer tokens, stored as hashes, with the roles viewer, editor and admin.
// There is no default credential: the first boot prints a token once.
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
)

// Roles; each may do what those before it may.
const (
	Viewer = "viewer"
	Editor = "editor"
	Admin  = "admin"
)

var rank = map[string]int{Viewer: 1, Editor: 2, Admin: 3}

// Identity is who asks.
type Identity struct{ Name, Role string }

// May says whether the identity has at least a role.
func (i Identity) May(role string) bool { return rank[i.Role] >= rank[role] }

// Tokens finds a token by the SHA-256 of its secret.
type Tokens interface {
	Token(ctx context.Context, sha256 []byte) (name, role string, found bool, err error)
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
				return Identity{"dev", Admin}, nil
			}
		}
		return Identity{}, errors.New("a token is needed: send Authorization: Bearer TOKEN" + why)
	}
	scheme, secret, ok := strings.Cut(r.Authorization, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return Identity{}, errors.New("the Authorization header must be: Bearer TOKEN")
	}
	name, role, found, err := a.tokens.Token(ctx, Sum(strings.TrimSpace(secret)))
	switch {
	case err != nil:
		return Identity{}, errors.Join(ErrUnavailable, err)
	case !found:
		return Identity{}, errors.New("the token is not known; it may have been deleted")
	}
	return Identity{name, role}, nil
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
