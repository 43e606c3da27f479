package translate

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
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

func listenerCerts(l *configv1.Listener, out map[string]certUse) {
	present := slices.Clone(l.GetCertificates())
	for _, a := range l.GetClientAuth() {
		present = append(present, a.GetCertificates()...)
		u := out[a.GetCaCertificate()]
		u.trust = map[string]bool{"": true}
		out[a.GetCaCertificate()] = u
	}
	for _, c := range present {
		u := out[c]
		u.present = map[string]bool{"": true}
		out[c] = u
	}
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

// useCerts replaces what a user (a service, or the gateway) uses.
func (w *work) useCerts(user string, now map[string]certUse) {
	for name, u := range w.Builder.certs {
		if u.present[user] || u.trust[user] {
			delete(u.present, user)
			delete(u.trust, user)
			w.certs[name] = true
			if len(u.present)+len(u.trust) == 0 {
				delete(w.Builder.certs, name)
			}
		}
	}
	for name, n := range now {
		u := w.Builder.certs[name]
		if u.present == nil {
			u = certUse{present: map[string]bool{}, trust: map[string]bool{}}
			w.Builder.certs[name] = u
		}
		if len(n.present) > 0 {
			u.present[user] = true
		}
		if len(n.trust) > 0 {
			u.trust[user] = true
		}
		w.certs[name] = true
	}
}

// certificate builds a certificate's secrets, or removes those that nobody uses.
func (w *work) certificate(name string) {
	ref := resource.Ref{Kind: resource.KindCertificate, Name: name}
	o := w.st.Get(ref)
	u := w.Builder.certs[name]
	ck, ak := Key{TypeSecret, certSecret(name)}, Key{TypeSecret, caSecret(name)}
	if o == nil || len(u.present) == 0 {
		w.put(ck, nil)
	}
	if o == nil || len(u.trust) == 0 {
		w.put(ak, nil)
	}
	if o == nil {
		return
	}
	c := o.Message().(*configv1.Certificate)
	if len(u.present) > 0 {
		key := c.GetPrivateKey()
		if w.opt.Open != nil {
			var err error
			if key, err = w.opt.Open(ref, "private_key", key); err != nil {
				w.problem(ref, "$.private_key", "certificate.sealed", "cannot be opened with this SECRET_KEY: "+err.Error())
				return
			}
		}
		w.put(ck, newResource(certSecret(name), &tlsv3.Secret{Name: certSecret(name), Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(c.GetChain()), PrivateKey: inline(key),
		}}}, nil, ref))
	}
	if len(u.trust) > 0 {
		w.put(ak, newResource(caSecret(name), &tlsv3.Secret{Name: caSecret(name), Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inline(c.GetChain()),
		}}}, nil, ref))
	}
}

func inline(s string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
}
