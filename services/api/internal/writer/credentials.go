package writer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/license"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
)

// authPolicy seals the shared secrets and replaces opaque tokens by their digests. What is absent stays
// as it is stored, by kid and by name.
func (w *Writer) authPolicy(d Desired, p, old *configv1.AuthPolicy) (proto.Message, resource.Violations) {
	var wrong resource.Violations
	fail := func(path, message string) {
		wrong = append(wrong, resource.Violation{Path: d.SpecPath + path, Message: message, Rule: "auth_policy"})
	}
	missing := func(path, message string) {
		wrong = append(wrong, resource.Violation{Path: d.SpecPath + path, Message: message, Rule: resource.MissingSecret})
	}
	stored := map[string]*configv1.JwtKey{}
	for _, k := range old.GetJwt().GetKeys() {
		stored[k.GetKid()] = k
	}
	for i, k := range p.GetJwt().GetKeys() {
		path := fmt.Sprintf(".jwt.keys[%d]", i)
		switch {
		case !config.IsHMAC(k) && k.GetSecret() != "":
			fail(path+".secret", "belongs to HS256, HS384 and HS512; "+k.GetAlgorithm().String()+" needs public_key")
		case !config.IsHMAC(k) && k.GetPublicKey() == "":
			fail(path+".public_key", "is missing, which "+k.GetAlgorithm().String()+" needs; give it as PEM")
		case config.IsHMAC(k) && k.GetPublicKey() != "":
			fail(path+".public_key", "does not belong to "+k.GetAlgorithm().String()+", which needs secret")
		case config.IsHMAC(k) && k.GetSecret() == "":
			if message := w.stored(d.Ref, k, stored[k.GetKid()]); message != "" {
				missing(path+".secret", message)
				continue
			}
			fallthrough
		case config.IsHMAC(k):
			if message := w.secret(d.Ref, k, stored[k.GetKid()]); message != "" {
				fail(path+".secret", message)
			}
		}
	}
	digests := map[string]string{}
	for _, t := range old.GetTokens() {
		digests[t.GetName()] = t.GetSha256()
	}
	for i, t := range p.GetTokens() {
		if t.GetValue() != "" {
			sum := sha256.Sum256([]byte(t.GetValue()))
			t.Value, t.Sha256 = "", hex.EncodeToString(sum[:])
		}
		if t.GetSha256() == "" {
			t.Sha256 = digests[t.GetName()]
		}
		if t.GetSha256() == "" {
			missing(fmt.Sprintf(".tokens[%d]", i), "has neither value nor sha256, and none is stored under its name; give one")
			sum := sha256.Sum256([]byte(absent + t.GetName()))
			t.Sha256 = hex.EncodeToString(sum[:]) // not that of another one
		}
	}
	if !onlyMissing(wrong) {
		return nil, wrong
	}
	return p, wrong
}

// stored takes the secret that is stored for a key, and says why there is none.
func (w *Writer) stored(ref resource.Ref, k, old *configv1.JwtKey) string {
	if old.GetSecret() == "" {
		return "is missing, and none is stored for kid " + k.GetKid() + "; give one"
	}
	secret, err := w.box.Open(old.GetSecret(), ref.Kind, ref.Name, config.SecretField(k))
	if err != nil {
		return "is needed: the stored one cannot be opened (" + err.Error() + "); give it again"
	}
	k.Secret = secret
	if k.GetEncoding() == configv1.JwtKey_ENCODING_UNSPECIFIED {
		k.Encoding = old.GetEncoding()
	}
	return ""
}

// secret seals a key's secret and says what is wrong with it.
func (w *Writer) secret(ref resource.Ref, k, old *configv1.JwtKey) string {
	field := config.SecretField(k)
	secret := k.GetSecret()
	if seal.Sealed(secret) {
		return "must be the secret itself, or absent to keep the stored one"
	}
	raw, err := config.KeyBytes(k, secret)
	if err != nil {
		return err.Error() + ", as encoding says; correct one of the two"
	}
	if len(raw) < config.HashSize(k) {
		return fmt.Sprintf("has %d bytes; %s needs at least %d, or it can be guessed from one token (openssl rand -hex 32 makes 64)", len(raw), k.GetAlgorithm(), config.HashSize(k))
	}
	k.Secret = w.seal(secret, old.GetSecret(), ref, field)
	return ""
}

// license seals the key. Where none is given and none stored, it is the one of LICENSE_KEY.
func (w *Writer) license(d Desired, l, old *configv1.License) (proto.Message, resource.Violations) {
	fail := func(message string) (proto.Message, resource.Violations) {
		return nil, resource.Violations{{Path: d.SpecPath + ".key", Message: message, Rule: "license.key"}}
	}
	missing := func(message string) (proto.Message, resource.Violations) {
		return l, resource.Violations{{Path: d.SpecPath + ".key", Message: message, Rule: resource.MissingSecret}}
	}
	key, had := l.GetKey(), l.GetFacts().GetHasKey()
	switch {
	case seal.Sealed(key):
		return fail("must be the key itself, or absent to keep the stored one")
	case key != "":
	case old.GetKey() != "":
		var err error
		if key, err = w.box.Open(old.GetKey(), d.Ref.Kind, d.Ref.Name, "key"); err != nil {
			return missing("is needed: the stored one cannot be opened (" + err.Error() + "); give it again")
		}
	default:
		key = w.licenseKey
	}
	if key == "" && had {
		return missing("is missing: the license had one where it comes from, and none is stored here; give it")
	}
	l.Facts = nil
	if key == "" {
		return l, nil
	}
	if err := license.CheckKey(key); err != nil {
		return fail(err.Error())
	}
	l.Key = w.seal(key, old.GetKey(), d.Ref, "key")
	l.Facts = &configv1.LicenseFacts{HasKey: true, Checksum: key[len(key)-4:]}
	return l, nil
}
