package dev

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/envoyadmin"
)

// envoyWaits says what Envoy waits for, and what can be done about it.
func (s *system) envoyWaits(ctx context.Context, log func() []byte) string {
	e := envoyadmin.Envoy{Admin: envoyadmin.New(s.adminSocket()), Server: local(s.GRPCPort), Log: log}
	_, cause, reason := e.Look(ctx)
	gateway := s.urls["api"] + "/v1/gateways/default"
	switch cause {
	case envoyadmin.KeyRefused:
		names := "others"
		var g struct {
			Spec struct {
				Keys []struct{ Name string } `json:"api_keys"`
			}
		}
		if err := s.call(ctx, http.MethodGet, gateway, "", &g); err == nil && len(g.Spec.Keys) > 0 {
			names = ""
			for _, k := range g.Spec.Keys {
				names += ", " + k.Name
			}
			names = strings.TrimPrefix(names, ", ")
		}
		return fmt.Sprintf("%s\n  Envoy's key is ClusterKey in %s; the gateway default takes the api_keys %s instead.\n"+
			"  This takes them away, so that Envoy's is taken again:\n"+
			"    curl -X PATCH %s -H \"Authorization: Bearer $(cat %s)\" -H 'Content-Type: application/merge-patch+json' -d "+
			"'{\"spec\":{\"api_keys\":null}}'",
			reason, filepath.Join(s.StateDir, "secrets.json"), names, gateway, s.tokenPath())
	case envoyadmin.NoListeners:
		return reason + "; " + gateway + " shows it"
	default:
		return reason
	}
}

// busyEvery is how often it is looked who is busy for longer than a moment.
const busyEvery = 5 * time.Second

// tellBusy says, until the context ends, what the system is busy with where that takes long: a start with much data, or
// a large apply.
func (s *system) tellBusy(ctx context.Context) {
	tick := time.NewTicker(busyEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		var st api.Status
		limit, cancel := context.WithTimeout(ctx, busyEvery)
		err := s.call(limit, http.MethodGet, s.urls["api"]+"/v1/status", "", &st)
		cancel()
		if err != nil {
			continue // an api that is away is spoken of by who keeps it running
		}
		for _, p := range st.Progress {
			s.say(p.Who + " is busy: " + p.String())
		}
	}
}
