package web

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// issuances adds to certificates that come from an authority how far they are.
func (a *API) issuances(ctx context.Context, objects []api.Object) error {
	at := map[string]int{}
	var names []string
	for i, o := range objects {
		if o.Kind == resource.KindCertificate && o.Status != nil {
			at[o.Name] = i
			names = append(names, o.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	rows, err := a.Store.Issuances(ctx, names...)
	if err != nil {
		return err
	}
	for _, x := range rows {
		if o := objects[at[x.Certificate]]; o.UID == x.UID {
			o.Status.Issuance = issuanceOf(x)
		}
	}
	return nil
}

func issuanceOf(x store.Issuance) *api.CertificateIssuance {
	date := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return resource.Time(*t)
	}
	return &api.CertificateIssuance{
		Step: x.Step, Note: x.Note, Problem: x.Problem, Reason: x.Reason, Failures: int32(x.Failures),
		NextAt: resource.Time(x.NextAt), IssuedAt: date(x.IssuedAt), RenewAt: date(x.RenewAt), Explanation: x.Explanation,
	}
}

// renew has a certificate be ordered now.
func (a *API) renew(c echo.Context) error {
	ctx := c.Request().Context()
	ref := resource.Ref{Kind: resource.KindCertificate, Name: c.Param("name")}
	o, err := a.Store.Object(ctx, ref)
	if err != nil {
		return missing(err, "%s %q", ref.Kind, ref.Name)
	}
	who := actor(c)
	var denied resource.Violations
	if err := a.Writer.Read(ctx, func(st *config.State) {
		denied = auth.Check(who, auth.Operation{Role: auth.Operator, Kind: ref.Kind}, st, o, o)
	}); err != nil {
		return err
	}
	if len(denied) > 0 {
		return violations(http.StatusForbidden, denied[0].Message, denied)
	}
	if o.Message().(*configv1.Certificate).GetIssuer() == "" {
		return wrong(http.StatusConflict, "certificate %q has no issuer; write it again with the new chain and private_key",
			ref.Name)
	}
	found, err := a.Store.RenewNow(ctx, ref.Name)
	if err != nil {
		return err
	}
	if !found {
		return wrong(http.StatusConflict, "certificate %q is about to be ordered anyway", ref.Name)
	}
	out, err := a.object(o)
	if err != nil {
		return err
	}
	list := []api.Object{out}
	if err := a.issuances(ctx, list); err != nil {
		return err
	}
	return c.JSON(http.StatusAccepted, list[0])
}

// unissued warns of certificates whose last order has failed, the first to end first.
func (a *API) unissued(ctx context.Context) ([]api.Warning, error) {
	rows, err := a.Store.FailedIssuances(ctx, maxWarnings)
	if err != nil {
		return nil, err
	}
	var out []api.Warning
	for _, x := range rows {
		out = append(out, api.Warning{
			Kind: resource.KindCertificate, Name: x.Certificate, Path: "$.issuer", Rule: "certificate.issuance",
			Message: fmt.Sprintf("could not be issued (%s): %s; failures in a row: %d, next attempt: %s", x.Problem,
				x.Reason, x.Failures, x.NextAt.UTC().Format(minute)),
		})
	}
	return out, nil
}

// issuanceMetric is a prometheus.Collector: how many certificates are how far.
type issuanceMetric struct{ *API }

var (
	descIssuance = prometheus.NewDesc("marchproxy_api_certificate_issuance",
		"Certificates that come from an issuer, by what has become of their last order: issued, pending, or the authority's "+
			"word for what was wrong.", []string{"issuer", "state"}, nil)
	descOverdue = prometheus.NewDesc("marchproxy_api_certificate_renewals_overdue",
		"Certificates whose renewal was due an hour ago or longer.", nil, nil)
	descOrders = prometheus.NewDesc("marchproxy_api_certificate_orders_total",
		"Orders of this api that have ended, by issuer and result: issued or failed.", []string{"issuer", "result"}, nil)
)

// Describe names the metrics.
func (issuanceMetric) Describe(ch chan<- *prometheus.Desc) {
	ch <- descIssuance
	ch <- descOverdue
	ch <- descOrders
}

// Collect counts.
func (a issuanceMetric) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	counts, overdue, err := a.Store.CountIssuances(ctx)
	if err != nil {
		a.Log.Warn("how far certificates are cannot be read for /metrics", zap.Error(err))
		return
	}
	for k, n := range counts {
		ch <- prometheus.MustNewConstMetric(descIssuance, prometheus.GaugeValue, float64(n), k[0], k[1])
	}
	ch <- prometheus.MustNewConstMetric(descOverdue, prometheus.GaugeValue, float64(overdue))
	if a.Orders == nil {
		return
	}
	for k, n := range a.Orders() {
		ch <- prometheus.MustNewConstMetric(descOrders, prometheus.CounterValue, float64(n), k[0], k[1])
	}
}
