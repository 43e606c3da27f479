package security

import (
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/authority"
)

// ca is a certificate authority for an hour.
type ca struct {
	*authority.Authority
	name string
}

func newCA(t *testing.T, name string) *ca {
	t.Helper()
	a, err := authority.New(name, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return &ca{a, name}
}

func (a *ca) issue(t *testing.T, names ...string) (chain, key string) {
	t.Helper()
	chain, key, err := a.Issue(authority.Server(time.Hour, names...))
	if err != nil {
		t.Fatal(err)
	}
	return chain, key
}
