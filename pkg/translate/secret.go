package translate

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/servername"
)

// certUse is what a certificate is used for, and by whom.
type certUse struct {
	present, trust map[string]bool // users
}

func certSecret(name string) string { return "certificate/" + name }

func caSecret(name string) string { return "ca/" + name }

func serviceCerts(s *configv1.Service) map[string]certUse {
	out := map[string]certUse{}
	if !usesTLS(s) {
		return out
	}
	if c := s.GetTls().GetClientCertificate(); c != "" {
		out[c] = certUse{present: map[string]bool{"": true}}
	}
	if c := s.GetTls().GetCaCertificate(); c != "" {
		u := out[c]
		u.trust = map[string]bool{"": true}
		out[c] = u
	}
	return out
}

// uses notes the certificates of a listener's own chains.
func (s *serving) uses(out map[string]certUse) {
	if s == nil {
		return
	}
	for _, c := range append(slices.Clip(s.chains), servername.Chain{Certs: s.first}) {
		for _, name := range c.Certs {
			u := out[name]
			u.present = map[string]bool{"": true}
			out[name] = u
		}
		if c.CA != "" {
			u := out[c.CA]
			u.trust = map[string]bool{"": true}
			out[c.CA] = u
		}
	}
}

// together are the secrets of each chain that has several.
func (s *serving) together() [][]string {
	if s == nil {
		return nil
	}
	var out [][]string
	for _, c := range append(slices.Clip(s.chains), servername.Chain{Certs: s.first}) {
		var names []string
		for _, name := range c.Certs {
			names = append(names, certSecret(name))
		}
		if c.CA != "" {
			names = append(names, caSecret(c.CA))
		}
		out = append(out, together(names)...)
	}
	return out
}

// secrets are the names under which Envoy asks for certificates.
func secrets(in map[string]certUse) []string {
	var out []string
	for name, u := range in {
		if len(u.present) > 0 {
			out = append(out, certSecret(name))
		}
		if len(u.trust) > 0 {
			out = append(out, caSecret(name))
		}
	}
	slices.Sort(out)
	return out
}

// together is one TLS context with these secrets, nothing where there is only one.
func together(secrets []string) [][]string {
	if len(secrets) < 2 {
		return nil
	}
	return [][]string{secrets}
}

// secretsOf makes a certificate's secrets, as it is used: the names in the end are those of servers that it is served
// for, each with the carrier of its secret. The problem is a key that cannot be opened.
func (v *view) secretsOf(
	o *resource.Object, u certUse, names map[string]bool, carrier func(name string) string,
) (out []*Resource, problem *config.Problem) {
	ref, c := o.Ref(), o.Message().(*configv1.Certificate)
	if len(u.present)+len(names) > 0 {
		key := c.GetPrivateKey()
		if v.opt.Open != nil {
			var err error
			if key, err = v.opt.Open(ref, "private_key", key); err != nil {
				return nil, &config.Problem{Object: ref, Violation: resource.Violation{
					Path: "$.private_key", Rule: "certificate.sealed", Message: "cannot be opened with this SECRET_KEY: " +
						err.Error(),
				}}
			}
		}
		present := func(secret string) *Resource {
			return newResource(secret, &tlsv3.Secret{Name: secret, Type: &tlsv3.Secret_TlsCertificate{
				TlsCertificate: &tlsv3.TlsCertificate{
					CertificateChain: inline(c.GetChain()), PrivateKey: inline(key),
				},
			}}, nil, ref)
		}
		if len(u.present) > 0 {
			out = append(out, present(certSecret(ref.Name)))
		}
		for n := range names {
			r := present(n)
			if r.ByName = true; n != AnyName {
				r.Carrier = carrier(n)
			}
			out = append(out, r)
		}
	}
	if len(u.trust) > 0 {
		name := caSecret(ref.Name)
		out = append(out, newResource(name, &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{
			ValidationContext: &tlsv3.CertificateValidationContext{
				TrustedCa: inline(c.GetChain()),
			},
		}}, nil, ref))
	}
	return out, nil
}

func inline(s string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
}
