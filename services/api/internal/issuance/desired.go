package issuance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

// desired is what the configuration asks for.
type desired struct {
	certificates map[string]store.Issuance // rows as they begin, but for when they are due
	issuers      map[string]int64          // their revisions
	// challenges are those whose certificate is not wanted any more.
	challenges []resource.Ref
	// make and drop are the certificates of routes that are missing, or are not asked for any more.
	make []writer.Desired
	drop []resource.Ref
}

func desires(st *config.State) desired {
	d := desired{certificates: map[string]store.Issuance{}, issuers: map[string]int64{}}
	for _, issuer := range st.Names(resource.KindIssuer) {
		d.issuers[issuer] = st.Get(resource.Ref{Kind: resource.KindIssuer, Name: issuer}).Revision
		for u := range st.EachUser(resource.Ref{Kind: resource.KindIssuer, Name: issuer}) {
			if u.Kind != resource.KindCertificate {
				continue
			}
			o := st.Get(u)
			d.certificates[u.Name] = store.Issuance{
				Certificate: u.Name, UID: o.UID, Issuer: issuer,
				Wanted: wanted(certificateOf(o), st.Issuer(issuer)),
			}
		}
	}
	for _, name := range st.Names(resource.KindChallenge) {
		if _, has := d.certificates[name]; !has {
			d.challenges = append(d.challenges, resource.Ref{Kind: resource.KindChallenge, Name: name})
		}
	}
	d.automatic(st)
	return d
}

func certificateOf(o *resource.Object) *configv1.Certificate {
	return resource.Spec[*configv1.Certificate](o)
}

// wanted is equal for two certificates where the same order serves for both. Of the names the order is no matter.
func wanted(c *configv1.Certificate, i *configv1.CertificateIssuer) string {
	names := slices.Sorted(slices.Values(c.GetNames()))
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q", c.GetIssuer(), directoryOf(i), i.GetProfile(), i.GetKeyType(),
		names))
	return hex.EncodeToString(sum[:16])
}

// automatic adds what is to be done for routes with tls: auto.
func (d *desired) automatic(st *config.State) {
	asked := map[string]bool{}
	for _, a := range st.Automatics() {
		ref := resource.Ref{Kind: resource.KindCertificate, Name: automaticName(a.Host, a.Issuer)}
		asked[ref.Name] = true
		was := st.Get(ref)
		if c := certificateOf(was); was != nil && (was.Owner != config.AutomaticOwner ||
			c.GetIssuer() == a.Issuer && slices.Equal(c.GetGateways(), a.Gateways) && slices.Equal(c.GetNames(), []string{a.Host})) {
			continue // as it is to be, or somebody has made it theirs
		}
		owner := config.AutomaticOwner
		d.make = append(d.make, writer.Desired{Ref: ref, Owner: &owner, Path: "$", SpecPath: "$", Spec: &configv1.Certificate{
			Issuer: a.Issuer, Names: []string{a.Host}, Gateways: a.Gateways,
		}})
	}
	for _, name := range st.Names(resource.KindCertificate) {
		if asked[name] || !strings.HasPrefix(name, automaticPrefix) {
			continue
		}
		ref := resource.Ref{Kind: resource.KindCertificate, Name: name}
		if o := st.Get(ref); o.Owner == config.AutomaticOwner && !last(st, o) {
			d.drop = append(d.drop, ref)
		}
	}
}

// last says whether a listener has no other certificate than this one, so that it has to stay.
func last(st *config.State, o *resource.Object) bool {
	for _, g := range certificateOf(o).GetGateways() {
		for _, l := range st.ServerNames(g).Listeners() {
			if l.Only(o.Name) {
				return true
			}
		}
	}
	return false
}

const automaticPrefix = "auto-"

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// automaticName is what the certificate of a host is called: readable, and no other host's.
func automaticName(host, issuer string) string {
	sum := sha256.Sum256([]byte(host + "\x00" + issuer))
	readable := strings.Trim(notInNames.ReplaceAllString(strings.Replace(host, "*", "wildcard", 1), "-"), "-")
	readable = strings.TrimRight(readable[:min(len(readable), 63-len(automaticPrefix)-9)], "-")
	return automaticPrefix + readable + "-" + hex.EncodeToString(sum[:4])
}

// tidy writes what the configuration lacks, and takes away what nothing asks for any more.
func (m *Manager) tidy(ctx context.Context, d desired) error {
	for some := range slices.Chunk(d.make, 100) {
		if _, err := m.writes.do(ctx, write{
			words: fmt.Sprintf("certificates of %d hosts that routes ask for", len(some)),
			plan:  func(*config.State) ([]writer.Desired, []resource.Ref, error) { return some, nil, nil },
		}); err != nil {
			return err
		}
	}
	for some := range slices.Chunk(slices.Concat(d.drop, d.challenges), 100) {
		if _, err := m.writes.do(ctx, write{
			words: fmt.Sprintf("%d that nothing asks for any more", len(some)),
			plan: func(st *config.State) ([]writer.Desired, []resource.Ref, error) {
				return nil, slices.DeleteFunc(slices.Clone(some), func(r resource.Ref) bool { return st.Get(r) == nil }), nil
			},
		}); err != nil {
			return err
		}
	}
	return nil
}
