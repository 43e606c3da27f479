package web

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// ownTokenLasts is how long a user's own token lasts at the most.
const ownTokenLasts = 366 * 24 * time.Hour

// changePassword gives the user who asks another password. The present one is asked for: who finds an open browser is
// not to keep its user out.
func (a *API) changePassword(c echo.Context) error {
	who, err := a.account(c)
	if err != nil {
		return err
	}
	var doc api.PasswordChange
	if err := read(c, &doc); err != nil {
		return err
	}
	u, err := a.Store.User(c.Request().Context(), who.Name)
	if err != nil {
		return missing(err, "user %q", who.Name)
	}
	if u.Password == "" {
		return wrong(http.StatusConflict, "you sign in by %s, and have no password here", u.Issuer)
	}
	refuse := func(path, message string) error {
		return unacceptable(resource.Violations{
			{Path: path, Message: message, Rule: "password"},
		})
	}
	if msg := auth.CheckNewPassword(doc.Password, who.Name); msg != "" {
		return refuse("$.password", msg)
	}
	if _, err := a.prove(c, who.Name, doc.Current); err != nil {
		if errors.Is(err, errPassword) {
			return refuse("$.current", "is not your password")
		}
		if refused(err) {
			return a.refused(c, err)
		}
		return err
	}
	hash, err := auth.HashPassword(c.Request().Context(), doc.Password)
	if err != nil {
		return fmt.Errorf("hash a password: %w", err)
	}
	secret, sum := auth.NewSecret()
	if _, err := a.Store.ChangeUser(c.Request().Context(), who.Name, func(u *store.UserRow) error {
		u.Password = hash
		return nil
	}, auth.Sum(credentials(c.Request()).Session), sum, by(c)); err != nil {
		return missing(err, "user %q", who.Name)
	}
	a.followers.deleted.Raise()
	c.SetCookie(sessionCookie(secret, auth.SessionLasts))
	out := sessionOf(who)
	out.Password = true
	return c.JSON(http.StatusOK, out)
}

func (a *API) listSessions(c echo.Context) error {
	who, err := a.account(c)
	if err != nil {
		return err
	}
	rows, err := a.Store.Sessions(c.Request().Context(), who.ID, auth.Sum(credentials(c.Request()).Session))
	if err != nil {
		return err
	}
	out := api.BrowserSessionList{Items: []api.BrowserSession{}}
	for _, r := range rows {
		out.Items = append(out.Items, api.BrowserSession{
			ID: r.ID, CreatedAt: resource.Time(r.CreatedAt), ExpiresAt: resource.Time(r.ExpiresAt), Address: r.Address,
			Agent: r.Agent, Current: r.Asking,
		})
	}
	return c.JSON(http.StatusOK, out)
}

func (a *API) endSession(c echo.Context) error {
	who, err := a.account(c)
	if err != nil {
		return err
	}
	if err := a.Store.EndSession(c.Request().Context(), who.ID, c.Param("session")); err != nil {
		return missing(err, "such session of yours; it may be over")
	}
	a.followers.deleted.Raise()
	return c.NoContent(http.StatusNoContent)
}

func (a *API) listOwnTokens(c echo.Context) error {
	who, err := a.account(c)
	if err != nil {
		return err
	}
	return a.tokenList(c, who.ID)
}

// createOwnToken makes a token that may no more than its user. What it may is asked of both each time, so that it may no
// more when he may less.
func (a *API) createOwnToken(c echo.Context) error {
	who, err := a.account(c)
	if err != nil {
		return err
	}
	var doc api.Token
	if err := read(c, &doc); err != nil {
		return err
	}
	now := time.Now()
	row, v := newToken(doc, now)
	if auth.Least(row.Role, who.Role) != row.Role {
		v = append(v, resource.Violation{Path: "$.role", Rule: "role", Message: "is more than yours, which is " + who.Role})
	}
	switch {
	case doc.ExpiresAt == "":
		v = append(v, resource.Violation{
			Path: "$.expires_at", Rule: "expires_at", Message: "is missing; a token of your own ends, within a year",
		})
	case row.ExpiresAt.After(now.Add(ownTokenLasts)):
		v = append(v, resource.Violation{
			Path: "$.expires_at", Rule: "expires_at", Message: "is more than a year away; a token of your own ends within one",
		})
	}
	bounds, wider := row.Bounds.Narrowed(who.Bounds)
	row.Bounds, v = bounds, append(v, wider.Under("$.bounds")...)
	if len(v) > 0 {
		return unacceptable(v)
	}
	row.Name, row.Of = who.Name+"/"+row.Name, &who
	return a.storeToken(c, row)
}

func (a *API) deleteOwnToken(c echo.Context) error {
	who, err := a.account(c)
	if err != nil {
		return err
	}
	name := c.Param("name")
	if resource.CheckName(name) != "" {
		return missing(store.ErrNotFound, "such token: the path has its name, and not its secret")
	}
	row, err := a.Store.DeleteToken(c.Request().Context(), who.Name+"/"+name, by(c))
	if err != nil {
		return missing(err, "token %q of yours", name)
	}
	a.followers.deleted.Raise()
	return c.JSON(http.StatusOK, tokenOf(row))
}
