// Package web is the HTTP API: Echo, and the only package that sees it.
package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/guard"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
	"github.com/marchproxy/marchproxy/services/api/internal/openapi"
	"github.com/marchproxy/marchproxy/services/api/internal/provider"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/tail"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

// Limits of request bodies, in bytes.
const (
	maxObject = 1 << 20
	maxApply  = 64 << 20
)

// API is the handlers and what they need.
type API struct {
	Store  *store.Store
	Writer *writer.Writer
	Board  *live.Board
	Auth   *auth.Auth
	// Published is the relay's last revision.
	Published func() int64
	// Unpublished says why what is stored is not published, and since when; "" where nothing is known to be wrong.
	Unpublished func() (reason string, since time.Time)
	// Retained is when the history was last looked through for what need not be kept, and Expiry when the api's own
	// certificate ends ([identity.Identity.Expiry]), both in seconds since 1970; they may be nil.
	Retained func() int64
	Expiry   func() float64
	// Orders counts the orders of certificates that have ended, by issuer and result; it may be nil.
	Orders func() map[[2]string]int
	// Progress are what is asked who is busy with something for longer than a moment, nil where nobody is.
	Progress []func() []api.Progress
	// Committed tells GET /v1/events that there may be a new revision.
	Committed *Signal
	// Tail watches access logs; nil where there is no NATS, as in tests.
	Tail *tail.Hub
	Log  *zap.Logger
	// CertificateWarning is how long before its end a certificate is warned of (API_CERTIFICATE_WARNING).
	CertificateWarning time.Duration

	// Provider signs people in; it may be nil.
	Provider *provider.Provider

	// Attempts slows down who guesses tokens, and Proven is told the remote address of who has one; both may be nil.
	Attempts *guard.Attempts
	Proven   func(remote string)

	followers    followers
	verifying    chan struct{} // full while the audit is being verified
	explaining   chan struct{} // full while as many requests are being explained as may be at once
	certificates expiries
	metrics      *metrics
	// openAPI is the document, made once.
	openAPI []byte
}

// Handler returns the API as one handler. An error means that the table of operations is wrong.
func (a *API) Handler() (http.Handler, error) {
	e := echo.New()
	if a.Attempts == nil {
		a.Attempts = guard.NewAttempts(a.Log)
	}
	a.verifying = make(chan struct{}, 1)
	a.explaining = make(chan struct{}, maxExplaining)
	a.metrics = newMetrics(a)
	var err error
	if a.openAPI, err = a.document(); err != nil {
		return nil, err
	}
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = a.fail
	e.Use(a.requestID, middleware.RecoverWithConfig(middleware.RecoverConfig{
		LogErrorFunc: func(c echo.Context, err error, stack []byte) error {
			a.about(c).Error("panic", zap.Error(err), zap.ByteString("stack", stack))
			return &problem{defect}
		},
	}))
	allowed := map[string][]string{}
	for _, op := range a.operations() {
		h := a.measure(op.ID, a.traced(op, a.guard(op)))
		e.Add(op.Method, op.Path, h)
		allowed[op.Path] = append(allowed[op.Path], op.Method)
		// Those would not end, or for long.
		if endless := []string{"events", "accessLog", "exportAudit"}; op.Method == http.MethodGet &&
			!slices.Contains(endless, op.ID) {
			e.HEAD(op.Path, h) // net/http leaves the body out
			allowed[op.Path] = append(allowed[op.Path], http.MethodHead)
		}
	}
	for path, methods := range allowed {
		notAllowed(e, path, methods)
	}
	for _, k := range resource.Kinds {
		if config.KindOf(k.Name).System { // its writes are refused to everybody
			takes(e, "/v1/"+k.Path+"/:name", []string{http.MethodGet, http.MethodHead})
		}
	}
	a.addProvider(e)
	if err := a.addPages(e); err != nil {
		return nil, err
	}
	return e, nil
}

// notAllowed answers a path's other methods, which a pattern of several paths would take otherwise.
func notAllowed(e *echo.Echo, path string, methods []string) {
	allow := takes(e, path, methods)
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
		if !slices.Contains(methods, method) {
			e.Add(method, path, func(c echo.Context) error {
				c.Response().Header().Set("Allow", allow)
				return wrong(http.StatusMethodNotAllowed, "%s is not for this path; it takes %s", method, allow)
			})
		}
	}
}

// takes says which methods a path takes.
func takes(e *echo.Echo, path string, methods []string) (allow string) {
	allow = strings.Join(append([]string{http.MethodOptions}, methods...), ", ")
	e.OPTIONS(path, func(c echo.Context) error {
		c.Response().Header().Set("Allow", allow)
		return c.NoContent(http.StatusNoContent)
	})
	return allow
}

const (
	keyRequest = "request_id"
	keyActor   = "actor"
)

func (a *API) requestID(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		id := c.Request().Header.Get("X-Request-Id")
		if len(id) == 0 || len(id) > 64 || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
			id = uuid.NewString()
		}
		c.Set(keyRequest, id)
		h := c.Response().Header()
		h.Set("X-Request-Id", id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin") // what a browser is signed in for is for no other site's page
		return next(c)
	}
}

func requestID(c echo.Context) string { s, _ := c.Get(keyRequest).(string); return s }

// guard checks who asks, and that nothing is asked for in words that are not known.
func (a *API) guard(op operation) echo.HandlerFunc {
	return func(c echo.Context) error {
		if op.Role != "" {
			r := c.Request()
			who, err := a.identify(c)
			if err != nil {
				return a.refused(c, err)
			}
			ask := auth.Operation{Role: op.Role}
			if k, ok := resource.KindByPath(c.Param("kind")); ok && op.Writes {
				ask.Kind = k.Name
			}
			if v := auth.Check(who, ask, nil, nil, nil); len(v) > 0 {
				return forbidden(v)
			}
			c.Set(keyActor, who)
			if r.Context().Value(asking{}) != nil {
				return c.NoContent(http.StatusNoContent)
			}
		}
		if err := check(c.Request(), op); err != nil {
			return err
		}
		return op.handle(c)
	}
}

// actor is who asks, as [API.guard] has found out.
func actor(c echo.Context) auth.Identity { who, _ := c.Get(keyActor).(auth.Identity); return who }

// forbidden says what is not allowed. What is wrong with the request as a whole is said in the first sentence.
func forbidden(v resource.Violations) error {
	if len(v) == 1 && v[0].Path == "$" {
		return violations(http.StatusForbidden, v[0].Message, v)
	}
	return violations(http.StatusForbidden, "nothing has been changed", v)
}

// check refuses parameters that are not known, and values that are not as documented.
func check(r *http.Request, op operation) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return wrong(http.StatusBadRequest, "the query cannot be read: %s", err.Error())
	}
	for name, values := range query {
		switch {
		case !slices.Contains(op.Query, name) && len(op.Query) == 0:
			return wrong(http.StatusBadRequest, "query parameter %q is not known here; there are none", name)
		case !slices.Contains(op.Query, name):
			return wrong(http.StatusBadRequest, "query parameter %q is not known here; known: %s", name,
				strings.Join(op.Query, ", "))
		case len(values) > 1:
			return wrong(http.StatusBadRequest, "query parameter %q is given %d times; give it once", name, len(values))
		}
		if msg := openapi.Parameters[name].Check(values[0]); msg != "" {
			return wrong(http.StatusBadRequest, "query parameter %s %s", name, msg)
		}
	}
	for _, name := range op.Headers {
		values, there := r.Header[http.CanonicalHeaderKey(name)]
		v := strings.TrimSpace(strings.Join(values, ","))
		switch {
		case !there:
		case v == "": // a variable that was not set: the write would not be guarded
			return wrong(http.StatusBadRequest, "header %s is empty; give it a value, or leave it out", name)
		default:
			if msg := openapi.Parameters[name].Check(r.Header.Get(name)); msg != "" {
				return wrong(http.StatusBadRequest, "header %s %s", name, msg)
			}
		}
	}
	return nil
}

// defect answers what nobody has thought of, so that it is not known either what has been done.
var defect = api.Problem{
	Status: http.StatusInternalServerError,
	Detail: "this is a defect; the log has it under this request_id. Look whether it has changed anything",
}

// problem is an error with its answer.
type problem struct{ api.Problem }

func (p *problem) Error() string { return p.Detail }

func wrong(status int, format string, args ...any) error {
	return &problem{api.Problem{Status: int32(status), Detail: fmt.Sprintf(format, args...)}}
}

func violations(status int, detail string, v resource.Violations) error {
	p := &problem{api.Problem{Status: int32(status), Detail: detail}}
	for _, x := range v.First() {
		p.Errors = append(p.Errors, api.Violation(x))
	}
	return p
}

// unacceptable refuses a write for its values.
func unacceptable(v resource.Violations) error {
	return violations(http.StatusUnprocessableEntity, "nothing has been changed", v)
}

// fail answers with RFC 9457.
func (a *API) fail(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	p := a.explain(err, a.about(c))
	p.Type, p.Title, p.RequestID = "about:blank", http.StatusText(int(p.Status)), requestID(c)
	c.Response().Header().Set(echo.HeaderContentType, "application/problem+json")
	c.Response().WriteHeader(int(p.Status))
	_ = json.NewEncoder(c.Response()).Encode(p) // the client is gone: nobody is left to tell
}

func (a *API) explain(err error, log *zap.Logger) api.Problem {
	var p *problem
	var refused *writer.Refused
	var he *echo.HTTPError
	switch {
	case errors.As(err, &p):
		return p.Problem
	case errors.As(err, &refused) && refused.Forbidden:
		errors.As(forbidden(refused.Violations), &p)
		return p.Problem
	case errors.As(err, &refused):
		status := http.StatusUnprocessableEntity
		if refused.Conflict {
			status = http.StatusConflict
		}
		errors.As(violations(status, "nothing has been changed", refused.Violations), &p)
		return p.Problem
	case errors.Is(err, writer.ErrKeyReused):
		return api.Problem{Status: http.StatusUnprocessableEntity, Detail: err.Error()}
	case errors.Is(err, store.ErrTokenExists), errors.Is(err, store.ErrLastAdmin), errors.Is(err, store.ErrUserExists),
		errors.Is(err, store.ErrManyTokens):
		return api.Problem{Status: http.StatusConflict, Detail: err.Error()}
	case errors.Is(err, store.ErrNotFound):
		return api.Problem{Status: http.StatusNotFound, Detail: "what the path names does not exist; GET on the path above " +
			"it lists what there is"}
	case errors.As(err, &he) && he.Code == http.StatusNotFound:
		return api.Problem{Status: http.StatusNotFound, Detail: "there is nothing at this path; /docs/api.html lists what there is"}
	case errors.As(err, &he):
		return api.Problem{Status: int32(he.Code), Detail: fmt.Sprint(he.Message)}
	case errors.Is(err, writer.ErrUnknown):
		log.Error("a write's outcome is unknown", zap.Error(err))
		detail := "the database did not confirm the write; it may have been stored. Look, or send it again with " +
			"an Idempotency-Key"
		if why := store.Why(err); why != "" {
			detail = why + ". " + detail
		}
		return api.Problem{Status: http.StatusServiceUnavailable, Detail: detail}
	}
	log.Error("request failed", zap.Error(err))
	if why := a.whyNot(err); why != "" {
		return api.Problem{Status: http.StatusServiceUnavailable, Detail: why + "; nothing has been changed. Try again"}
	}
	if errors.Is(err, context.Canceled) { // by who asked, or because the api ends
		return api.Problem{Status: http.StatusServiceUnavailable, Detail: "the request was given up; nothing has been " +
			"changed. Try again"}
	}
	return defect
}

// body reads a request's body, up to a limit.
func body(c echo.Context, limit int64) ([]byte, error) {
	ct, _, _ := strings.Cut(c.Request().Header.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(ct)) {
	case "", "application/json", "application/merge-patch+json", "application/x-www-form-urlencoded":
		// the last is curl's, unasked
	default:
		return nil, wrong(http.StatusUnsupportedMediaType, "Content-Type is %q; send application/json", ct)
	}
	raw, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, limit))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, wrong(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", limit)
	}
	if err != nil {
		return nil, wrong(http.StatusBadRequest, "the body could not be read")
	}
	return raw, nil
}

var errCursor = wrong(http.StatusBadRequest, "cursor is not one that this API gave out")

func number(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, wrong(http.StatusBadRequest, "%q is not a revision; it is a whole number from 0", s)
	}
	return n, nil
}
