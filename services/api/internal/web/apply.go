package web

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/rpc"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

type applyDocument struct {
	Owner      *string    `json:"owner"`
	Prune      bool       `json:"prune"`
	TakeOver   bool       `json:"take_over"`
	AllowEmpty bool       `json:"allow_empty"`
	DryRun     bool       `json:"dry_run"`
	Message    string     `json:"message"`
	Resources  []document `json:"resources"`
}

// name of the owner that the document speaks for, "" for none.
func (d *applyDocument) name() string {
	if d.Owner == nil {
		return ""
	}
	return *d.Owner
}

func (a *API) apply(c echo.Context) error {
	raw, err := body(c, maxApply)
	if err != nil {
		return err
	}
	opt, err := readOptions(c)
	if err != nil {
		return err
	}
	var doc applyDocument
	if err := decode(raw, &doc); err != nil {
		return err
	}
	doc.TakeOver, doc.AllowEmpty = doc.TakeOver || opt.takeOver, doc.AllowEmpty || opt.allowEmpty
	want, err := doc.desired()
	if err != nil {
		return err
	}
	opt.dryRun = opt.dryRun || doc.DryRun
	if doc.Message != "" {
		opt.message = doc.Message
	}
	return a.applyPlan(c, opt, raw, func(st *config.State) (writer.Plan, error) { return doc.plan(st, want), nil })
}

func (a *API) applyPlan(c echo.Context, opt options, raw []byte, plan func(*config.State) (writer.Plan, error)) error {
	return a.answer(c, opt, raw, func(st *config.State) (writer.Plan, func(writer.Result) (any, error), error) {
		p, err := plan(st)
		return p, func(res writer.Result) (any, error) { return a.applied(res, opt), nil }, err
	})
}

func (d *applyDocument) desired() ([]writer.Desired, error) {
	var all resource.Violations
	out := make([]writer.Desired, 0, len(d.Resources))
	seen := make(map[resource.Ref]int, len(d.Resources))
	for i, r := range d.Resources {
		path := fmt.Sprintf("$.resources[%d]", i)
		add := func(field, message, rule string) {
			all = append(all, resource.Violation{Path: path + field, Message: message, Rule: rule})
		}
		if len(all) > 100 {
			break
		}
		if r.Kind == nil || r.Name == nil {
			add("", "must have kind, name and spec", "required")
			continue
		}
		k, ok := resource.KindByName(*r.Kind)
		if !ok {
			add(".kind", "must be one of "+resource.KindNames(), "kind")
			continue
		}
		if msg := resource.CheckName(*r.Name); msg != "" {
			add(".name", msg, "name")
			continue
		}
		ref := resource.Ref{Kind: *r.Kind, Name: *r.Name}
		if j, twice := seen[ref]; twice {
			add("", fmt.Sprintf("is the same object as resource %d", j), "duplicate")
		}
		seen[ref] = i
		owner := d.Owner
		if owner == nil {
			owner = r.Owner
		}
		x, v := desired(k, ref, r.Spec, owner, r.Labels, path)
		all = append(all, v...)
		out = append(out, x)
	}
	all = append(all, d.check()...)
	if utf8.RuneCountInString(d.Message) > 1024 || strings.ContainsRune(d.Message, 0) {
		all = append(all, resource.Violation{
			Path: "$.message", Message: "is longer than 1024 characters, or has a zero byte",
			Rule: "message",
		})
	}
	if len(all) > 0 {
		return nil, unacceptable(all)
	}
	return out, nil
}

// check finds what is wrong with what stands around the resources. A list that is absent may be a mistake in
// making it, and an empty one as well where prune would delete everything.
func (d *applyDocument) check() resource.Violations {
	all := resource.CheckOwner(d.name())
	add := func(field, message, rule string) {
		all = append(all, resource.Violation{Path: "$." + field, Message: message, Rule: rule})
	}
	switch {
	case d.Resources == nil:
		add("resources", "is missing; give a list", "required")
	case len(d.Resources) == 0 && d.Prune && !d.AllowEmpty:
		add("resources", "is empty, and prune would delete all that the owner has; allow_empty=true says that this is meant",
			"empty")
	}
	if d.Prune && d.name() == "" {
		add("owner", "is needed with prune: only what an owner has is deleted", "owner")
	}
	return all
}

// plan adds what prune deletes.
func (d *applyDocument) plan(st *config.State, want []writer.Desired) writer.Plan {
	p := writer.Plan{Upserts: want, TakeOver: d.TakeOver, Status: http.StatusOK}
	if !d.Prune {
		return p
	}
	named := make(map[resource.Ref]bool, len(want))
	for _, w := range want {
		named[w.Ref] = true
	}
	for o := range st.All {
		if o.Owner == d.name() && !named[o.Ref()] {
			p.Deletes = append(p.Deletes, o.Ref())
		}
	}
	slices.SortFunc(p.Deletes, resource.Ref.Compare)
	return p
}

func (a *API) applied(res writer.Result, opt options) api.ApplyResult {
	out := api.ApplyResult{
		Revision:  res.Revision,
		Epoch:     res.Epoch,
		DryRun:    opt.dryRun,
		Unchanged: int32(res.Unchanged),
		Changes:   []api.Change{},
		Warnings:  append(a.warnings(res.Changes, res.Warnings), a.drains(res)...),
	}
	for _, x := range res.Changes {
		out.Changes = append(out.Changes, change(x.Before, x.After))
	}
	slices.SortFunc(out.Changes, func(x, y api.Change) int {
		return resource.Ref{Kind: x.Kind, Name: x.Name}.Compare(resource.Ref{Kind: y.Kind, Name: y.Name})
	})
	return out
}

// change shows an object before and after, without its secrets.
func change(before, after *resource.Object) api.Change {
	out := api.Change{Action: config.Change{Before: before, After: after}.Action()}
	show := func(o *resource.Object) json.RawMessage {
		out.Kind, out.Name = o.Kind, o.Name
		p, err := writer.Public(o)
		if err != nil {
			return nil
		}
		return p.Spec
	}
	if before != nil {
		out.Before, out.OwnerBefore, out.LabelsBefore = show(before), before.Owner, before.Labels
	}
	if after != nil {
		out.After, out.OwnerAfter, out.LabelsAfter = show(after), after.Owner, after.Labels
	}
	return out
}

func (a *API) revisions(c echo.Context) error {
	limit, err := pageSize(c)
	if err != nil {
		return err
	}
	below := int64(math.MaxInt64)
	cur, err := cursor(c)
	if err != nil {
		return err
	}
	if cur != "" {
		if below, err = number(cur); err != nil {
			return errCursor
		}
	}
	rows, err := a.Store.Revisions(c.Request().Context(), below, limit+1)
	if err != nil {
		return err
	}
	out := api.RevisionList{Items: []api.Revision{}}
	if len(rows) > limit {
		rows = rows[:limit]
		out.NextCursor = base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(rows[limit-1].Revision, 10)))
	}
	for _, r := range rows {
		out.Items = append(out.Items, revisionOf(r))
	}
	return c.JSON(http.StatusOK, out)
}

func revisionOf(r store.RevisionRow) api.Revision {
	return api.Revision{
		Revision: r.Revision, At: resource.Time(r.At), Actor: r.Actor, Message: r.Message,
		RequestID: r.RequestID, ChangeCount: r.ChangeCount,
	}
}

// RPC answers the xDS server's façade with the same handler as POST /v1/apply.
func RPC(h http.Handler) func(context.Context, rpc.Request) rpc.Reply {
	return func(ctx context.Context, r rpc.Request) rpc.Reply {
		url := "/v1/apply"
		if r.Wait > 0 {
			url += "?wait=live&timeout=" + r.Wait.String()
		}
		if r.Ask {
			ctx = context.WithValue(ctx, asking{}, true)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(r.Body))
		if err != nil { // of a URL that is made above
			panic(err)
		}
		req.RemoteAddr = r.Remote
		req.Header.Set("Content-Type", "application/json")
		if r.Authorization != "" {
			req.Header.Set("Authorization", r.Authorization)
		}
		if r.Traceparent != "" {
			req.Header.Set("Traceparent", r.Traceparent)
		}
		answer := &recorder{header: http.Header{}, status: http.StatusOK}
		h.ServeHTTP(answer, req)
		return rpc.Reply{Status: answer.status, Body: answer.body.Bytes()}
	}
}

// recorder is an answer that goes to NATS.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements [http.ResponseWriter].
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements [http.ResponseWriter].
func (r *recorder) WriteHeader(status int) { r.status = status }

// Write implements [http.ResponseWriter].
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
