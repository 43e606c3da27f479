package issuance

import (
	"context"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/certificate"
)

// lookAgain is how often the time of a renewal is asked for where the authority does not say: it may bring it forward, for
// instance because it has to revoke.
const lookAgain = 6 * time.Hour

// leaf is the present certificate; nil where it only stands in.
func (j *job) leaf() *x509.Certificate {
	leaf, err := certificate.Leaf(j.spec.GetChain())
	if err != nil || certificate.IsPlaceholder(leaf) {
		return nil
	}
	return leaf
}

// due says whether a certificate is to be ordered now. Where it is not, it is noted when to look again.
func (j *job) due(ctx context.Context, now time.Time) (bool, error) {
	x := &j.row
	leaf := j.leaf()
	if leaf == nil || x.RenewAt == nil && x.IssuedAt != nil {
		return true, nil // there is none yet, or another one is wanted
	}
	if x.RenewAt != nil && !x.RenewAt.After(now) {
		return true, nil
	}
	// What a row knows nothing of was there before it: given by somebody, or by a database that was restored.
	if x.RenewAt == nil && !slices.Equal(slices.Sorted(slices.Values(leaf.DNSNames)),
		slices.Sorted(slices.Values(j.spec.GetNames()))) {
		return true, nil
	}
	if x.RenewAt == nil || x.LookAt == nil || !x.LookAt.After(now) {
		var info *acme.RenewalInfo
		switch ari, err := j.client.GetRenewalInfo(ctx, leaf); {
		case err == nil:
			info = &ari
		case ctx.Err() != nil:
			return false, ctx.Err()
		case !errors.Is(err, acme.ErrUnsupported):
			j.log.Info("the authority does not say when to renew", zap.Error(err))
		}
		j.plan(info, leaf, now)
	}
	x.Step, x.Note = stepIssued, ""
	return !x.RenewAt.After(now), nil
}

// plan notes when to renew, as the authority says, or else after two thirds of the certificate's time, half of it where
// that is less than ten days. A window that is the same as before keeps the time that was chosen in it.
func (j *job) plan(info *acme.RenewalInfo, leaf *x509.Certificate, now time.Time) {
	x := &j.row
	look := now.Add(lookAgain)
	var renew time.Time
	if info != nil && info.HasWindow() {
		x.Explanation = info.ExplanationURL
		if info.RetryAfter != nil {
			look = *info.RetryAfter
		}
		if renew = info.SelectedTime; x.RenewAt != nil && !x.RenewAt.Before(info.SuggestedWindow.Start) &&
			!x.RenewAt.After(info.SuggestedWindow.End) {
			renew = *x.RenewAt
		}
	} else {
		whole := leaf.NotAfter.Sub(leaf.NotBefore)
		renew = leaf.NotBefore.Add(whole / 3 * 2)
		if whole < 10*24*time.Hour {
			renew = leaf.NotBefore.Add(whole / 2)
		}
		if x.RenewAt != nil {
			renew = *x.RenewAt
		} else {
			renew = renew.Add(rand.N(whole/50 + 1)) // so that not all that were issued together are renewed together
		}
	}
	x.RenewAt, x.LookAt, x.NotAfter = &renew, &look, &leaf.NotAfter
	if x.NextAt = renew; look.Before(renew) {
		x.NextAt = look
	}
}

// replaces names the certificate that an order replaces (RFC 9773, 5), "" where there is none or the authority knows
// nothing of it.
func (j *job) replaces(ctx context.Context) string {
	leaf := j.leaf()
	if dir, err := j.client.GetDirectory(ctx); leaf == nil || err != nil || dir.RenewalInfo == "" ||
		len(leaf.AuthorityKeyId) == 0 {
		return ""
	}
	id, err := acme.ARIUniqueIdentifier(leaf)
	if err != nil {
		return ""
	}
	return id
}
