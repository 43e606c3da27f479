package writer

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/clusterkey"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
)

// absent stands for a missing secret, so that everything else can be checked all the same.
const absent = "missing"

// onlyMissing says whether all that is wrong is that secrets are missing.
func onlyMissing(v resource.Violations) bool {
	return !slices.ContainsFunc(v, func(x resource.Violation) bool { return x.Rule != resource.MissingSecret })
}

// prepare takes the secrets out of a spec before anything is stored: keys of certificates are sealed,
// those of gateways hashed. What a write leaves out, because reads do not show it, is taken from the
// object before. Where all that is wrong is that secrets are missing, the spec is handed back with
// something in their place.
func (w *Writer) prepare(d Desired, before *resource.Object) (proto.Message, resource.Violations) {
	if d.Stored {
		return d.Spec, nil
	}
	switch m := d.Spec.(type) {
	case *configv1.Certificate:
		var old *configv1.Certificate
		if before != nil {
			old = before.Message().(*configv1.Certificate)
		}
		return w.certificate(d, proto.CloneOf(m), old)
	case *configv1.Gateway:
		g := proto.CloneOf(m)
		if d.KeepKeys && before != nil {
			g.ApiKeys = before.Message().(*configv1.Gateway).GetApiKeys()
		}
		var old *configv1.Gateway
		if before != nil {
			old = before.Message().(*configv1.Gateway)
		}
		return gateway(d, g, old)
	case *configv1.AuthPolicy:
		var old *configv1.AuthPolicy
		if before != nil {
			old = before.Message().(*configv1.AuthPolicy)
		}
		return w.authPolicy(d, proto.CloneOf(m), old)
	case *configv1.License:
		var old *configv1.License
		if before != nil {
			old = before.Message().(*configv1.License)
		}
		return w.license(d, proto.CloneOf(m), old)
	default:
		return d.Spec, nil
	}
}

func gateway(d Desired, g, old *configv1.Gateway) (proto.Message, resource.Violations) {
	stored := map[string]string{}
	for _, k := range old.GetApiKeys() {
		stored[k.GetName()] = k.GetSha256()
	}
	var wrong resource.Violations
	for i, k := range g.GetApiKeys() {
		switch {
		case k.GetKey() != "":
			k.Key, k.Sha256 = "", clusterkey.Sum(k.GetKey())
		case k.GetSha256() == "":
			k.Sha256 = stored[k.GetName()]
		}
		if k.GetSha256() == "" {
			wrong = append(wrong, resource.Violation{
				Path: d.SpecPath + ".api_keys[" + strconv.Itoa(i) + "]", Rule: resource.MissingSecret,
				Message: "has neither key nor sha256, and none is stored under its name; give one",
			})
			k.Sha256 = clusterkey.Sum(absent + k.GetName()) // not that of another one
		}
	}
	return g, wrong
}

func (w *Writer) certificate(d Desired, c, old *configv1.Certificate) (proto.Message, resource.Violations) {
	fail := func(field, message string) (proto.Message, resource.Violations) {
		return nil, resource.Violations{{Path: d.SpecPath + field, Message: message, Rule: "certificate"}}
	}
	missing := func(message string) (proto.Message, resource.Violations) {
		c.PrivateKey = absent
		return c, resource.Violations{{Path: d.SpecPath + ".private_key", Message: message, Rule: resource.MissingSecret}}
	}
	leaf, err := certificate.Leaf(c.GetChain())
	if err != nil {
		return fail(".chain", err.Error())
	}
	key := c.GetPrivateKey()
	switch {
	case seal.Sealed(key):
		return fail(".private_key", "must be a PEM key, or absent to keep the stored one")
	case key != "":
		if err := certificate.CheckKey(c.GetChain(), key); err != nil {
			return fail(".private_key", err.Error())
		}
	case old.GetPrivateKey() != "":
		if key, err = w.box.Open(old.GetPrivateKey(), d.Ref.Kind, d.Ref.Name, "private_key"); err != nil {
			return missing("is needed: the stored one cannot be opened (" + err.Error() + "); give it again")
		}
		if certificate.CheckKey(c.GetChain(), key) != nil {
			return missing("is needed: the stored one does not belong to this chain; give the chain's")
		}
	case c.GetFacts().GetHasPrivateKey():
		return missing("is missing: the certificate had one where it comes from, and none is stored here; give it")
	}
	c.PrivateKey = w.seal(key, old.GetPrivateKey(), d.Ref, "private_key")
	sum := sha256.Sum256(leaf.Raw)
	c.Facts = &configv1.CertificateFacts{
		NotBefore: resource.Time(leaf.NotBefore), NotAfter: resource.Time(leaf.NotAfter), DnsNames: leaf.DNSNames,
		Fingerprint: hex.EncodeToString(sum[:]), HasPrivateKey: key != "",
	}
	return c, nil
}

// seal seals a secret. The same secret keeps its sealed form: sealing again would change bytes where
// nothing has changed. One that an older SECRET_KEY sealed is sealed anew, so that writing everything once
// more ends a rotation.
func (w *Writer) seal(secret, stored string, r resource.Ref, field string) string {
	if secret == "" {
		return ""
	}
	if was, err := w.box.Open(stored, r.Kind, r.Name, field); err == nil && was == secret && w.box.Current(stored) {
		return stored
	}
	return w.box.Seal(secret, r.Kind, r.Name, field)
}

// Public is a spec as readers see it: without what is sealed.
func Public(o *resource.Object) (*resource.Object, error) {
	shown := redacted(o.Message())
	if shown == nil {
		return o, nil
	}
	out, err := resource.New(o.Ref(), shown)
	if err != nil {
		return nil, err
	}
	out.UID, out.Revision, out.Owner, out.Labels, out.CreatedAt, out.UpdatedAt = o.UID, o.Revision, o.Owner, o.Labels, o.CreatedAt, o.UpdatedAt
	return out, nil
}

// redacted is a copy without secrets; nil where there are none.
func redacted(m proto.Message) proto.Message {
	switch m := m.(type) {
	case *configv1.Certificate:
		if m.GetPrivateKey() != "" {
			shown := proto.CloneOf(m)
			shown.PrivateKey = ""
			return shown
		}
	case *configv1.AuthPolicy:
		if len(m.GetJwt().GetKeys()) > 0 {
			shown := proto.CloneOf(m)
			for _, k := range shown.GetJwt().GetKeys() {
				k.Secret = ""
			}
			return shown
		}
	case *configv1.Gateway:
		if len(m.GetApiKeys()) > 0 {
			shown := proto.CloneOf(m)
			for _, k := range shown.GetApiKeys() {
				k.Sha256 = "" // a key that somebody has chosen may be found by it
			}
			return shown
		}
	case *configv1.License:
		if m.GetKey() != "" {
			shown := proto.CloneOf(m)
			shown.Key = ""
			return shown
		}
	}
	return nil
}
