package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

// named finds the kind and name that a path names.
func named(c echo.Context) (resource.Kind, resource.Ref, error) {
	k, ok := resource.KindByPath(c.Param("kind"))
	if !ok {
		return k, resource.Ref{}, wrong(http.StatusNotFound, "there is no %s here; kinds: %s", c.Param("kind"), kindPaths())
	}
	if name := c.Param("name"); name != "" {
		if msg := resource.CheckName(name); msg != "" {
			return k, resource.Ref{}, violations(http.StatusUnprocessableEntity, "the name in the path "+msg, resource.Violations{{Path: "$.name", Message: msg, Rule: "name"}})
		}
	}
	return k, resource.Ref{Kind: k.Name, Name: c.Param("name")}, nil
}

func kindPaths() string {
	paths := make([]string, len(resource.Kinds))
	for i, k := range resource.Kinds {
		paths[i] = k.Path
	}
	return strings.Join(paths, ", ")
}

func etag(revision int64) string { return strconv.Quote(strconv.FormatInt(revision, 10)) }

func (a *API) get(c echo.Context) error {
	_, ref, err := named(c)
	if err != nil {
		return err
	}
	o, err := a.Store.Object(c.Request().Context(), ref)
	if err != nil {
		return missing(err, "%s %q", ref.Kind, ref.Name)
	}
	c.Response().Header().Set("ETag", etag(o.Revision))
	if matches(c.Request().Header.Get("If-None-Match"), etag(o.Revision)) {
		return c.NoContent(http.StatusNotModified)
	}
	out, err := a.object(o)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, out)
}

// matches compares a header's tags with one weakly, as If-None-Match does.
func matches(header, tag string) bool {
	for t := range strings.SplitSeq(header, ",") {
		if t = strings.TrimSpace(t); t == "*" || strings.TrimPrefix(t, "W/") == tag {
			return true
		}
	}
	return false
}

// matchesStrongly is for If-Match, where a weak tag matches nothing (RFC 9110, 13.1.1).
func matchesStrongly(header, tag string) bool {
	for t := range strings.SplitSeq(header, ",") {
		if t = strings.TrimSpace(t); t == "*" || t == tag {
			return true
		}
	}
	return false
}

// missing says what is not there, where that is all there is to say.
func missing(err error, what string, args ...any) error {
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return wrong(http.StatusNotFound, "there is no "+what, args...)
}

func missingObject(ref resource.Ref) error {
	return missing(store.ErrNotFound, "%s %q", ref.Kind, ref.Name)
}

// object is an object as readers see it, with what the Envoys make of it.
func (a *API) object(o *resource.Object) (api.Object, error) {
	shown, err := writer.Public(o)
	if err != nil {
		return api.Object{}, err
	}
	out := envelope(shown)
	l := a.Board.Now(a.target(o.Revision, []config.Change{{After: o}}))
	out.Status = &api.ObjectStatus{State: l.State, Reason: l.Reason}
	return out, nil
}

func envelope(o *resource.Object) api.Object {
	return api.Object{
		Kind: o.Kind, Name: o.Name, Spec: o.Spec, Owner: o.Owner, Labels: o.Labels, UID: o.UID,
		Revision: o.Revision, CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt,
	}
}

// target is what has to be so for changes to be live.
func (a *API) target(revision int64, changes []config.Change) live.Target {
	t := live.Target{Epoch: a.Writer.Epoch(), Revision: revision, Objects: map[resource.Ref]bool{}}
	known, gateways := a.Writer.Gateways(), map[string]bool{}
	for _, x := range changes {
		t.Objects[x.Ref()] = true
		switch x.Ref().Kind {
		case resource.KindRoute:
			for _, o := range []*resource.Object{x.Before, x.After} {
				if o != nil {
					for _, g := range config.Gateways(o.Message().(*configv1.Route)) {
						gateways[g] = true
					}
				}
			}
		case resource.KindGateway:
			gateways[x.Ref().Name] = true
		case resource.KindRateLimit:
			t.Limits = append(t.Limits, limitOf(x))
			for _, g := range known {
				gateways[g] = gateways[g] || limitsRequests(x, g)
			}
		default:
			for _, g := range known {
				gateways[g] = true
			}
		}
	}
	for _, g := range known {
		if gateways[g] {
			t.Gateways = append(t.Gateways, g)
		}
	}
	return t
}

func (a *API) list(c echo.Context) error {
	k, _, err := named(c)
	if err != nil {
		return err
	}
	limit, err := pageSize(c)
	if err != nil {
		return err
	}
	f := store.Filter{Kind: k.Name, Owner: c.QueryParam("owner"), Prefix: c.QueryParam("q"), Host: c.QueryParam("host"), Service: c.QueryParam("service"), Limit: limit + 1}
	if k.Name != resource.KindRoute && (f.Host != "" || f.Service != "") {
		return wrong(http.StatusBadRequest, "host and service filter routes only")
	}
	if l := c.QueryParam("label"); l != "" {
		var ok bool
		if f.LabelName, f.LabelValue, ok = strings.Cut(l, "="); !ok {
			return wrong(http.StatusBadRequest, "label must be name=value")
		}
	}
	if f.After, err = cursor(c); err != nil {
		return err
	}
	objects, revision, err := a.Store.Objects(c.Request().Context(), f)
	if err != nil {
		return err
	}
	out := api.ObjectList{Items: []api.Object{}, Revision: revision}
	if len(objects) > limit {
		objects = objects[:limit]
		out.NextCursor = base64.RawURLEncoding.EncodeToString([]byte(objects[limit-1].Name))
	}
	for _, o := range objects {
		x, err := a.object(o)
		if err != nil {
			return err
		}
		out.Items = append(out.Items, x)
	}
	return c.JSON(http.StatusOK, out)
}

func pageSize(c echo.Context) (int, error) {
	s := c.QueryParam("limit")
	if s == "" {
		return 100, nil
	}
	return strconv.Atoi(s) // checked already
}

func cursor(c echo.Context) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(c.QueryParam("cursor"))
	if err != nil || !utf8.Valid(b) || slices.Contains(b, 0) {
		return "", errCursor
	}
	return string(b), nil
}

// document is the body of a PUT.
type document struct {
	Kind   *string           `json:"kind"`
	Name   *string           `json:"name"`
	Spec   json.RawMessage   `json:"spec"`
	Owner  string            `json:"owner"`
	Labels map[string]string `json:"labels"`
	// Set by the server on reads; taken and ignored, so that what was read can be written.
	UID       string            `json:"uid"`
	Revision  int64             `json:"revision"`
	CreatedAt string            `json:"created_at"`
	UpdatedAt string            `json:"updated_at"`
	Status    *api.ObjectStatus `json:"status"`
	Live      *api.Live         `json:"live"`
}

// decode reads one JSON document strictly.
func decode(raw []byte, into any) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return violations(http.StatusBadRequest, "the body is not JSON that can be taken", resource.Violations{{Path: "$", Message: "is empty; send a JSON object", Rule: "json.syntax"}})
	}
	if v := resource.CheckJSON(raw); len(v) > 0 {
		return violations(http.StatusBadRequest, "the body is not JSON that can be taken", v)
	}
	if err := members(raw); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return violations(http.StatusBadRequest, "the body does not have the expected form", resource.Violations{{Path: "$", Message: strings.TrimPrefix(err.Error(), "json: "), Rule: "json.type"}})
	}
	return nil
}

// members refuses a document that is no object, and members that are null where they could be left out;
// specs have rules of their own.
func members(raw []byte) error {
	const form = "the body does not have the expected form"
	if trimmed := bytes.TrimSpace(raw); len(trimmed) == 0 || trimmed[0] != '{' {
		return violations(http.StatusBadRequest, form, resource.Violations{{Path: "$", Message: "must be an object", Rule: "json.type"}})
	}
	if !bytes.Contains(raw, []byte("null")) {
		return nil
	}
	var top map[string]any
	if err := json.Unmarshal(raw, &top); err != nil {
		return violations(http.StatusBadRequest, form, resource.Violations{{Path: "$", Message: "must be an object", Rule: "json.type"}})
	}
	if v := nulls("$", top, nil); len(v) > 0 {
		return violations(http.StatusBadRequest, form, v)
	}
	return nil
}

func nulls(path string, value any, found resource.Violations) resource.Violations {
	switch x := value.(type) {
	case nil:
		return append(found, resource.Violation{Path: path, Message: "is null; leave it out", Rule: "json.type"})
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(x)) {
			if name != "spec" {
				found = nulls(path+"."+name, x[name], found)
			}
		}
	case []any:
		for i, item := range x {
			found = nulls(fmt.Sprintf("%s[%d]", path, i), item, found)
		}
	}
	return found
}

// desired decodes and checks an object's own rules.
func desired(k resource.Kind, ref resource.Ref, spec json.RawMessage, owner string, labels map[string]string, path string) (writer.Desired, resource.Violations) {
	d := writer.Desired{Ref: ref, Owner: owner, Labels: labels, Path: path, SpecPath: path + ".spec"}
	if len(spec) == 0 || string(spec) == "null" {
		return d, resource.Violations{{Path: d.SpecPath, Message: "is missing", Rule: "required"}}
	}
	m, v := resource.DecodeSpec(k, spec)
	if len(v) == 0 {
		v = resource.Validate(m)
	}
	d.Spec = m
	v = v.Under(d.SpecPath)
	v = append(v, resource.CheckEnvelope(owner, labels).Under(path)...)
	return d, v
}

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
		return violations(http.StatusUnprocessableEntity, "the body speaks of another object than the path", resource.Violations{{Path: "$.name", Message: "must be " + ref.String() + ", as in the path, or absent", Rule: "name"}})
	}
	d, v := desired(k, ref, doc.Spec, doc.Owner, doc.Labels, "$")
	if len(v) > 0 {
		return violations(http.StatusUnprocessableEntity, "nothing has been changed", v)
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
		d, v := desired(k, ref, doc.Spec, doc.Owner, doc.Labels, "$")
		if len(v) > 0 {
			return nil, violations(http.StatusUnprocessableEntity, "nothing has been changed", v)
		}
		return &d, nil
	})
}

// mergePatch is RFC 7396.
func mergePatch(doc, patch []byte) ([]byte, error) {
	var d, p any
	for raw, into := range map[*any][]byte{&d: doc, &p: patch} {
		dec := json.NewDecoder(bytes.NewReader(into))
		dec.UseNumber()
		if err := dec.Decode(raw); err != nil {
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
func (a *API) write(c echo.Context, ref resource.Ref, raw []byte, want func(before *resource.Object) (*writer.Desired, error)) error {
	opt, err := readOptions(c)
	if err != nil {
		return err
	}
	var before *resource.Object
	return a.answer(c, opt, raw, func(st *config.State) (writer.Plan, func(writer.Result) (any, error), error) {
		before = st.Get(ref)
		d, err := want(before)
		if err != nil {
			return writer.Plan{}, nil, err
		}
		if err := precondition(c.Request(), before); err != nil { // after every other check (RFC 9110, 13.2.1)
			return writer.Plan{}, nil, err
		}
		show := func(res writer.Result) (any, error) { return applied(res, opt), nil }
		if d == nil {
			return writer.Plan{Deletes: []resource.Ref{ref}, Status: http.StatusOK}, show, nil
		}
		plan := writer.Plan{Upserts: []writer.Desired{*d}, Status: http.StatusOK}
		if before == nil && !opt.dryRun {
			plan.Status = http.StatusCreated
		}
		if !opt.dryRun {
			show = func(res writer.Result) (any, error) { return written(before, res) }
		}
		return plan, show, nil
	})
}

// written is an object as a write left it.
func written(before *resource.Object, res writer.Result) (any, error) {
	after := before
	if len(res.Changes) > 0 {
		after = res.Changes[0].After
	}
	shown, err := writer.Public(after)
	if err != nil {
		return nil, err
	}
	return envelope(shown), nil
}

// answer makes a write and answers with what show makes of its result, which is also what an idempotency
// key remembers.
func (a *API) answer(c echo.Context, opt options, raw []byte, plan func(*config.State) (writer.Plan, func(writer.Result) (any, error), error)) error {
	var show func(writer.Result) (any, error)
	res, err := a.Writer.Write(c.Request().Context(), a.meta(c, opt, raw), func(st *config.State) (writer.Plan, error) {
		p, s, err := plan(st)
		show = s
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
	l := a.wait(c.Request().Context(), opt, res)
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
	l := a.wait(c.Request().Context(), opt, res)
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

func precondition(r *http.Request, before *resource.Object) error {
	tag := ""
	if before != nil {
		tag = etag(before.Revision)
	}
	if h := r.Header.Get("If-Match"); h != "" && (before == nil || !matchesStrongly(h, tag)) {
		return &problem{api.Problem{Status: http.StatusPreconditionFailed, Detail: "the resource is not what If-Match expects; read it again and decide anew", CurrentETag: tag}}
	}
	if h := r.Header.Get("If-None-Match"); h != "" && before != nil && matches(h, tag) {
		return &problem{api.Problem{Status: http.StatusPreconditionFailed, Detail: "the resource exists already", CurrentETag: tag}}
	}
	return nil
}

// options are the query parameters of a write.
type options struct {
	wait    time.Duration
	dryRun  bool
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
	o.message = c.QueryParam("message")
	return o, nil
}

func (a *API) meta(c echo.Context, o options, raw []byte) writer.Meta {
	r := c.Request()
	actor, _ := c.Get(keyActor).(string)
	m := writer.Meta{Actor: actor, Message: o.message, RequestID: requestID(c), DryRun: o.dryRun}
	if t := r.Header.Get("Traceparent"); traceparent.MatchString(t) {
		m.Traceparent = t
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

func (a *API) wait(ctx context.Context, o options, res writer.Result) *api.Live {
	if o.wait == 0 || o.dryRun {
		return nil
	}
	t := a.target(res.Revision, res.Changes)
	if len(res.Changes) == 0 { // as asked already: then it is to be live
		t.Gateways = a.Writer.Gateways()
	}
	limit, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	l := a.Board.Wait(limit, t)
	return &l
}

func statusOf(status int, l *api.Live) int {
	if l != nil && !l.Live && l.State != "no_proxies" && l.State != "no_agents" {
		return http.StatusAccepted
	}
	if status == 0 {
		return http.StatusOK
	}
	return status
}
