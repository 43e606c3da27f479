package issuance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

// untilLive is how long Envoys may take to have an answer, and askAgain when to try again where they do not.
const untilLive, askAgain = 30 * time.Second, 15 * time.Second

// proof is a name that is to be proven, by one of the challenges that the authority offers for it.
type proof struct {
	acme.Authorization
	by acme.Challenge
}

// prove proves the names of an order.
func (j *job) prove(ctx context.Context, order acme.Order) error {
	var http, dns []proof
	for _, url := range order.Authorizations {
		a, err := j.client.GetAuthorization(ctx, j.account, url)
		if err != nil {
			return err
		}
		if a.Status != acme.StatusPending { // proven before; or it says below what was wrong
			if _, err := j.client.PollAuthorization(ctx, j.account, a); err != nil {
				return named(a, err)
			}
			continue
		}
		kind, list := "http-01", &http
		if config.ByDNS(j.issuer, a.IdentifierValue()) {
			kind, list = "dns-01", &dns
		}
		i := slices.IndexFunc(a.Challenges, func(c acme.Challenge) bool { return c.Type == kind })
		if i < 0 {
			return fmt.Errorf("the authority does not offer %s for %s", kind, a.IdentifierValue())
		}
		*list = append(*list, proof{a, a.Challenges[i]})
	}
	if len(http)+len(dns) == 0 {
		return nil
	}
	if err := j.save(ctx, stepAnswering); err != nil {
		return err
	}
	if len(http) > 0 {
		if err := j.answer(ctx, http); err != nil {
			return err
		}
	}
	if len(dns) > 0 {
		remove, err := j.publish(ctx, dns)
		defer remove()
		if err != nil {
			return err
		}
	}
	if err := j.save(ctx, stepValidating); err != nil {
		return err
	}
	all := slices.Concat(http, dns)
	for _, p := range all {
		if p.by.Status != acme.StatusPending { // the authority was told before this api took over
			continue
		}
		if _, err := j.client.InitiateChallenge(ctx, j.account, p.by); err != nil {
			return named(p.Authorization, err)
		}
	}
	for _, p := range all {
		if _, err := j.client.PollAuthorization(ctx, j.account, p.Authorization); err != nil {
			return named(p.Authorization, err)
		}
	}
	return nil
}

// named says of which name an error is.
func named(a acme.Authorization, err error) error {
	return fmt.Errorf("%s: %w", a.IdentifierValue(), err)
}

// answer has the Envoys answer the authority, and returns when all that are connected do.
func (j *job) answer(ctx context.Context, names []proof) error {
	if len(j.at) == 0 {
		return errors.New("no gateway presents the certificate, so that none answers the authority; name one in the " +
			"certificate's gateways, or in http01.gateways of the issuer")
	}
	spec := &configv1.CertificateChallenge{Gateways: j.at}
	for _, p := range names {
		spec.Responses = append(spec.Responses, &configv1.ChallengeResponse{
			Host: p.Identifier.Value, Id: p.by.Token, Body: p.by.KeyAuthorization,
		})
	}
	var before int64
	j.told = true
	res, err := j.writes.do(ctx, write{
		words: "asks for " + j.row.Certificate,
		plan: func(st *config.State) ([]writer.Desired, []resource.Ref, error) {
			if st.Get(j.ref()) == nil {
				return nil, nil, errChanged
			}
			before = 0
			if o := st.Get(j.challenge()); o != nil {
				before = o.Revision
			}
			return []writer.Desired{{Ref: j.challenge(), Spec: spec, Path: "$", SpecPath: "$"}}, nil, nil
		},
	})
	if err != nil {
		return fmt.Errorf("the answers to the authority: %w", err)
	}
	revision := before // of an api before this one
	for _, c := range res.Changes {
		if c.Ref() == j.challenge() {
			revision = res.Revision
		}
	}
	limit, cancel := context.WithTimeout(ctx, untilLive)
	defer cancel()
	l := j.board.Wait(limit, live.Target{
		Epoch: res.Epoch, Revision: res.Revision, State: res.State, Gateways: j.at,
		Objects: map[resource.Ref]int64{j.challenge(): revision}, Names: map[string]string{},
	})
	switch {
	case l.Live:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case l.State == "no_proxies":
		return &later{time.Now().Add(askAgain), "no Envoy of " + strings.Join(j.at, ", ") + " is connected, so that nobody " +
			"could answer the authority"}
	}
	return &later{time.Now().Add(askAgain), strings.TrimSuffix("not every Envoy has the answer to the authority yet: "+
		l.Reason, ": ")}
}
