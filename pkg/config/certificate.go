package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

var certificateKind = Kind{
	Name: resource.KindCertificate,
	Example: `{"spec": {"chain": "-----BEGIN CERTIFICATE-----\n` +
		`MIIBkTCCATegAwIBAgIUOZt9zeDfBkOM2opv8qKmV0g9qhAwCgYIKoZIzj0EAwIw\n` +
		`FTETMBEGA1UEAwwKRXhhbXBsZSBDQTAgFw0yNjExMjYwNjE5MjVaGA8yMTI2MTEw\n` +
		`MjA2MTkyNVowFTETMBEGA1UEAwwKRXhhbXBsZSBDQTBZMBMGByqGSM49AgEGCCqG\n` +
		`SM49AwEHA0IABKjAQRWg/8qCMh1LldML/lOQRFQ+Fw1K8xbbccP2e5Z99eJfDG1o\n` +
		`NcX1K6gK5tuUIyL4uEbEePmui4BsGU5AWNWjYzBhMB0GA1UdDgQWBBSh5asd5MbZ\n` +
		`lGI3usXm/bYNl4pwTDAfBgNVHSMEGDAWgBSh5asd5MbZlGI3usXm/bYNl4pwTDAP\n` +
		`BgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwICBDAKBggqhkjOPQQDAgNIADBF\n` +
		`AiEAqjTi726CN4x6ayBMu7ghXKRHJjeHRypd+LzIwuFWO9UCIFHgJECqRQNBeKWw\n` +
		`ylRzHFn5pP99b8jnPIN076IRTT1M\n` +
		`-----END CERTIFICATE-----\n"}}`,
	references: func(o *resource.Object, r *refs) {
		for i, g := range servername.Gateways(certificateOf(o)) {
			r.add(resource.KindGateway, g, "$.gateways[%d]", i)
		}
		r.add(resource.KindIssuer, certificateOf(o).GetIssuer(), "$.issuer")
	},
	listeners: func(o *resource.Object) listenerNames {
		return listenerNames{servername.Gateways(certificateOf(o)), certificateOf(o).GetListeners(), true}
	},
	follow: (*State).present,
	check:  (*State).checkCertificate,
	taken:  (*State).checkLast,
	Reach: func(o *resource.Object) Reach {
		out := Reach{Users: true}
		for i, g := range servername.Gateways(certificateOf(o)) {
			out.Gateways = append(out.Gateways, Place{fmt.Sprintf("$.gateways[%d]", i), g})
		}
		for _, h := range servername.Read(o).Names() {
			out.Hosts = append(out.Hosts, Place{"$.chain", h})
		}
		for i, n := range certificateOf(o).GetNames() {
			out.Hosts = append(out.Hosts, Place{fmt.Sprintf("$.names[%d]", i), n})
		}
		if len(out.Hosts) == 0 && certificateOf(o).GetPrivateKey() != "" {
			out.EveryHost = &Why{"$.chain", "names no host"}
		}
		return out
	},
	Credentials: func(o *resource.Object, _ func(sealed, field string) string) []Credential {
		m := certificateOf(o)
		return []Credential{{
			Path: "$.chain", What: "the certificate of " + cmp.Or(m.GetFacts().GetFingerprint(), "an authority"),
			ID: m.GetChain(),
		}}
	},
	Warn: warnCertificate,
	Secret: func(holder proto.Message) (can bool, needed string) {
		if c := holder.(*configv1.Certificate); c.GetIssuer() == "" && c.GetFacts().GetHasPrivateKey() {
			needed = ": the certificate had one where it comes from, and none is stored here; give it"
		}
		return true, needed
	},
	Secrets: certificateSecrets,
	Kept: func(now, then proto.Message) proto.Message {
		is, was := now.(*configv1.Certificate), then.(*configv1.Certificate)
		if is.GetIssuer() == "" || was.GetIssuer() == "" {
			return then
		}
		was = proto.CloneOf(was) // the one that was current then has ended, or its key is one that nobody should use again
		was.Chain, was.PrivateKey, was.Facts = is.GetChain(), is.GetPrivateKey(), is.GetFacts()
		return was
	},
}

func certificateOf(o *resource.Object) *configv1.Certificate {
	return resource.Spec[*configv1.Certificate](o)
}

// certificateSecrets holds the key against the chain, and notes what the chain says.
func certificateSecrets(w *SecretWrite) {
	const at = "$.private_key"
	c := w.Spec.(*configv1.Certificate)
	if c.GetIssuer() != "" && (c.GetPrivateKey() == "" || w.Kept("private_key")) {
		if err := standIn(w, c); err != nil {
			w.Fail("$.chain", "certificate", err.Error())
			return
		}
	}
	leaf, err := certificate.Leaf(c.GetChain())
	if err != nil {
		w.Fail("$.chain", "certificate", err.Error())
		return
	}
	if c.GetPrivateKey() != "" {
		switch err := certificate.CheckKey(c.GetChain(), c.GetPrivateKey()); {
		case err != nil && w.Kept("private_key"):
			w.Missing(at, "is needed: the stored one does not belong to this chain; give the chain's")
		case err != nil:
			w.Fail(at, "certificate", err.Error())
		}
	}
	if w.Lacks(at) {
		c.PrivateKey = Absent
	}
	sum := sha256.Sum256(leaf.Raw)
	c.Facts = &configv1.CertificateFacts{
		NotBefore: resource.Time(leaf.NotBefore), NotAfter: resource.Time(leaf.NotAfter), DnsNames: leaf.DNSNames,
		Fingerprint: hex.EncodeToString(sum[:]), HasPrivateKey: c.GetPrivateKey() != "",
		Placeholder: certificate.IsPlaceholder(leaf),
	}
}

// standIn gives a certificate that an issuer keeps the chain that it has, or one that stands in until there is one. A
// chain that was read before it was renewed, and is sent back, so does no harm.
func standIn(w *SecretWrite, c *configv1.Certificate) (err error) {
	if was, _ := w.Before.(*configv1.Certificate); c.GetPrivateKey() != "" {
		c.Chain = was.GetChain()
		return nil
	}
	c.Chain, c.PrivateKey, err = certificate.Placeholder()
	return err
}

// warnCertificate warns of one that has ended or ends soon, and of a chain in another order than clients expect.
func warnCertificate(c Change, soon time.Duration) (out []Problem) {
	if c.After == nil {
		return nil
	}
	m := certificateOf(c.After)
	chain, err := certificate.Chain(m.GetChain())
	if err != nil {
		return nil // of a time when less was checked
	}
	add := func(rule, message string) {
		if message != "" {
			out = append(out, problem(c.After, "$.chain", rule, "%s", message))
		}
	}
	presented := m.GetPrivateKey() != ""
	add("certificate.dates", certificate.DatesOf(chain, presented).Warning(time.Now(), soon))
	if presented {
		add("certificate.order", certificate.OrderWarning(chain))
	}
	return out
}

// checkCertificate refuses one without a key where something presents it.
func (s *State) checkCertificate(change Change) []Problem {
	o := change.After
	c := certificateOf(o)
	for i, n := range c.GetNames() {
		if why := needsDNS(s.Issuer(c.GetIssuer()), n); why != "" {
			return []Problem{problem(o, fmt.Sprintf("$.names[%d]", i), "certificate.wildcard", "is a wildcard, and issuer %q "+
				"has no dns01: %s", c.GetIssuer(), why)}
		}
	}
	if c.GetPrivateKey() != "" {
		return nil
	}
	if len(servername.Gateways(c)) > 0 {
		return []Problem{problem(o, "$.private_key", "certificate.key", "is missing, and the gateways that this "+
			"certificate names are to present it; give it")}
	}
	for _, user := range s.Users(o.Ref()) {
		u := s.Get(user)
		if u != nil && slices.ContainsFunc(References(u), func(r Reference) bool { return r.To == o.Ref() && !r.Trusted }) {
			return []Problem{problem(o, "$.private_key", "certificate.key", "is missing, and %s presents this certificate; "+
				"give it", user)}
		}
	}
	return nil
}

// checkLast refuses to take the last certificate from an https listener, which could then serve nobody.
func (s *State) checkLast(c Change) []Problem {
	if c.Before == nil {
		return nil
	}
	for _, name := range servername.Gateways(certificateOf(c.Before)) {
		g := gatewayOf(s.Get(resource.Ref{Kind: resource.KindGateway, Name: name}))
		for _, l := range g.GetListeners() {
			if l.GetProtocol() == configv1.Listener_https && len(s.ServerNames(name).Listener(l.GetName()).First()) == 0 {
				at := problem(
					c.Before,
					"$.gateways",
					"reference.in_use",
					"was the last certificate of the https listener %q of gateway %q, which needs one; have another one name it "+
						"first or in the same apply",
					l.GetName(),
					name,
				)
				if c.After == nil {
					at.Path = "$"
				}
				return []Problem{at}
			}
		}
	}
	return nil
}
