package translate

import (
	"maps"
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

// uses notes the certificates of a listener's own chains.
func (s *serving) uses(out map[string]certUse) {
	if s == nil {
		return
	}
	for _, c := range append(s.chains, tlsChain{certs: s.first}) {
		for _, name := range c.certs {
			u := out[name]
			u.present = map[string]bool{"": true}
			out[name] = u
		}
		if c.ca != "" {
			u := out[c.ca]
			u.trust = map[string]bool{"": true}
			out[c.ca] = u
		}
	}
}

// together are the secrets of each chain that has several.
func (s *serving) together() [][]string {
	if s == nil {
		return nil
	}
	var out [][]string
	for _, c := range append(s.chains, tlsChain{certs: s.first}) {
		var names []string
		for _, name := range c.certs {
			names = append(names, certSecret(name))
		}
		if c.ca != "" {
			names = append(names, caSecret(c.ca))
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

// useCerts replaces what a user (a service, or the gateway) uses.
func (w *work) useCerts(user string, now map[string]certUse) {
	for name, u := range w.Builder.certs {
		n := now[name]
		if u.present[user] && len(n.present) == 0 {
			delete(u.present, user)
			w.certs[name] = true
		}
		if u.trust[user] && len(n.trust) == 0 {
			delete(u.trust, user)
			w.certs[name] = true
		}
		if len(u.present)+len(u.trust) == 0 {
			delete(w.Builder.certs, name)
		}
	}
	for name, n := range now {
		u := w.Builder.certs[name]
		if u.present == nil {
			u = certUse{present: map[string]bool{}, trust: map[string]bool{}}
			w.Builder.certs[name] = u
		}
		if len(n.present) > 0 && !u.present[user] {
			u.present[user] = true
			w.certs[name] = true
		}
		if len(n.trust) > 0 && !u.trust[user] {
			u.trust[user] = true
			w.certs[name] = true
		}
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
	if names := w.servedBy[name]; len(u.present)+len(names) > 0 {
		key := c.GetPrivateKey()
		if w.opt.Open != nil {
			var err error
			if key, err = w.opt.Open(ref, "private_key", key); err != nil {
				w.problem(ref, "$.private_key", "certificate.sealed", "cannot be opened with this SECRET_KEY: "+err.Error())
				return
			}
		}
		present := func(secret string) *Resource {
			return newResource(secret, &tlsv3.Secret{Name: secret, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
				CertificateChain: inline(c.GetChain()), PrivateKey: inline(key),
			}}}, nil, ref)
		}
		if len(u.present) > 0 {
			w.put(ck, present(ck.Name))
		}
		for _, n := range names {
			r := present(n)
			r.ByName, r.Carrier = true, w.carrierOf[n]
			w.put(r.Key, r)
		}
	}
	if len(u.trust) > 0 {
		w.put(ak, newResource(caSecret(name), &tlsv3.Secret{Name: caSecret(name), Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inline(c.GetChain()),
		}}}, nil, ref))
	}
}

// name finds the secrets that are asked for by server name, those that differ from before, and their carriers.
func (w *work) name(https []*serving) {
	now := settle(https)
	// What is served for names that no certificate has must be the same at every listener.
	for i, s := range https {
		if len(s.first) > 0 && (i == 0 || s.first[0] == now[AnyName]) {
			now[AnyName] = s.first[0]
		} else {
			delete(now, AnyName)
			break
		}
	}
	for n, c := range w.named {
		if now[n] != c {
			w.certs[c] = true
		}
		if now[n] == "" {
			w.put(Key{TypeSecret, n}, nil)
		}
	}
	changed := len(now) != len(w.named)
	for n, c := range now {
		if was := w.named[n]; was != c {
			changed = changed || was == ""
			w.certs[c] = true
		}
	}
	w.named, w.servedBy = now, map[string][]string{}
	for n, c := range now {
		w.servedBy[c] = append(w.servedBy[c], n)
	}
	if changed {
		w.carry(slices.DeleteFunc(slices.Collect(maps.Keys(now)), func(n string) bool { return n == AnyName }))
	}
}

// carry deals the names to the carriers.
func (w *work) carry(names []string) {
	ref := resource.Ref{Kind: resource.KindGateway, Name: w.gateway}
	now := spread(names)
	for id := range w.carriers {
		if now[id] == nil {
			w.put(Key{TypeCluster, id}, nil)
		}
	}
	of := make(map[string]string, len(names))
	for id, list := range now {
		for _, n := range list {
			of[n] = id
			if w.carrierOf[n] != id {
				w.certs[w.named[n]] = true
			}
		}
		if !slices.Equal(list, w.carriers[id]) {
			w.put(Key{TypeCluster, id}, newResource(id, carrier(id, list), nil, ref))
		}
	}
	w.carriers, w.carrierOf = now, of
}

func inline(s string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
}
