package ads

import (
	"maps"
	"slices"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// The secrets of one TLS context (a pair of certificates, a certificate with the authority of clients) are judged
// together: Envoy builds the context when the last of them has come, and its NACK is that of this last one, whichever
// is at fault. The fault is that of the secret whose content shows one; the others are in dispute until it is
// corrected.

// shareSecrets finds out which secrets share a TLS context, when a listener or a cluster is replaced.
func (t *table) shareSecrets(was, now *translate.Resource) {
	if (was == nil || len(was.Together) == 0) && (now == nil || len(now.Together) == 0) {
		return
	}
	t.sharing = map[string]map[string]bool{}
	note := func(r *translate.Resource) {
		if r == nil || r == was {
			return
		}
		for _, context := range r.Together {
			for _, a := range context {
				for _, b := range context {
					if a == b {
						continue
					}
					if t.sharing[a] == nil {
						t.sharing[a] = map[string]bool{}
					}
					t.sharing[a][b] = true
				}
			}
		}
	}
	note(now)
	for _, tt := range t.order {
		if !tt.hasSecrets {
			continue
		}
		for _, e := range tt.byName {
			note(e.desired)
			note(e.lastGood) // it may be served in its place
		}
	}
}

// secret finds a secret's entry.
func (t *table) secret(name string) *entry { return t.find(translate.TypeSecret, name) }

// atFault is the secret whose content shows why Envoy NACKed another one of its TLS context; nil where that one's own
// content may be the reason.
func (t *table) atFault(r *translate.Resource) (culprit *entry) {
	if faulty(r) {
		return nil
	}
	for _, other := range slices.Sorted(maps.Keys(t.sharing[r.Name])) {
		if e := t.secret(other); e != nil && faulty(e.desired) {
			culprit = e
		}
	}
	return culprit
}

// dispute notes that a secret is not served because another one of its TLS context was rejected.
func (t *table) dispute(r *translate.Resource, revision int64, culprit *entry, reason string) {
	t.generation++
	if e := t.secret(r.Name); e == nil || !e.desired.Is(r.Version) {
		return
	}
	t.warn("a secret waits for another one of its TLS context", zap.String("name", r.Name),
		zap.String("refused", culprit.desired.Name), zap.String("reason", reason))
	t.disputed[r.Name] = &Rejection{
		Resource: r, Revision: revision,
		Reason: "not at fault: it shares a TLS context with " + culprit.desired.Name + ", which was refused: " + reason,
	}
}

// settleDispute notes that a TLS context with a secret was ACKed; it says whether that was in dispute.
func (t *table) settleDispute(name string) bool {
	if t.disputed[name] == nil {
		return false
	}
	delete(t.disputed, name)
	t.generation++
	return true
}

// inDispute says whether a secret is still not served everywhere for another one's fault.
func (t *table) inDispute(name string, r *Rejection) bool {
	if e := t.secret(name); e == nil || !e.desired.Is(r.Resource.Version) {
		return false
	}
	for other := range t.sharing[name] {
		if t.secret(other).quarantined() {
			return true
		}
	}
	return false
}

// disputes lists the secrets that are in dispute.
func (t *table) disputes() []Rejection {
	var out []Rejection
	for name, r := range t.disputed {
		d := *r
		d.GoodUntil = t.secret(name).goodUntil()
		out = append(out, d)
	}
	return out
}

// standIn is the secret that is served under a name that has none of its own; nil where there is none.
func (t *table) standIn(name string) *translate.Resource {
	plain := strings.ToLower(strings.TrimSuffix(name, "."))
	if r := t.served(translate.Key{Type: translate.TypeSecret, Name: plain}); r != nil && r.ByName && plain != name {
		return r
	}
	return t.served(translate.Key{Type: translate.TypeSecret, Name: translate.AnyName})
}

// faulty says whether a secret's content shows by itself that Envoy rejects it.
func faulty(r *translate.Resource) bool {
	var secret tlsv3.Secret
	if r == nil || r.Body.UnmarshalTo(&secret) != nil {
		return false
	}
	c := secret.GetTlsCertificate()
	chain := c.GetCertificateChain().GetInlineString()
	leaf, err := certificate.Leaf(chain + secret.GetValidationContext().GetTrustedCa().GetInlineString())
	if err != nil || c == nil {
		return err != nil
	}
	return certificate.Presentable(leaf) != nil || certificate.CheckKey(chain, c.GetPrivateKey().GetInlineString()) != nil
}
