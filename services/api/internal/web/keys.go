package web

import (
	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// lockedOut warns of a gateway that keeps none of its keys: its Envoys lose their streams at once, serve what they have, and
// get nothing new.
func lockedOut(x config.Change) []api.Warning {
	if x.Before == nil || x.After == nil || x.After.Kind != resource.KindGateway {
		return nil
	}
	before := x.Before.Message().(*configv1.Gateway).GetApiKeys()
	after := x.After.Message().(*configv1.Gateway).GetApiKeys()
	had := map[string]bool{}
	for _, k := range before {
		had[k.GetSha256()] = true
	}
	for _, k := range after {
		if had[k.GetSha256()] {
			return nil
		}
	}
	message := "keeps none of the api_keys that it had: an Envoy that shows one of those is refused from now on, and keeps " +
		"what it serves; have both the old and the new keys until every Envoy shows a new one"
	switch {
	case len(before) == 0 && len(after) == 0:
		return nil
	case len(after) == 0:
		message = "has no api_keys any more: no Envoy gets its configuration, and those that are there keep what they serve"
	case len(before) == 0:
		message = "has api_keys now: an Envoy that shows none of them is refused"
	}
	return []api.Warning{{
		Kind: x.After.Kind, Name: x.After.Name, Path: "$.api_keys", Message: message, Rule: "gateway.api_keys",
	}}
}
