package web

import (
	"net/http"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/tracing"
)

// traced makes a span of each request that says who asks; probes and scrapes would only hide the others.
func (a *API) traced(op operation, next echo.HandlerFunc) echo.HandlerFunc {
	if op.Role == "" || op.ID == "events" { // which lasts as long as its client stays
		return next
	}
	return func(c echo.Context) error {
		if !tracing.On() {
			return next(c)
		}
		r, span := tracing.Serve(
			c.Request(), op.Method+" "+op.Path, attribute.String("http.request.method", c.Request().Method),
			attribute.String("http.route", op.Path),
			attribute.String("url.path", c.Request().URL.Path), attribute.String("marchproxy.request_id", requestID(c)),
		)
		defer span.End()
		c.SetRequest(r)
		if err := next(c); err != nil {
			c.Error(err) // answers, so that the status is known
		}
		status := c.Response().Status
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(status))
		}
		return nil
	}
}

// about is the log for what concerns a request: each line names it, and its trace.
func (a *API) about(c echo.Context) *zap.Logger {
	return a.Log.With(zap.String("request_id", requestID(c)), tracing.ID(traceOf(c.Request())))
}

// traceOf is the traceparent that a write's commit has: that of the request's span, or of its header where none is
// made.
func traceOf(r *http.Request) string {
	if t := tracing.Traceparent(tracing.Of(r.Context())); t != "" {
		return t
	}
	if t := r.Header.Get("Traceparent"); traceparent.MatchString(t) {
		return t
	}
	return ""
}
