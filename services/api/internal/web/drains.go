package web

import (
	"fmt"
	"strings"
	"time"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

// drains say which connections a write ends, and when.
func (a *API) drains(res writer.Result) []api.Warning {
	var out []api.Warning
	for _, x := range res.Changes {
		out = append(out, a.drainTime(x)...)
	}
	for _, d := range res.Drains {
		which := "the connections of listener " + d.Listener
		if len(d.Chains) > 0 {
			which += " through " + strings.Join(d.Chains, ", ")
		}
		if d.Object.Kind != resource.KindGateway {
			which += " of Gateway/" + d.Gateway
		}
		message := fmt.Sprintf("ends %s: clients are asked to make new ones after their next response, and "+
			"what is still open "+
			"after %v, a WebSocket or a download, is cut", which, a.drainsWithin(d.Gateway, res.Changes))
		if len(d.Fields) > 1 {
			message += "; so do " + strings.Join(d.Fields[1:], ", ")
		}
		out = append(out, api.Warning{
			Kind: d.Object.Kind, Name: d.Object.Name, Path: d.Fields[0], Message: message,
			Rule: "gateway.drains",
		})
	}
	return out
}

// drainsWithin is the shortest drain time of a gateway's Envoys, as they say it; without any that which they would
// have, by the configuration before the changes.
func (a *API) drainsWithin(gateway string, changes []config.Change) time.Duration {
	if shortest, _ := a.Board.DrainTimes(gateway); shortest > 0 {
		return shortest
	}
	for _, x := range changes {
		if x.Before != nil && x.Before.Kind == resource.KindGateway && x.Before.Name == gateway {
			return translate.DrainTime(x.Before.Message().(*configv1.Gateway))
		}
	}
	return bootstrap.DefaultDrainTime
}

// drainTime warns of a new drain time that Envoys which run do not take.
func (a *API) drainTime(x config.Change) []api.Warning {
	if x.After == nil || x.After.Kind != resource.KindGateway {
		return nil
	}
	now, was := translate.DrainTime(x.After.Message().(*configv1.Gateway)), bootstrap.DefaultDrainTime
	if x.Before != nil {
		was = translate.DrainTime(x.Before.Message().(*configv1.Gateway))
	}
	shortest, longest := a.Board.DrainTimes(x.After.Name)
	if now == was || longest == 0 || (shortest == now && longest == now) {
		return nil
	}
	have := shortest.String()
	if shortest != longest {
		have += " to " + longest.String()
	}
	return []api.Warning{{
		Kind: x.After.Kind, Name: x.After.Name, Path: "$.drain_time", Rule: "gateway.drain_time",
		Message: "is taken by Envoys when they start; those that run keep " + have + " until their agents start them again",
	}}
}
