package web

import (
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/services/api/internal/auth"
)

// asking in a request's context is a question whether it would be let in: nothing is done.
type asking struct{}

var errSlowed = errors.New("too many wrong tokens have come from this address, so this one was not looked at; " +
	"wait as long as Retry-After says")

// identify says who asks, unless that address has guessed too often. It is before anything is read of the body.
func (a *API) identify(c echo.Context) (auth.Identity, error) {
	r := c.Request()
	secret := r.Header.Get("Authorization")
	if wait, look := a.Attempts.Look(r.RemoteAddr, secret); !look {
		c.Response().Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(max(wait, time.Second).Seconds()))))
		return auth.Identity{}, errSlowed
	}
	who, err := a.Auth.Identify(r.Context(), auth.Request{Authorization: secret})
	switch {
	case err == nil:
		a.Attempts.Passed(secret)
		if a.Proven != nil {
			a.Proven(r.RemoteAddr)
		}
	case !errors.Is(err, auth.ErrUnavailable):
		a.Attempts.Failed(r.RemoteAddr, secret, "api")
	}
	return who, err
}
