package web

import (
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

func (a *API) listUsers(c echo.Context) error {
	rows, err := a.Store.Users(c.Request().Context())
	if err != nil {
		return err
	}
	out := api.UserList{Items: []api.User{}}
	for _, u := range rows {
		out.Items = append(out.Items, userOf(u))
	}
	return c.JSON(http.StatusOK, out)
}

func userOf(u store.UserRow) api.User {
	out := api.User{
		ID: u.ID, Name: u.Name, Role: u.Role, Bounds: boundsOf(u.Bounds), Disabled: u.Disabled,
		CreatedAt: resource.Time(u.CreatedAt), ChangedAt: resource.Time(u.ChangedAt), Issuer: u.Issuer,
		Sessions: int32(u.Sessions), Tokens: int32(u.Tokens),
	}
	if !u.SignedInAt.IsZero() {
		out.SignedInAt = resource.Time(u.SignedInAt)
	}
	return out
}

func (a *API) createUser(c echo.Context) error {
	var doc api.User
	if err := read(c, &doc); err != nil {
		return err
	}
	u := store.UserRow{Identity: auth.Identity{Name: doc.Name, Role: doc.Role}, Disabled: doc.Disabled}
	if doc.Bounds != nil {
		u.Bounds = auth.Bounds(*doc.Bounds)
	}
	v := auth.CheckScope(u.Role, u.Bounds)
	if msg := auth.CheckUserName(u.Name); msg != "" {
		v = append(v, resource.Violation{Path: "$.name", Message: msg, Rule: "name"})
	}
	if msg := auth.CheckNewPassword(doc.Password, u.Name); msg != "" {
		v = append(v, resource.Violation{Path: "$.password", Message: msg, Rule: "password"})
	}
	if len(v) > 0 {
		return unacceptable(v)
	}
	hash, err := auth.HashPassword(c.Request().Context(), doc.Password)
	if err != nil {
		return fmt.Errorf("hash a password: %w", err)
	}
	u.Password = hash
	if err := a.Store.CreateUser(c.Request().Context(), &u, by(c)); err != nil {
		return err
	}
	return c.JSON(http.StatusCreated, userOf(u))
}

func (a *API) updateUser(c echo.Context) error {
	var doc api.UserPatch
	if err := read(c, &doc); err != nil {
		return err
	}
	name, hash := c.Param("user"), ""
	if auth.CheckUserName(name) != "" { // it may be a secret, which is not to be repeated
		return missing(store.ErrNotFound, "such user; GET /v1/users lists those that there are")
	}
	if doc.Password != nil {
		if msg := auth.CheckNewPassword(*doc.Password, name); msg != "" {
			return unacceptable(resource.Violations{
				{Path: "$.password", Message: msg, Rule: "password"},
			})
		}
		var err error
		if hash, err = auth.HashPassword(c.Request().Context(), *doc.Password); err != nil {
			return fmt.Errorf("hash a password: %w", err)
		}
	}
	u, err := a.Store.ChangeUser(c.Request().Context(), name, func(u *store.UserRow) error {
		return patchUser(u, doc, hash)
	}, nil, nil, by(c))
	if err != nil {
		return missing(err, "user %q; GET /v1/users lists those that there are", name)
	}
	a.followers.deleted.Raise()
	return c.JSON(http.StatusOK, userOf(u))
}

// patchUser changes a user as it is asked for; hash is of the password.
func patchUser(u *store.UserRow, doc api.UserPatch, hash string) error {
	var v resource.Violations
	if u.Issuer != "" {
		for path, given := range map[string]bool{"$.role": doc.Role != nil, "$.password": doc.Password != nil} {
			if given {
				v = append(v, resource.Violation{
					Path: path, Rule: "provider",
					Message: "is for " + u.Issuer + " to say, where the user comes from; change it there, or disable the user here",
				})
			}
		}
	}
	if doc.Role != nil {
		u.Role = *doc.Role
	}
	if doc.Bounds != nil {
		u.Bounds = auth.Bounds(*doc.Bounds)
	}
	if doc.Disabled != nil {
		u.Disabled = *doc.Disabled
	}
	if hash != "" {
		u.Password = hash
	}
	if len(v) == 0 && (doc.Role != nil || doc.Bounds != nil) && u.Role != "" {
		v = auth.CheckScope(u.Role, u.Bounds)
	}
	if len(v) > 0 {
		return unacceptable(v)
	}
	return nil
}

func (a *API) deleteUser(c echo.Context) error {
	name := c.Param("user")
	if auth.CheckUserName(name) != "" {
		return missing(store.ErrNotFound, "such user; GET /v1/users lists those that there are")
	}
	u, err := a.Store.DeleteUser(c.Request().Context(), name, by(c))
	if err != nil {
		return missing(err, "user %q; GET /v1/users lists those that there are", name)
	}
	a.followers.deleted.Raise()
	u.Sessions, u.Tokens = 0, 0
	return c.JSON(http.StatusOK, userOf(u))
}

// account is the user who asks.
func (a *API) account(c echo.Context) (auth.Identity, error) {
	if who := actor(c); who.User {
		return who, nil
	}
	return auth.Identity{}, wrong(http.StatusConflict, "tokens have no account; this is for users who have signed in")
}
