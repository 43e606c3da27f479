package web

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

func (a *API) revision(c echo.Context) error {
	n, err := number(c.Param("revision"))
	if err != nil {
		return err
	}
	if n == math.MaxInt64 {
		return missing(store.ErrNotFound, "revision %d", n)
	}
	ctx := c.Request().Context()
	rows, err := a.Store.Revisions(ctx, n+1, 1)
	if err != nil {
		return err
	}
	if len(rows) == 0 || rows[0].Revision != n {
		oldest, err := a.Store.Oldest(ctx)
		if err != nil {
			return err
		}
		if 0 < n && n < oldest {
			return a.unkept(c, store.ErrGone, n)
		}
		if n <= a.Writer.Revision() && 0 < oldest && oldest < n {
			return wrong(http.StatusGone, "revision %d is not kept: it changed only what was found (%s), which changed again "+
				"in the same hour; "+
				"GET /v1/audit says who made it", n, strings.Join(config.Found(), ", "))
		}
		return missing(store.ErrNotFound, "revision %d", n)
	}
	changes, err := a.Store.Changes(ctx, n)
	if err != nil {
		return err
	}
	out := revisionOf(rows[0])
	for _, x := range changes {
		out.Changes = append(out.Changes, change(x.Before, x.After))
	}
	return c.JSON(http.StatusOK, out)
}

// unkept says of a revision that is not there whether it ever was.
func (a *API) unkept(c echo.Context, err error, revisions ...int64) error {
	oldest, failed := a.Store.Oldest(c.Request().Context())
	if failed != nil {
		return failed
	}
	newest := a.Writer.Revision()
	for _, n := range revisions {
		switch {
		case errors.Is(err, store.ErrGone) && n < oldest:
			return wrong(http.StatusGone, "revision %d is not kept any more; the oldest one that is kept is %d "+
				"(API_KEEP_REVISIONS, API_KEEP_HISTORY)", n, oldest)
		case errors.Is(err, store.ErrNotFound) && n > newest:
			return missing(err, "revision %d", n)
		}
	}
	return missing(err, "revision %d", revisions[0])
}

func (a *API) diff(c echo.Context) error {
	n, err := number(c.Param("revision"))
	if err != nil {
		return err
	}
	against := max(n-1, 0)
	if s := c.QueryParam("against"); s != "" {
		if against, err = number(s); err != nil {
			return err
		}
	}
	rows, err := a.Store.Between(c.Request().Context(), min(n, against), max(n, against))
	if err != nil {
		return a.unkept(c, err, n, against)
	}
	out := api.Diff{Revision: n, Against: against, Changes: []api.Change{}}
	for _, x := range rows {
		if n < against {
			x.Before, x.After = x.After, x.Before
		}
		if !sameContent(x.Before, x.After) {
			out.Changes = append(out.Changes, change(x.Before, x.After))
		}
	}
	return c.JSON(http.StatusOK, out)
}

// sameContent compares what people write of an object.
func sameContent(x, y *resource.Object) bool {
	return x != nil && y != nil && string(x.Spec) == string(y.Spec) && x.Owner == y.Owner && maps.Equal(x.Labels, y.Labels)
}

// rollback brings back what was changed since a revision, and so all of that revision.
func (a *API) rollback(c echo.Context) error {
	n, err := number(c.Param("revision"))
	if err != nil {
		return err
	}
	opt, err := readOptions(c)
	if err != nil {
		return err
	}
	if opt.message == "" {
		opt.message = fmt.Sprintf("rollback to revision %d", n)
	}
	opt.alone = true
	return a.answer(c, opt, nil, func(st *config.State) (writer.Plan, func(writer.Result) (any, error), error) {
		rows, err := a.Store.Between(c.Request().Context(), n, store.ToHead)
		if err != nil {
			return writer.Plan{}, nil, a.unkept(c, err, n)
		}
		plan, revived, err := a.back(st, rows)
		if err != nil {
			return writer.Plan{}, nil, err
		}
		if len(revived) > 0 && !opt.revive && !opt.dryRun {
			plan.Refused = unconfirmed(revived)
		}
		return plan, func(res writer.Result) (any, error) {
			out := a.applied(res, opt)
			out.Warnings = append(out.Warnings, reviving(revived)...)
			return out, nil
		}, nil
	})
}

// back is what makes of the state what it was, and the credentials that come back with it. What was found stays as it
// is: the addresses of the past may be somebody else's. It goes with what it adds to.
func (a *API) back(st *config.State, rows []store.ChangeRow) (p writer.Plan, revived []writer.Credential, err error) {
	p = writer.Plan{TakeOver: true, Status: http.StatusOK} // owners are what they were, as all is
	for _, x := range rows {
		o := x.Before
		if config.KindOf(cmp.Or(o, x.After).Kind).Found {
			continue
		}
		if o == nil {
			if ref := x.After.Ref(); st.Get(ref) != nil {
				p.Deletes = append(p.Deletes, ref)
				for u := range st.EachUser(ref) {
					if config.KindOf(u.Kind).Found {
						p.Deletes = append(p.Deletes, u)
					}
				}
			}
			continue
		}
		now := st.Get(o.Ref())
		if kept := config.KindOf(o.Kind).Kept; kept != nil && now != nil {
			spec, err := resource.New(o.Ref(), kept(now.Message(), o.Message()))
			if err != nil {
				return p, nil, err
			}
			spec.Owner, spec.Labels = o.Owner, o.Labels
			o = spec
		}
		d := writer.Desired{
			Ref: o.Ref(), Spec: o.Message(), Owner: &o.Owner, Labels: o.Labels, Path: "$", SpecPath: "$",
			Stored: true,
		}
		if d.Labels == nil {
			d.Labels = map[string]string{}
		}
		p.Upserts = append(p.Upserts, d)
		revived = append(revived, a.Writer.Revived(now, o)...)
	}
	return p, revived, nil
}

const ruleRevives = "rollback.revives"

// unconfirmed refuses a rollback that would bring back credentials without a word.
func unconfirmed(revived []writer.Credential) error {
	var v resource.Violations
	for _, x := range revived[:min(len(revived), maxRevived)] {
		v = append(v, resource.Violation{Path: "$", Rule: ruleRevives, Message: x.Object.String() + " would have " +
			x.What + " again"})
	}
	return violations(http.StatusConflict, fmt.Sprintf("nothing has been changed: %d credentials that were taken away "+
		"since then would come back; "+
		"revive_credentials=true (--revive-credentials) says that this is meant", len(revived)), v)
}

// maxRevived is how many are listed.
const maxRevived = 100

func reviving(revived []writer.Credential) (out []api.Warning) {
	for _, x := range revived[:min(len(revived), maxRevived)] {
		out = append(out, api.Warning{
			Kind: x.Object.Kind, Name: x.Object.Name, Path: x.Path, Rule: ruleRevives, Message: "comes back with this " +
				"rollback: " + x.What,
		})
	}
	return out
}
