package issuance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

// pauses are between attempts, by how many have failed; the last one for all that follow. Let's Encrypt allows five failed
// validations of a name in an hour: four are made.
var pauses = []time.Duration{
	time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour,
}

func pauseAfter(failures int) time.Duration {
	p := pauses[min(max(failures, 1), len(pauses))-1]
	return p + rand.N(p/10)
}

const (
	// limited is the pause where an authority says that it was asked too often, and not when to come again.
	limited = time.Hour
	// spread is how long other certificates of an issuer keep away after one was refused so: they may be within their limits.
	spread = time.Minute
)

// remedies are what to do about an authority's words, by the last part of their URN (RFC 8555, 6.7).
var remedies = map[string]string{
	"caa": "a CAA record of the name, or of a name above it, does not allow this authority; add one that does, or take it " +
		"away",
	"connection": "the authority could not connect to the name on port 80: look at its DNS records, firewalls, and which " +
		"gateway the port leads to",
	"dns":                     "the authority could not look the name up: look at its DNS records, and DNSSEC",
	"unauthorized":            "what answered the authority was not these Envoys: look at where the name's DNS records lead",
	"incorrectResponse":       "what answered the authority was not these Envoys: look at where the name's DNS records lead",
	"rejectedIdentifier":      "the authority does not issue for this name",
	"rateLimited":             "it is tried again when the authority allows that",
	"externalAccountRequired": "give the issuer an external_account, which this authority demands",
	"userActionRequired":      "the authority's terms of service have changed; read them",
	"unreachable":             "the authority's directory cannot be reached from the api",
}

// explain says what was wrong: in the authority's word, and in a sentence.
func explain(err error) (problem, reason string) {
	var p acme.Problem
	if !errors.As(err, &p) {
		problem, reason = "failed", err.Error()
		if strings.Contains(reason, "performing request") || strings.Contains(reason, "fetching new nonce") {
			problem = "unreachable"
		}
	} else {
		problem = strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace)
		reason = p.Detail
		for _, s := range p.Subproblems {
			reason += fmt.Sprintf("; %s: %s", s.Identifier.Value, s.Detail)
		}
		if name, _, found := strings.Cut(err.Error(), ": "); found && !strings.Contains(name, " ") && name != "" {
			reason = name + ": " + reason
		}
	}
	if r := remedies[problem]; r != "" {
		reason += " (" + r + ")"
	}
	return problem, reason[:min(len(reason), 2000)]
}

// failed notes a failure, and when to try again: after what the authority says, and longer the more often it has failed.
func (j *job) failed(ctx context.Context, err error, s said) {
	now := time.Now()
	x := &j.row
	x.Problem, x.Reason = explain(err)
	x.Step, x.Note, x.FailedAt = stepFailed, "", &now
	x.Failures++
	var p acme.Problem
	isProblem := errors.As(err, &p)
	after := max(pauseAfter(x.Failures), s.retryAfter)
	switch {
	case isProblem && p.Type == acme.ProblemTypeAccountDoesNotExist:
		j.stored.URL, x.OrderURL, after = "", "", time.Second // it is made again, with the same key
		if err := j.store.SaveAccount(ctx, j.stored); err != nil {
			j.log.Warn("an account cannot be stored", zap.Error(err))
		}
	case isProblem && p.Type == acme.ProblemTypeRateLimited:
		if s.retryAfter == 0 {
			after = max(after, limited)
		}
		j.pause(ctx, now.Add(min(after, spread)), x.Reason)
	case s.status == http.StatusServiceUnavailable:
		j.pause(ctx, now.Add(max(s.retryAfter, spread)), x.Reason)
	case isProblem && p.Status < 500:
		x.OrderURL = "" // an order with a name that was not proven ends
	}
	x.NextAt = now.Add(after)
	j.count("failed")
	j.log.Warn("a certificate could not be issued", zap.String("problem", x.Problem), zap.String("reason", x.Reason),
		zap.Int("failures", x.Failures), zap.Time("next", x.NextAt))
	j.retract(ctx)
}

// pause has all certificates of an issuer keep away from the authority.
func (j *job) pause(ctx context.Context, until time.Time, why string) {
	if j.stored.Issuer == "" {
		return // it was refused before there was an account
	}
	j.stored.PausedUntil, j.stored.PausedFor = &until, why
	if err := j.store.SaveAccount(ctx, j.stored); err != nil {
		j.log.Warn("that an authority wants to be let alone cannot be stored", zap.Error(err))
	}
}

// retract takes the answers of an order away that has failed.
func (j *job) retract(ctx context.Context) {
	if !j.told {
		return
	}
	if _, err := j.writes.do(ctx, write{
		words: "no answers for " + j.row.Certificate,
		plan: func(st *config.State) ([]writer.Desired, []resource.Ref, error) {
			if st.Get(j.challenge()) == nil {
				return nil, nil, nil
			}
			return nil, []resource.Ref{j.challenge()}, nil
		},
	}); err != nil {
		j.log.Warn("the answers of an order that has failed cannot be taken away", zap.Error(err))
	}
}
