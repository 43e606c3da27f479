package web

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/guard"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

var (
	// errPassword says the same whatever is wrong: who guesses is not told which names there are.
	errPassword = errors.New("the name or the password is wrong, or the user is disabled")
	errBusy     = errors.New("too many passwords are being looked at; try again")
)

// passwordWait is how long an attempt waits for those that are being looked at.
const passwordWait = 5 * time.Second

// signInPassword begins a session of a user.
func (a *API) signInPassword(c echo.Context) error {
	if err := fromElsewhere(c.Request()); err != nil {
		return a.refused(c, err)
	}
	var doc api.PasswordSignIn
	if err := read(c, &doc); err != nil {
		return err
	}
	u, err := a.prove(c, doc.Name, doc.Password)
	if err != nil {
		if refused(err) {
			a.metrics.signIns.WithLabelValues("password", failed(err)).Inc()
			return a.refused(c, err)
		}
		return err
	}
	return a.begin(c, u.Identity, "password", true)
}

// refused says whether [API.prove] has refused somebody, and not failed itself.
func refused(err error) bool {
	return errors.Is(err, errPassword) || errors.Is(err, errSlowed) || errors.Is(err, errBusy)
}

// failed is how an attempt to sign in that was refused is counted.
func failed(err error) string {
	if errors.Is(err, errSlowed) {
		return "slowed"
	}
	return "wrong"
}

// prove says which user a name and a password are of. Attempts are counted before they are looked at, by account and by
// address, in the database, so that all apis count together; and each takes the same time, whether there is such a user
// or not.
func (a *API) prove(c echo.Context, name, password string) (u store.UserRow, err error) {
	r := c.Request()
	if wait, look := a.Attempts.Look(r.RemoteAddr, "password"); !look {
		return u, slowed(c, wait)
	}
	address := guard.Source(r.RemoteAddr).String()
	tallies, err := a.Store.Tallies(r.Context(), name, address)
	if err != nil {
		return u, err
	}
	wait, slowing, err := a.Store.Attempt(r.Context(), tallies)
	if err != nil {
		return u, err
	}
	if wait > 0 {
		return u, slowed(c, wait)
	}
	known := false
	if auth.CheckUserName(name) == "" { // what cannot be a name is nobody's, and not for the database to read
		u, err = a.Store.User(r.Context(), name)
		if known = err == nil; err != nil && !errors.Is(err, store.ErrNotFound) {
			return u, err
		}
	}
	limit, cancel := context.WithTimeout(r.Context(), passwordWait)
	defer cancel()
	fits, err := auth.PasswordFits(limit, password, u.Password)
	switch {
	case limit.Err() != nil:
		return u, errBusy
	case err != nil:
		return u, fmt.Errorf("look at a password: %w", err)
	case fits && !u.Disabled:
		if a.Proven != nil {
			a.Proven(r.RemoteAddr)
		}
		return u, a.Store.Passed(r.Context(), tallies, name, address)
	}
	a.Attempts.Failed(r.RemoteAddr, "password", "password")
	if slowing {
		a.about(c).Warn("sign-ins are slowed down after wrong passwords", zap.String("address", address))
		if known {
			if err := a.Store.AuditRefused(r.Context(), u, "sign-ins are slowed down after wrong passwords, the last from "+
				address, requestID(c)); err != nil {
				return u, err
			}
		}
	}
	return u, errPassword
}

// slowed says when to try again.
func slowed(c echo.Context, wait time.Duration) error {
	c.Response().Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(max(wait, time.Second).Seconds()))))
	return errSlowed
}

// signInWays says how one can sign in.
func (a *API) signInWays(c echo.Context) error {
	some, err := a.Store.Passwords(c.Request().Context())
	if err != nil {
		return err
	}
	out := api.SignInWays{Password: some}
	if a.Provider != nil {
		out.Provider = a.Provider.Name
	}
	return c.JSON(http.StatusOK, out)
}
