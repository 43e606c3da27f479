package provider

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/seal"
)

// settings are those of an environment.
func settings(env map[string]string) (Settings, error) {
	e := process.NewEnv(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	s := Read(e)
	return s, e.Err()
}

func right() map[string]string {
	return map[string]string{
		"API_OIDC_ISSUER": "https://id.example.com", "API_OIDC_CLIENT_ID": "c", "API_OIDC_CLIENT_SECRET": "s",
		"API_OIDC_CALLBACK": "https://mp.example.com/v1/session/oidc/callback", "API_OIDC_ROLES": "ops=admin, ops=viewer,all=viewer",
	}
}

// TestRead: what is wrong with a setting is said with its name before anybody is sent to the provider.
func TestRead(t *testing.T) {
	if s, err := settings(nil); err != nil || New(s, nil) != nil {
		t.Errorf("without settings: %+v %v", s, err)
	}
	s, err := settings(right())
	if err != nil || s.Claim != "groups" || strings.Join(s.Scopes, " ") != "profile email" {
		t.Errorf("%+v %v", s, err)
	}
	p := New(s, nil)
	for want, groups := range map[string]any{
		"admin": []any{"all", "ops", 7}, "viewer": "all", "": []any{"OPS", ""}, // letters count
	} {
		if got := p.role(groups); got != want {
			t.Errorf("groups %v have the role %q, want %q", groups, got, want)
		}
	}
	if got := p.role(nil); got != "" {
		t.Errorf("no groups have the role %q", got)
	}
	for what, x := range map[string]struct{ name, value string }{
		"plain text elsewhere":          {"API_OIDC_ISSUER", "http://id.example.com"},
		"an issuer that is no URL":      {"API_OIDC_ISSUER", "id.example.com"},
		"a callback over plain text":    {"API_OIDC_CALLBACK", "http://mp.example.com" + CallbackPath},
		"a callback of another path":    {"API_OIDC_CALLBACK", "https://mp.example.com/callback"},
		"no client":                     {"API_OIDC_CLIENT_ID", ""},
		"a role that there is not":      {"API_OIDC_ROLES", "ops=root"},
		"no role for anybody":           {"API_OIDC_ROLES", ""},
		"settings without their issuer": {"API_OIDC_ISSUER", ""},
	} {
		env := right()
		env[x.name] = x.value
		if _, err := settings(env); err == nil || !strings.Contains(err.Error(), x.name) {
			t.Errorf("%s: %v, which does not name %s", what, err, x.name)
		}
	}
	env := right()
	env["API_OIDC_ISSUER"] = "http://localhost:8080"
	if _, err := settings(env); err != nil {
		t.Errorf("a provider on this machine: %v", err)
	}
}

// TestNames: somebody is called as the provider calls him, where that can be a name here, and never as one of the
// system's own actors.
func TestNames(t *testing.T) {
	for want, said := range map[string]map[string]any{
		"ada":             {"preferred_username": "Ada", "email": "x@example.com"},
		"ada@example.com": {"preferred_username": "Ada Lovelace", "email": "ada@example.com"},
		"user-8d23cf6c":   {"preferred_username": "marchproxy", "email": "ö@example.com"},
	} {
		if got := nameOf(said, "subject"); !strings.HasPrefix(want, "user-") && got != want ||
			strings.HasPrefix(want, "user-") && (!strings.HasPrefix(got, "user-") || len(got) != len(want)) {
			t.Errorf("%v is called %q, want %q", said, got, want)
		}
	}
	if nameOf(nil, "a") == nameOf(nil, "b") {
		t.Error("two people have one name")
	}
}

// TestAway: a provider that does not answer is said to be that, and nothing is used up by answers that fit nothing.
func TestAway(t *testing.T) {
	env := right()
	env["API_OIDC_ISSUER"] = "http://127.0.0.1:1"
	s, err := settings(env)
	if err != nil {
		t.Fatal(err)
	}
	box, err := seal.New("a secret of sixteen characters")
	if err != nil {
		t.Fatal(err)
	}
	p := New(s, box)
	if _, _, err := p.Begin(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("beginning: %v", err)
	}
	once := func(context.Context, string) (bool, error) { t.Error("a state is used up"); return true, nil }
	for _, sealed := range []string{"", "x", "!", "bXA"} {
		if _, err := p.Finish(t.Context(), url.Values{"state": {""}, "code": {"c"}}, sealed, once); !errors.Is(err, ErrState) {
			t.Errorf("finishing what %q began: %v", sealed, err)
		}
	}
}
