package writer

import (
	"cmp"
	"fmt"
	"time"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Credential is one that opens something again when an object of the history comes back.
type Credential struct {
	// Object that has it, and Path where it stands in that.
	Object resource.Ref
	Path   string
	// What it is, in words that go after the object's name: api_key "old".
	What string
}

// Revived lists the credentials that a stored object of the history has, and the present one has not; now is nil where
// there is none. Somebody took them away, or let them end: because they were lost, perhaps.
func (w *Writer) Revived(now, then *resource.Object) (out []Credential) {
	add := func(path, what string, args ...any) {
		out = append(out, Credential{then.Ref(), path, fmt.Sprintf(what, args...)})
	}
	switch m := then.Message().(type) {
	case *configv1.Gateway:
		has := map[string]bool{}
		if now != nil {
			for _, k := range now.Message().(*configv1.Gateway).GetApiKeys() {
				has[k.GetSha256()] = true
			}
		}
		for i, k := range m.GetApiKeys() {
			if !has[k.GetSha256()] {
				add(fmt.Sprintf("$.api_keys[%d]", i), "api_key %q, which opens the gateway's configuration and private keys", k.GetName())
			}
		}
	case *configv1.Certificate:
		var old *configv1.Certificate
		if now != nil {
			old = now.Message().(*configv1.Certificate)
		}
		if m.GetChain() != old.GetChain() {
			add("$.chain", "the certificate of %s", cmp.Or(m.GetFacts().GetFingerprint(), "an authority"))
		}
	case *configv1.AuthPolicy:
		var old *configv1.AuthPolicy
		if now != nil {
			old = now.Message().(*configv1.AuthPolicy)
		}
		w.revivedTokens(add, old, m)
		w.revivedKeys(add, then.Ref(), old, m)
	}
	return out
}

func (w *Writer) revivedTokens(add func(path, what string, args ...any), now, then *configv1.AuthPolicy) {
	has := map[string]*configv1.OpaqueToken{}
	for _, t := range now.GetTokens() {
		has[t.GetSha256()] = t
	}
	for i, t := range then.GetTokens() {
		if is := has[t.GetSha256()]; is == nil || longer(is.GetNotAfter(), t.GetNotAfter()) {
			add(fmt.Sprintf("$.tokens[%d]", i), "token %q", t.GetName())
		}
	}
}

// longer says whether an end is later than one that there is; "" is no end.
func longer(end, other string) bool {
	if end == "" || end == other {
		return false
	}
	a, err := time.Parse(time.RFC3339, end)
	b, failed := time.Parse(time.RFC3339, other)
	return other == "" || err != nil || failed != nil || b.After(a)
}

func (w *Writer) revivedKeys(add func(path, what string, args ...any), ref resource.Ref, now, then *configv1.AuthPolicy) {
	has := map[string]*configv1.JwtKey{}
	for _, k := range now.GetJwt().GetKeys() {
		has[k.GetKid()] = k
	}
	for i, k := range then.GetJwt().GetKeys() {
		if is := has[k.GetKid()]; is == nil || is.GetPublicKey() != k.GetPublicKey() || !w.sameSecret(ref, is, k) {
			add(fmt.Sprintf("$.jwt.keys[%d]", i), "the key %q that signs tokens", k.GetKid())
		}
	}
	if s := then.GetJwt().GetJwks(); s != "" && s != now.GetJwt().GetJwks() {
		add("$.jwt.jwks", "the key set that signs tokens")
	}
	if r, is := then.GetJwt().GetRemoteJwks(), now.GetJwt().GetRemoteJwks(); r != nil &&
		(r.GetService() != is.GetService() || r.GetPath() != is.GetPath() || r.GetHost() != is.GetHost()) {
		add("$.jwt.remote_jwks", "the key set of service %q", r.GetService())
	}
}

// sameSecret compares two sealed secrets: the same one is another text after SECRET_KEY was changed.
func (w *Writer) sameSecret(ref resource.Ref, a, b *configv1.JwtKey) bool {
	if a.GetSecret() == b.GetSecret() || a.GetEncoding() != b.GetEncoding() {
		return a.GetEncoding() == b.GetEncoding()
	}
	field := config.SecretField(b)
	x, err := w.box.Open(a.GetSecret(), ref.Kind, ref.Name, field)
	y, failed := w.box.Open(b.GetSecret(), ref.Kind, ref.Name, field)
	return err == nil && failed == nil && x == y
}
