package web

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/guard"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// cookieName has the prefix by which browsers take the cookie from this host alone, over TLS or from their own machine.
const cookieName = "__Host-marchproxy"

// sessionCookie holds a session's secret where scripts do not see it, and is sent by this site's own pages alone. A
// browser keeps it over TLS and from its own machine: what others could read on the way it does not send. A time
// below 0 has it forget the cookie.
func sessionCookie(secret string, lasts time.Duration) *http.Cookie {
	return &http.Cookie{
		Name: cookieName, Value: secret, Path: "/", MaxAge: int(lasts.Seconds()), Secure: true, HttpOnly: true,
		SameSite: http.SameSiteStrictMode,
	}
}

// credentials are what a request shows of who sends it: a token, or else the cookie of a session.
func credentials(r *http.Request) auth.Request {
	ask := auth.Request{Authorization: r.Header.Get("Authorization")}
	if c, err := r.Cookie(cookieName); err == nil && ask.Authorization == "" {
		ask.Session = c.Value
	}
	return ask
}

var (
	errElsewhere = errors.New("the request comes from the page of another site, which may not use your session")
	sameOrigin   = http.NewCrossOriginProtection()
)

// fromElsewhere refuses what another site's page makes a browser send that is signed in here. SameSite alone does not
// keep out pages of another port of this host.
func fromElsewhere(r *http.Request) error {
	if sameOrigin.Check(r) != nil {
		return errElsewhere
	}
	return nil
}

// signIn exchanges a token for a session, a new one each time: one that somebody else has put into the browser before
// is of no use to them.
func (a *API) signIn(c echo.Context) error {
	if err := fromElsewhere(c.Request()); err != nil {
		return a.refused(c, err)
	}
	var doc api.SignIn
	if err := read(c, &doc); err != nil {
		return err
	}
	who, err := a.admit(c, auth.Request{Authorization: "Bearer " + doc.Token})
	if err != nil {
		a.metrics.signIns.WithLabelValues("token", failed(err)).Inc()
		return a.refused(c, err)
	}
	return a.begin(c, who, "token", false)
}

// begin begins a session of who has shown who he is, by a token, a password or a provider, and answers with it.
func (a *API) begin(c echo.Context, who auth.Identity, how string, password bool) error {
	if err := a.beginSession(c, who, how); err != nil {
		return err
	}
	out := sessionOf(who)
	out.Password = password
	return c.JSON(http.StatusCreated, out)
}

// beginSession gives the browser a session in place of the one that it has.
func (a *API) beginSession(c echo.Context, who auth.Identity, how string) error {
	r := c.Request()
	var old []byte
	if s := credentials(r).Session; s != "" {
		old = auth.Sum(s)
	}
	secret, sum := auth.NewSecret()
	row := store.SessionRow{Address: guard.Source(r.RemoteAddr).String(), Agent: agentOf(r)}
	if err := a.Store.CreateSession(r.Context(), sum, old, who, row); err != nil {
		return err
	}
	a.metrics.signIns.WithLabelValues(how, "ok").Inc()
	a.about(c).Info("signed in", zap.Stringer("who", who), zap.String("how", how), zap.String("address", r.RemoteAddr))
	c.SetCookie(sessionCookie(secret, auth.SessionLasts))
	return nil
}

// agentOf is what a browser calls itself, as far as it is of use to who looks at the list of sessions.
func agentOf(r *http.Request) string {
	s := strings.ToValidUTF8(strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, r.UserAgent()), "")
	if runes := []rune(s); len(runes) > 200 {
		s = string(runes[:200])
	}
	return s
}

func sessionOf(who auth.Identity) api.Session {
	out := api.Session{Name: who.Name, Role: who.Role, User: who.User, Bounds: boundsOf(who.Bounds)}
	if who.Of != nil {
		out.Role = auth.Least(out.Role, who.Of.Role)
	}
	return out
}

func (a *API) session(c echo.Context) error {
	who := actor(c)
	out := sessionOf(who)
	if who.User {
		u, err := a.Store.User(c.Request().Context(), who.Name)
		if err != nil {
			return missing(err, "user %q", who.Name)
		}
		out.Password = u.Password != ""
	}
	return c.JSON(http.StatusOK, out)
}

// signOut ends the session that the request comes with, if it comes with one; its streams of events end as well.
func (a *API) signOut(c echo.Context) error {
	if s := credentials(c.Request()).Session; s != "" {
		if err := a.Store.DeleteSession(c.Request().Context(), auth.Sum(s)); err != nil {
			return err
		}
		a.followers.deleted.Raise()
	}
	c.SetCookie(sessionCookie("", -time.Second))
	return c.NoContent(http.StatusNoContent)
}
