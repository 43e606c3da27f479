package web

import (
	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// lockedOut warns of a gateway that keeps none of its keys: Envoys go on, and are refused when they connect again.
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
	message := "keeps none of the api_keys that it had: an Envoy that shows one of those is refused when it connects " +
		"again; have both the old and the new keys until every Envoy shows a new one"
	switch {
	case len(before) == 0 && len(after) == 0:
		return nil
	case len(after) == 0:
		message = "has no api_keys any more: when an Envoy connects again, only the xDS server's CLUSTER_API_KEY opens " +
			"the gateway"
	case len(before) == 0:
		message = "has api_keys now: when an Envoy connects again, the xDS server's CLUSTER_API_KEY does not open the " +
			"gateway any more"
	}
	return []api.Warning{{
		Kind: x.After.Kind, Name: x.After.Name, Path: "$.api_keys", Message: message, Rule: "gateway.api_keys",
	}}
}
