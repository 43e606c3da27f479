package web

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	apiv1 "github.com/marchproxy/marchproxy/proto/marchproxy/api/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/explain"
	"github.com/marchproxy/marchproxy/pkg/filterconfig"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// maxExplaining is how many requests are explained at once; the others wait. Each takes some milliseconds of CPU, and
// writes go on meanwhile.
const maxExplaining = 2

// explainRequest says what an Envoy would do with a request. What the request holds is written nowhere: it may have a
// token.
func (a *API) explainRequest(c echo.Context) error {
	var doc api.ExplainRequest
	if err := read(c, &doc); err != nil {
		return err
	}
	r, v := asked(doc)
	if len(v) > 0 {
		return violations(http.StatusUnprocessableEntity, "this is no request that can be explained", v)
	}
	ctx := c.Request().Context()
	select {
	case a.explaining <- struct{}{}:
		defer func() { <-a.explaining }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var around *translate.Around
	var revision int64
	if err := a.Writer.Read(ctx, func(st *config.State) {
		around, revision = translate.At(st, r.Gateway, explain.Host(r.Host)), a.Writer.Revision()
	}); err != nil {
		return err
	}
	out, v, err := explain.Explain(ctx, around, translate.Options{Open: a.Writer.Unseal}, r)
	if err != nil {
		return err
	}
	if len(v) > 0 {
		return violations(http.StatusUnprocessableEntity, "this is no request that can be explained", v)
	}
	out.Revision = revision
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, out)
}

// asked reads what is asked about.
func asked(doc api.ExplainRequest) (r explain.Request, v resource.Violations) {
	m := &apiv1.ExplainRequest{
		Gateway: doc.Gateway, Listener: doc.Listener, Method: doc.Method, Scheme: doc.Scheme, Host: doc.Host,
		Path: doc.Path, Source: doc.Source, ServerName: doc.ServerName,
	}
	r = explain.Request{
		Gateway: doc.Gateway, Listener: doc.Listener, Method: doc.Method, Scheme: doc.Scheme, Host: doc.Host,
		Path: doc.Path, ServerName: doc.ServerName, Now: time.Now(),
	}
	for _, h := range doc.Headers {
		m.Headers = append(m.Headers, &apiv1.HeaderField{Name: h.Name, Value: h.Value})
		r.Headers = append(r.Headers, filterconfig.Header{Name: h.Name, Value: h.Value})
	}
	v = resource.Validate(m)
	wrong := func(rule, message, path string, args ...any) {
		v = append(v, resource.Violation{Path: fmt.Sprintf(path, args...), Message: message, Rule: rule})
	}
	if doc.Method == http.MethodConnect {
		wrong("explain.method", "asks for a tunnel, which no gateway opens", "$.method")
	}
	for i, h := range doc.Headers {
		switch {
		case strings.EqualFold(h.Name, "host"):
			wrong("explain.header", "is given as host", "$.headers[%d].name", i)
		case translate.IsFraming(h.Name):
			wrong("explain.header", "says how a message is carried on one connection; leave it out", "$.headers[%d].name", i)
		}
	}
	if doc.Source != "" {
		var err error
		if r.Source, err = netip.ParseAddr(doc.Source); err != nil {
			wrong("explain.source", `is no address such as "203.0.113.7" or "2001:db8::1"`, "$.source")
		}
		r.Source = r.Source.Unmap()
	}
	for _, d := range []struct {
		to  *string
		def string
	}{
		{&r.Gateway, resource.DefaultGateway}, {&r.Method, http.MethodGet}, {&r.Path, "/"},
	} {
		if *d.to == "" {
			*d.to = d.def
		}
	}
	return r, v
}
