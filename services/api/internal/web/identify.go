package web

import (
	"cmp"
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/services/api/internal/auth"
)

// asking in a request's context is a question whether it would be let in: nothing is done.
type asking struct{}

var errSlowed = errors.New("too many wrong tokens or passwords have come from this address or for this account, so this " +
	"one was not looked at; wait as long as Retry-After says")

// identify says who asks, unless that address has guessed too often. It is before anything is read of the body.
func (a *API) identify(c echo.Context) (auth.Identity, error) {
	ask := credentials(c.Request())
	who, err := a.admit(c, ask)
	if err == nil && ask.Session != "" {
		err = fromElsewhere(c.Request())
	}
	return who, err
}

// admit says whose a credential is, unless the address has guessed too often.
func (a *API) admit(c echo.Context, ask auth.Request) (auth.Identity, error) {
	r := c.Request()
	secret := cmp.Or(ask.Authorization, ask.Session)
	if wait, look := a.Attempts.Look(r.RemoteAddr, secret); !look {
		return auth.Identity{}, slowed(c, wait)
	}
	who, err := a.Auth.Identify(r.Context(), ask)
	switch {
	case err == nil:
		a.Attempts.Passed(secret)
		if a.Proven != nil {
			a.Proven(r.RemoteAddr)
		}
	case !errors.Is(err, auth.ErrUnavailable):
		a.Attempts.Failed(r.RemoteAddr, secret, "api")
		if ask.Session != "" {
			c.SetCookie(sessionCookie("", -time.Second)) // the browser need not send it again
		}
	}
	return who, err
}

// refused is the answer to whom [API.admit] does not let in.
func (a *API) refused(c echo.Context, err error) error {
	switch {
	case errors.Is(err, errSlowed):
		return wrong(http.StatusTooManyRequests, "%s", err.Error())
	case errors.Is(err, errElsewhere):
		return wrong(http.StatusForbidden, "%s", err.Error())
	case errors.Is(err, errBusy):
		return wrong(http.StatusServiceUnavailable, "%s", err.Error())
	case errors.Is(err, errPassword):
		return wrong(http.StatusUnauthorized, "%s", err.Error())
	case errors.Is(err, auth.ErrUnavailable):
		a.about(c).Error("token not checked", zap.Error(err))
		return wrong(http.StatusServiceUnavailable, "%s", auth.ErrUnavailable.Error())
	}
	c.Response().Header().Set("WWW-Authenticate", `Bearer realm="marchproxy"`)
	return wrong(http.StatusUnauthorized, "%s", err.Error())
}
