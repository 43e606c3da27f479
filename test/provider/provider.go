// Package provider is a provider of OpenID Connect in the test's own process, with a form in which people sign in:
// zitadel's example server, with users and groups of its own.
package provider

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

const (
	clientID     = "marchproxy"
	clientSecret = "the client's secret, for tests alone"
	// Password is everybody's.
	Password = "a password at the provider"
)

// Provider is a provider whose people are those who have groups.
type Provider struct {
	// URL is its issuer.
	URL      string
	callback string
	users    *users
}

// Start starts a provider that leads browsers back to a callback.
func Start(t testing.TB, callback string) *Provider {
	t.Helper()
	p := &Provider{callback: callback, users: &users{groups: map[string][]string{}}}
	server := httptest.NewUnstartedServer(nil)
	p.URL = "http://localhost:" + port(server.Listener.Addr().String())
	store := storage.NewStorageWithClients(p.users, map[string]*storage.Client{
		clientID: storage.WebClient(clientID, clientSecret, callback),
	})
	quiet := slog.New(slog.DiscardHandler)
	server.Config.Handler = exampleop.SetupServer(p.URL, &grouped{store, p.users}, quiet, false)
	server.Start()
	t.Cleanup(server.Close)
	return p
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// Env is what an api is told to sign people in there, where roles says which groups have one.
func (p *Provider) Env(roles string) []string {
	return []string{
		"API_OIDC_ISSUER=" + p.URL, "API_OIDC_CLIENT_ID=" + clientID, "API_OIDC_CLIENT_SECRET=" + clientSecret,
		"API_OIDC_CALLBACK=" + p.callback, "API_OIDC_ROLES=" + roles, "API_OIDC_NAME=Example",
	}
}

// Groups gives a user other groups, and makes one who is not there.
func (p *Provider) Groups(user string, groups ...string) {
	p.users.mu.Lock()
	defer p.users.mu.Unlock()
	p.users.groups[user] = groups
}

// users are people by name, which is their subject as well.
type users struct {
	mu     sync.Mutex
	groups map[string][]string
}

// GetUserByID implements storage.UserStore.
func (u *users) GetUserByID(id string) *storage.User {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, there := u.groups[id]; !there {
		return nil
	}
	return &storage.User{ID: id, Username: id, Password: Password, Email: id + "@provider.test", EmailVerified: true}
}

// GetUserByUsername implements storage.UserStore.
func (u *users) GetUserByUsername(name string) *storage.User { return u.GetUserByID(name) }

// ExampleClientID implements storage.UserStore.
func (*users) ExampleClientID() string { return "service" }

// grouped tells of somebody's groups where it is asked who he is.
type grouped struct {
	*storage.Storage
	users *users
}

// SetUserinfoFromToken implements op.Storage.
func (g *grouped) SetUserinfoFromToken(
	ctx context.Context, info *oidc.UserInfo, tokenID, subject, origin string,
) error {
	if err := g.Storage.SetUserinfoFromToken(ctx, info, tokenID, subject, origin); err != nil {
		return err
	}
	g.users.mu.Lock()
	defer g.users.mu.Unlock()
	info.AppendClaims("groups", g.users.groups[subject])
	return nil
}
