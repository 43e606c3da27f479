package translate

import (
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

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

// useCerts replaces what a user (a service, or the gateway) uses.
func (w *work) useCerts(user string, now map[string]certUse) {
	was := w.certsOf[user]
	for name, old := range was {
		u, n := w.Builder.certs[name], now[name]
		if len(old.present) > 0 && len(n.present) == 0 {
			delete(u.present, user)
			w.certs[name] = true
		}
		if len(old.trust) > 0 && len(n.trust) == 0 {
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
	if w.certsOf[user] = now; len(now) == 0 {
		delete(w.certsOf, user)
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
		for n := range w.servedBy[name] { // the listener may begin with it all the same
			w.put(Key{TypeSecret, n}, nil)
		}
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
		for n := range names {
			r := present(n)
			if r.ByName = true; n != AnyName {
				r.Carrier = w.carriers.of(n)
			}
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
func (w *work) name() {
	x := w.st.ServerNames(w.gateway)
	names, ok := x.Since(w.seen)
	if ok = ok && x == w.names; !ok {
		names = slices.AppendSeq(slices.Collect(maps.Keys(w.named)), x.AllOnDemand)
	}
	w.names, w.seen = x, x.Now()
	carriers := map[string][]string{} // those that are another one now
	for _, n := range names {
		if n != AnyName {
			w.rename(n, x.OnDemand(n), carriers)
		}
	}
	w.rename(AnyName, w.anyName(), carriers)
	ref := resource.Ref{Kind: resource.KindGateway, Name: w.gateway}
	for id, list := range carriers {
		if len(list) == 0 {
			w.put(Key{TypeCluster, id}, nil)
			continue
		}
		w.put(Key{TypeCluster, id}, newResource(id, carrier(id, list), nil, ref))
		for _, n := range list {
			if r := w.out[Key{TypeSecret, n}]; r == nil || r.Carrier != id {
				w.certs[w.named[n]] = true
			}
		}
	}
}

// anyName is the certificate that names without one are served with: the same at every listener, or none.
func (w *work) anyName() string {
	any := ""
	for i, l := range w.names.Listeners() {
		first := l.First()
		if len(first) == 0 || (i > 0 && first[0] != any) {
			return ""
		}
		any = first[0]
	}
	return any
}

// rename has a name be served with a certificate on demand, "" for none.
func (w *work) rename(n, now string, carriers map[string][]string) {
	was := w.named[n]
	if was == now {
		return
	}
	if was != "" {
		w.certs[was] = true
		if delete(w.servedBy[was], n); len(w.servedBy[was]) == 0 {
			delete(w.servedBy, was)
		}
	}
	if now == "" {
		delete(w.named, n)
		w.put(Key{TypeSecret, n}, nil)
	} else {
		w.certs[now] = true
		w.named[n] = now
		if w.servedBy[now] == nil {
			w.servedBy[now] = map[string]bool{}
		}
		w.servedBy[now][n] = true
	}
	if n != AnyName && (was == "") != (now == "") {
		w.carriers.change(n, now != "", func(id string, names []string) { carriers[id] = names })
	}
}

func inline(s string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
}
