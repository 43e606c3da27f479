package web

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

func (a *API) listTokens(c echo.Context) error {
	rows, err := a.Store.Tokens(c.Request().Context())
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
	return api.Token{Name: t.Name, Role: t.Role, CreatedAt: resource.Time(t.CreatedAt)}
}

func (a *API) createToken(c echo.Context) error {
	raw, err := body(c, maxObject)
	if err != nil {
		return err
	}
	var doc api.Token
	if err := decode(raw, &doc); err != nil {
		return err
	}
	var v resource.Violations
	if msg := resource.CheckName(doc.Name); msg != "" {
		v = append(v, resource.Violation{Path: "$.name", Message: msg, Rule: "name"})
	}
	if doc.Role != auth.Viewer && doc.Role != auth.Editor && doc.Role != auth.Admin {
		v = append(v, resource.Violation{Path: "$.role", Message: "must be viewer, editor or admin", Rule: "role"})
	}
	if doc.Token != "" {
		v = append(v, resource.Violation{Path: "$.token", Message: "cannot be chosen; leave it out, and the answer has it", Rule: "token"})
	}
	if len(v) > 0 {
		return violations(http.StatusUnprocessableEntity, "nothing has been changed", v)
	}
	secret, sum := auth.NewSecret()
	row := store.TokenRow{Name: doc.Name, Role: doc.Role, CreatedAt: time.Now()}
	actor, _ := c.Get(keyActor).(string)
	if err := a.Store.CreateToken(c.Request().Context(), row, sum, actor, requestID(c)); err != nil {
		return err
	}
	out := tokenOf(row)
	out.Token = secret
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusCreated, out)
}

func (a *API) deleteToken(c echo.Context) error {
	name := c.Param("name")
	if resource.CheckName(name) != "" {
		return missing(store.ErrNotFound, "token %q", name)
	}
	actor, _ := c.Get(keyActor).(string)
	row, err := a.Store.DeleteToken(c.Request().Context(), name, actor, requestID(c))
	if err != nil {
		return missing(err, "token %q", name)
	}
	return c.JSON(http.StatusOK, tokenOf(row))
}
