package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/golang-jwt/jwt/v5"
	"github.com/golang-jwt/jwt/v5/request"

	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/wasm/forge"
	"github.com/marchproxy/marchproxy/test/wasm/host"
)

type object = map[string]any

// configuration is the one policy that every judge is told, as the filter reads it.
func configuration() object {
	var keys []object
	for _, k := range forge.Keys {
		keys = append(keys, object{"kid": k.Kid, "alg": k.Alg, "k": k.Base64()})
	}
	return object{"default_policy": "p", "policies": []object{{"name": "p", "jwt": object{
		"keys": keys, "issuers": []string{forge.Issuer}, "audiences": []string{forge.Audience},
		"leeway_seconds": forge.Leeway,
	}}}}
}

// compileFilter compiles the auth filter as it is shipped.
func compileFilter(ctx context.Context) (*host.Program, error) {
	root, err := harness.Root()
	if err != nil {
		return nil, err
	}
	module, err := os.ReadFile(filepath.Join(root, "wasm-filters", "dist", "auth.wasm"))
	if err != nil {
		return nil, err
	}
	return host.Compile(ctx, module)
}

// filter asks ours: "" for a request that passed, else the reason.
func filter(ctx context.Context, vm *host.VM, c forge.Case) (string, error) {
	o, err := vm.Request(ctx, c.Request())
	switch {
	case err != nil:
		return "", err
	case o.Passed:
		return "", nil
	case o.Response == nil:
		return "", errors.New("neither passed nor answered")
	}
	return strings.TrimPrefix(o.Response.Details, "marchproxy_auth_"), nil
}

// bearer is the token as golang-jwt finds it in a request; go-jose has no opinion on that.
func bearer(c forge.Case) (string, error) {
	h := make(http.Header)
	for _, kv := range c.Headers {
		h.Add(kv[0], kv[1])
	}
	return request.BearerExtractor{}.ExtractToken(&http.Request{Header: h})
}

var (
	errKid    = errors.New("no such key")
	errExpiry = errors.New("no exp")
)

// golangJWT asks golang-jwt, with every check that it has turned on.
func golangJWT(c forge.Case, now time.Time) error {
	token, err := bearer(c)
	if err != nil {
		return err
	}
	p := jwt.NewParser(jwt.WithStrictDecoding(), jwt.WithJSONNumber(), jwt.WithValidMethods(
		[]string{"HS256", "HS384", "HS512"},
	), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithIssuer(forge.Issuer), jwt.WithAudience(forge.Audience), jwt.WithLeeway(forge.Leeway*time.Second),
		jwt.WithTimeFunc(func() time.Time { return now }))
	_, err = p.Parse(token, func(t *jwt.Token) (any, error) {
		var set jwt.VerificationKeySet
		kid, named := t.Header["kid"]
		for _, k := range forge.Keys {
			if k.Alg == t.Method.Alg() && (!named || kid == k.Kid) {
				set.Keys = append(set.Keys, k.Secret)
			}
		}
		if len(set.Keys) == 0 {
			return nil, errKid
		}
		return set, nil
	})
	return err
}

// goJose asks go-jose; the choice of the key and the demand for exp are ours, as its users write them.
func goJose(c forge.Case, now time.Time) error {
	token, err := bearer(c)
	if err != nil {
		return err
	}
	t, err := josejwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512})
	if err != nil {
		return err
	}
	err = errKid
	for _, k := range forge.Keys {
		for _, h := range t.Headers {
			if h.Algorithm != k.Alg || (h.KeyID != "" && h.KeyID != k.Kid) {
				continue
			}
			var claims josejwt.Claims
			if err = t.Claims(k.Secret, &claims); err != nil {
				continue
			}
			if claims.Expiry == nil {
				return errExpiry
			}
			return claims.ValidateWithLeeway(josejwt.Expected{
				Issuer:      forge.Issuer,
				AnyAudience: josejwt.Audience{forge.Audience}, Time: now,
			}, forge.Leeway*time.Second)
		}
	}
	return fmt.Errorf("verify: %w", err)
}
