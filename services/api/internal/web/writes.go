package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/attribute"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/tracing"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

func (a *API) put(c echo.Context) error {
	k, ref, err := named(c)
	if err != nil {
		return err
	}
	raw, err := body(c, maxObject)
	if err != nil {
		return err
	}
	var doc document
	if err := decode(raw, &doc); err != nil {
		return err
	}
	if (doc.Kind != nil && *doc.Kind != ref.Kind) || (doc.Name != nil && *doc.Name != ref.Name) {
		return violations(
			http.StatusUnprocessableEntity,
			"the body speaks of another object than the path",
			resource.Violations{{
				Path: "$.name", Message: "must be " + ref.String() + ", as in the path, or absent",
				Rule: "name",
			}},
		)
	}
	d, v := desired(k, ref, doc.Spec, doc.Owner, doc.Labels, "$")
	if len(v) > 0 {
		return unacceptable(v)
	}
	return a.write(c, ref, raw, func(*resource.Object) (*writer.Desired, error) { return &d, nil })
}

// patchable is what a PATCH may change.
type patchable struct {
	Spec   json.RawMessage   `json:"spec,omitempty"`
	Owner  string            `json:"owner,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

func (a *API) patch(c echo.Context) error {
	k, ref, err := named(c)
	if err != nil {
		return err
	}
	raw, err := body(c, maxObject)
	if err != nil {
		return err
	}
	if v := resource.CheckJSON(raw); len(v) > 0 {
		return violations(http.StatusBadRequest, "the body is not JSON that can be taken", v)
	}
	if json.Unmarshal(raw, &map[string]json.RawMessage{}) != nil || string(bytes.TrimSpace(raw)) == "null" {
		return wrong(http.StatusBadRequest, "the body must be an object with spec, owner or labels (RFC 7396)")
	}
	return a.write(c, ref, raw, func(before *resource.Object) (*writer.Desired, error) {
		if before == nil {
			return nil, missingObject(ref)
		}
		shown, err := writer.Public(before)
		if err != nil {
			return nil, err
		}
		was, err := json.Marshal(patchable{shown.Spec, before.Owner, before.Labels})
		if err != nil {
			return nil, err
		}
		merged, err := mergePatch(was, raw)
		if err != nil {
			return nil, wrong(http.StatusBadRequest, "the body must be an object with spec, owner or labels (RFC 7396)")
		}
		var doc patchable
		if err := decode(merged, &doc); err != nil {
			return nil, err
		}
		if doc.Labels == nil {
			doc.Labels = map[string]string{} // taken away, since what stays has been merged in
		}
		d, v := desired(k, ref, doc.Spec, &doc.Owner, doc.Labels, "$")
		d.KeepApart = false // what stays has been merged in
		if len(v) > 0 {
			return nil, unacceptable(v)
		}
		return &d, nil
	})
}

// mergePatch is RFC 7396.
func mergePatch(doc, patch []byte) ([]byte, error) {
	var d, p any
	for into, raw := range map[*any][]byte{&d: doc, &p: patch} {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if err := dec.Decode(into); err != nil {
			return nil, err
		}
	}
	if _, ok := p.(map[string]any); !ok {
		return nil, fmt.Errorf("not an object")
	}
	return json.Marshal(merge(d, p))
}

func merge(d, p any) any {
	patch, ok := p.(map[string]any)
	if !ok {
		return p
	}
	out, ok := d.(map[string]any)
	if !ok {
		out = map[string]any{}
	}
	for k, v := range patch {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = merge(out[k], v)
		}
	}
	return out
}

func (a *API) remove(c echo.Context) error {
	_, ref, err := named(c)
	if err != nil {
		return err
	}
	return a.write(c, ref, nil, func(before *resource.Object) (*writer.Desired, error) {
		if before == nil {
			return nil, missingObject(ref)
		}
		return nil, nil // nothing is what is desired
	})
}

// write changes one object: want says how it should be, nil for gone.
func (a *API) write(
	c echo.Context, ref resource.Ref, raw []byte, want func(before *resource.Object) (*writer.Desired, error),
) error {
	opt, err := readOptions(c)
	if err != nil {
		return err
	}
	var before *resource.Object
	var owner *string
	if c.Request().Method == http.MethodDelete && c.QueryParams().Has("owner") {
		name := c.QueryParam("owner")
		owner = &name
	}
	return a.answer(c, opt, raw, func(st *config.State) (writer.Plan, func(writer.Result) (any, error), error) {
		before = st.Get(ref)
		d, err := want(before)
		if err != nil {
			return writer.Plan{}, nil, err
		}
		if err := precondition(c.Request(), before); err != nil { // after every other check (RFC 9110, 13.2.1)
			return writer.Plan{}, nil, err
		}
		show := func(res writer.Result) (any, error) { return a.applied(res, opt), nil }
		if d == nil {
			return writer.Plan{Deletes: []resource.Ref{ref}, Owner: owner, TakeOver: opt.takeOver, Status: http.StatusOK},
				show, nil
		}
		plan := writer.Plan{Upserts: []writer.Desired{*d}, TakeOver: opt.takeOver, Status: http.StatusOK}
		if before == nil && !opt.dryRun {
			plan.Status = http.StatusCreated
		}
		if !opt.dryRun {
			show = func(res writer.Result) (any, error) { return a.written(before, res) }
		}
		return plan, show, nil
	})
}

// written is an object as a write left it.
func (a *API) written(before *resource.Object, res writer.Result) (any, error) {
	after := before
	if len(res.Changes) > 0 {
		after = res.Changes[0].After
	}
	shown, err := writer.Public(after)
	if err != nil {
		return nil, err
	}
	out := envelope(shown)
	out.Warnings = append(a.warnings([]config.Change{{Before: before, After: after}}, res.Warnings), a.drains(res)...)
	return out, nil
}

// answer makes a write and answers with what show makes of its result, which is also what an idempotency
// key remembers.
func (a *API) answer(
	c echo.Context, opt options, raw []byte,
	plan func(*config.State) (writer.Plan, func(writer.Result) (any, error), error),
) error {
	var show func(writer.Result) (any, error)
	var asked []*resource.Object // as they were, of those that are to be
	res, err := a.Writer.Write(c.Request().Context(), a.meta(c, opt, raw), func(st *config.State) (writer.Plan, error) {
		p, s, err := plan(st)
		show, asked = s, nil
		for _, d := range p.Upserts {
			if o := st.Get(d.Ref); o != nil {
				asked = append(asked, o)
			}
		}
		p.Answer = func(r writer.Result) ([]byte, error) {
			x, err := s(r)
			if err != nil {
				return nil, err
			}
			return json.Marshal(x)
		}
		return p, err
	})
	if err != nil {
		return err
	}
	if res.Replayed != nil {
		return a.replay(c, opt, res)
	}
	out, err := show(res)
	if err != nil {
		return err
	}
	l := a.wait(c.Request().Context(), opt, res, asked)
	switch x := out.(type) {
	case api.Object:
		x.Live = l
		c.Response().Header().Set("ETag", etag(x.Revision))
		return c.JSON(statusOf(res.Status, l), x)
	case api.ApplyResult:
		x.Live = l
		return c.JSON(statusOf(res.Status, l), x)
	default:
		return fmt.Errorf("unexpected answer %T", out)
	}
}

// replay answers a repeated request as the first one was.
func (a *API) replay(c echo.Context, opt options, res writer.Result) error {
	var body map[string]json.RawMessage
	if err := json.Unmarshal(res.Replayed.Response, &body); err != nil {
		return fmt.Errorf("read remembered answer: %w", err)
	}
	if err := json.Unmarshal(body["revision"], &res.Revision); err != nil {
		return fmt.Errorf("read remembered answer: %w", err)
	}
	asked, err := a.remembered(c.Request().Context(), res.Replayed.Response)
	if err != nil {
		return err
	}
	l := a.wait(c.Request().Context(), opt, res, asked)
	if l != nil {
		raw, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		body["live"] = raw
	}
	if body["spec"] != nil {
		c.Response().Header().Set("ETag", etag(res.Revision))
	}
	c.Response().Header().Set("Idempotency-Replayed", "true")
	return c.JSON(statusOf(res.Status, l), body)
}

// remembered are the objects that an answer speaks of, as they are now; without those that are gone.
func (a *API) remembered(ctx context.Context, answer []byte) (out []*resource.Object, err error) {
	var said struct {
		resource.Ref
		Changes []resource.Ref `json:"changes"`
	}
	if err := json.Unmarshal(answer, &said); err != nil {
		return nil, fmt.Errorf("read remembered answer: %w", err)
	}
	for _, r := range append(said.Changes, said.Ref) {
		if r.Kind == "" {
			continue
		}
		o, err := a.Store.Object(ctx, r)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

func precondition(r *http.Request, before *resource.Object) error {
	tag := ""
	if before != nil {
		tag = etag(before.Revision)
	}
	if h := r.Header.Get("If-Match"); h != "" && (before == nil || !matchesStrongly(h, tag)) {
		return &problem{api.Problem{Status: http.StatusPreconditionFailed, Detail: "the resource is not what If-Match " +
			"expects; read it again and decide anew", CurrentETag: tag}}
	}
	if h := r.Header.Get("If-None-Match"); h != "" && before != nil && matches(h, tag) {
		return &problem{api.Problem{
			Status: http.StatusPreconditionFailed, Detail: "the resource exists already",
			CurrentETag: tag,
		}}
	}
	return nil
}

// options are the query parameters of a write.
type options struct {
	wait                         time.Duration
	dryRun, takeOver, allowEmpty bool
	// revive lets a rollback bring back credentials.
	revive bool
	// alone has the write decided when all before it are stored.
	alone   bool
	message string
}

func readOptions(c echo.Context) (o options, err error) {
	if c.QueryParam("wait") == "live" {
		o.wait = 10 * time.Second
	}
	if t := c.QueryParam("timeout"); t != "" {
		d, err := time.ParseDuration(t)
		if err != nil || d < time.Millisecond || d > time.Minute {
			return o, wrong(http.StatusBadRequest, `timeout must be a duration from 1ms to 60s, such as "10s"`)
		}
		if o.wait > 0 {
			o.wait = d
		}
	}
	o.dryRun = c.QueryParam("dry_run") == "true"
	o.takeOver = c.QueryParam("take_over") == "true"
	o.allowEmpty = c.QueryParam("allow_empty") == "true"
	o.revive = c.QueryParam("revive_credentials") == "true"
	o.message = c.QueryParam("message")
	return o, nil
}

func (a *API) meta(c echo.Context, o options, raw []byte) writer.Meta {
	r := c.Request()
	m := writer.Meta{
		Who: actor(c), Message: o.message, RequestID: requestID(c), DryRun: o.dryRun, Alone: o.alone,
		Traceparent: traceOf(r),
	}
	if key := r.Header.Get("Idempotency-Key"); key != "" && !o.dryRun {
		h := sha256.New()
		fmt.Fprintf(h, "%s %s\n", r.Method, r.URL.Path)
		h.Write(raw)
		m.Key, m.Request = key, h.Sum(nil)
	}
	return m
}

// traceparent is W3C's, version 00.
var traceparent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// wait waits until what was asked for is live: what was changed, and what was so already, which may still be on
// its way.
func (a *API) wait(ctx context.Context, o options, res writer.Result, asked []*resource.Object) *api.Live {
	if o.wait == 0 || o.dryRun {
		return nil
	}
	changes := res.Changes
	changed := make(map[resource.Ref]bool, len(changes))
	for _, x := range changes {
		changed[x.Ref()] = true
	}
	for _, o := range asked {
		if !changed[o.Ref()] {
			changes = append(changes[:len(changes):len(changes)], config.Change{Before: o, After: o})
		}
	}
	t := a.target(res.Revision, changes)
	t.State = res.State
	if len(changes) == 0 { // nothing was named: then all of it
		t.Gateways = a.Writer.Gateways()
	}
	limit, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	began := tracing.Now()
	l := a.Board.Wait(limit, t)
	a.unpublished(&l, res.Revision)
	if tracing.On() {
		tracing.Span(tracing.Of(ctx), "wait=live", began, time.Now(), nil, attribute.String("marchproxy.live", l.State))
	}
	return &l
}

func statusOf(status int, l *api.Live) int {
	if l != nil && !l.Live {
		return http.StatusAccepted
	}
	if status == 0 {
		return http.StatusOK
	}
	return status
}
