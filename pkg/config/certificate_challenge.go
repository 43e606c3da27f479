package config

import (
	"fmt"
	"slices"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

var challengeKind = Kind{
	Name: resource.KindChallenge,
	Example: `{"spec": {"gateways": ["default"], "responses": [{"host": "shop.example.com", "id": "LoqXcYV8q5ONbJQxbmR7S",` +
		` "body": "LoqXcYV8q5ONbJQxbmR7S.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"}]}}`,
	Found:  true,
	System: true,
	index: func(s *State, o *resource.Object, by int) {
		for _, g := range challengeOf(o).GetGateways() {
			put(s.challenges, g, o, by)
		}
	},
	Concerns: func(c Change) (gateways []string, all bool) {
		for o := range c.Objects {
			gateways = append(gateways, challengeOf(o).GetGateways()...)
		}
		return gateways, false
	},
	Reach: func(o *resource.Object) (out Reach) {
		for i, g := range challengeOf(o).GetGateways() {
			out.Gateways = append(out.Gateways, Place{fmt.Sprintf("$.gateways[%d]", i), g})
		}
		for i, r := range challengeOf(o).GetResponses() {
			out.Hosts = append(out.Hosts, Place{fmt.Sprintf("$.responses[%d].host", i), r.GetHost()})
		}
		return out
	},
}

func challengeOf(o *resource.Object) *configv1.CertificateChallenge {
	return resource.Spec[*configv1.CertificateChallenge](o)
}

// ChallengesAt are the challenges that a gateway's Envoys answer, by name.
func (s *State) ChallengesAt(gateway string) []*resource.Object {
	if s.challenges[gateway].len() == 0 { // as nearly always; each table that is built asks
		return nil
	}
	return slices.SortedFunc(s.challenges[gateway].all(), func(a, b *resource.Object) int { return a.Ref().Compare(b.Ref()) })
}
