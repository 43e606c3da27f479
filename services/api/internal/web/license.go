package web

import (
	"context"
	"fmt"
	"time"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/license"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// soon is how long before its end a license is warned of.
const soon = 30 * 24 * time.Hour

// licenses says what each license is worth, and who uses it.
func (a *API) licenses(
	ctx context.Context, connected map[string]status.Count, now time.Time,
) ([]api.LicenseStatus, error) {
	objects, _, err := a.Store.Objects(ctx, store.Filter{Kind: resource.KindLicense, Limit: 1000})
	if err != nil {
		return nil, err
	}
	gateways, _, err := a.Store.Objects(ctx, store.Filter{Kind: resource.KindGateway, Limit: 10000})
	if err != nil {
		return nil, err
	}
	of := map[string]string{}
	for _, g := range gateways {
		of[g.Name] = g.Message().(*configv1.Gateway).GetLicense()
	}
	out := make([]api.LicenseStatus, 0, len(objects))
	for _, o := range objects {
		l := o.Message().(*configv1.License)
		s := api.LicenseStatus{Name: o.Name, State: string(license.At(l, now)), MaxProxies: int32(l.GetMaxProxies())}
		for gateway, n := range connected {
			if of[gateway] == o.Name {
				s.Proxies += n.Proxies
				s.Surplus += n.OverLimit
			}
		}
		if end, grace, ends := license.Ends(l); ends {
			s.ExpiresAt, s.WorksUntil = resource.Time(end), resource.Time(end.Add(grace))
			s.Warning = warning(license.At(l, now), end, grace, now)
		}
		if s.Surplus > 0 && s.Warning == "" {
			s.Warning = fmt.Sprintf("%d of %d Envoys have no seat and answer 429; raise max_proxies or stop them",
				s.Surplus, s.Proxies)
		}
		out = append(out, s)
	}
	return out, nil
}

// minute is how a moment stands in a sentence.
const minute = "2006-01-02 15:04 MST"

func warning(s license.State, end time.Time, grace time.Duration, now time.Time) string {
	switch {
	case s == license.Grace:
		return "has ended on " + end.UTC().Format(minute) + "; what needs a feature is refused from " +
			end.Add(grace).UTC().Format(minute) + " on; renew it"
	case s == license.Expired:
		return "has ended on " + end.UTC().Format(minute) + ", and what needs a feature is refused; renew it"
	case s == license.Valid && now.Add(soon).After(end):
		return "ends on " + end.UTC().Format(minute) + "; renew it"
	default:
		return ""
	}
}
