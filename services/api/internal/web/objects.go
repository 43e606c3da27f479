package web

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

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
			return k, resource.Ref{}, violations(http.StatusUnprocessableEntity, "the name in the path "+msg,
				resource.Violations{{Path: "$.name", Message: msg, Rule: "name"}})
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
	list := []api.Object{out}
	if err := a.issuances(c.Request().Context(), list); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, list[0])
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
	a.unpublished(&l, o.Revision)
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
	t := live.Target{
		Epoch: a.Writer.Epoch(), Revision: revision, Objects: map[resource.Ref]int64{},
		Names: map[string]string{},
	}
	gateways, every := map[string]bool{}, false
	for _, x := range changes {
		t.Objects[x.Ref()] = revision
		if x.After != nil {
			t.Objects[x.Ref()] = x.After.Revision
		}
		k := config.KindOf(x.Ref().Kind)
		if k.Endpoints != nil && x.After != nil {
			for _, e := range k.Endpoints(x.After) {
				if _, err := netip.ParseAddr(e.Name); err != nil { // to be resolved
					t.Names[e.Name] = x.Ref().Name
				}
			}
		}
		if k.Nodes != nil {
			t.Limits = append(t.Limits, limitOf(k, x))
		}
		concerned, all := []string(nil), true
		if k.Concerns != nil {
			concerned, all = k.Concerns(x)
		}
		every = every || all
		for _, g := range concerned {
			gateways[g] = true
		}
	}
	for _, g := range a.Writer.Gateways() {
		if every || gateways[g] {
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
	f := store.Filter{
		Kind: k.Name, Owner: c.QueryParam("owner"), Prefix: c.QueryParam("q"), Host: c.QueryParam("host"),
		Service: c.QueryParam("service"), Limit: limit + 1,
	}
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
	if err := a.issuances(c.Request().Context(), out.Items); err != nil {
		return err
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
