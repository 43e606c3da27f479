package web

import (
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

func (a *API) listTokens(c echo.Context) error {
	return a.tokenList(c, "")
}

// tokenList answers with the tokens that are nobody's, or with a user's own, named by his id.
func (a *API) tokenList(c echo.Context, userID string) error {
	rows, err := a.Store.Tokens(c.Request().Context(), userID)
	if err != nil {
		return err
	}
	out := api.TokenList{Items: []api.Token{}}
	for _, t := range rows {
		out.Items = append(out.Items, tokenOf(t))
	}
	return c.JSON(http.StatusOK, out)
}

func tokenOf(t store.TokenRow) api.Token {
	name := t.Name
	if t.Of != nil {
		name = strings.TrimPrefix(name, t.Of.Name+"/")
	}
	out := api.Token{
		ID: t.ID, Name: name, Role: t.Role, Bounds: boundsOf(t.Bounds), CreatedAt: resource.Time(t.CreatedAt),
	}
	if !t.ExpiresAt.IsZero() {
		out.ExpiresAt = resource.Time(t.ExpiresAt)
	}
	if !t.LastUsedAt.IsZero() {
		out.LastUsedAt = resource.Time(t.LastUsedAt)
	}
	return out
}

// boundsOf is how the API shows bounds; nil for none.
func boundsOf(b auth.Bounds) *api.TokenBounds {
	if b.Empty() {
		return nil
	}
	out := api.TokenBounds(b)
	return &out
}

func (a *API) createToken(c echo.Context) error {
	var doc api.Token
	if err := read(c, &doc); err != nil {
		return err
	}
	row, v := newToken(doc, time.Now())
	if len(v) > 0 {
		return unacceptable(v)
	}
	return a.storeToken(c, row)
}

// storeToken stores a token, and answers with its secret.
func (a *API) storeToken(c echo.Context, row store.TokenRow) error {
	secret, sum := auth.NewSecret()
	if err := a.Store.CreateToken(c.Request().Context(), &row, sum, by(c)); err != nil {
		return err
	}
	out := tokenOf(row)
	out.Token = secret
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusCreated, out)
}

// by is who changes tokens and users by a request.
func by(c echo.Context) store.By { return store.By{Who: actor(c), RequestID: requestID(c)} }

// newToken reads what is asked for.
func newToken(doc api.Token, now time.Time) (row store.TokenRow, v resource.Violations) {
	wrong := func(path, message, rule string) {
		v = append(v, resource.Violation{Path: path, Message: message, Rule: rule})
	}
	row.Name, row.Role, row.CreatedAt = doc.Name, doc.Role, now
	switch msg := resource.CheckName(doc.Name); {
	case msg != "":
		wrong("$.name", msg, "name")
	case auth.Reserved(doc.Name):
		wrong("$.name", "is the name of an actor of the system's own; choose another one", "name.reserved")
	}
	if doc.Token != "" {
		wrong("$.token", "cannot be chosen; leave it out, and the answer has it", "token")
	}
	if doc.ExpiresAt != "" {
		at, err := time.Parse(time.RFC3339, doc.ExpiresAt)
		switch {
		case err != nil || at.Year() > 9999:
			wrong("$.expires_at", "must be a time as RFC 3339 writes it, such as "+
				now.AddDate(0, 3, 0).UTC().Format(time.RFC3339), "expires_at")
		case !at.After(now):
			wrong("$.expires_at", "is over already; give a time to come, or leave it out for a token that does not end",
				"expires_at")
		}
		row.ExpiresAt = at
	}
	if doc.Bounds != nil {
		row.Bounds = auth.Bounds(*doc.Bounds)
	}
	return row, append(v, auth.CheckScope(row.Role, row.Bounds)...)
}

func (a *API) deleteToken(c echo.Context) error {
	name := c.Param("name")
	if resource.CheckName(name) != "" { // it may be the token itself, which is not to be repeated
		return missing(store.ErrNotFound, "such token: the path has its name, as GET /v1/tokens lists it, and not its secret")
	}
	row, err := a.Store.DeleteToken(c.Request().Context(), name, by(c))
	if err != nil {
		return missing(err, "token %q", name)
	}
	a.followers.deleted.Raise()
	return c.JSON(http.StatusOK, tokenOf(row))
}
