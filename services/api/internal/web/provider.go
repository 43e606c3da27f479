package web

import (
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/services/api/internal/provider"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/webui"
)

// flowCookie has what the browser keeps while its user is at the provider.
const flowCookie = "__Host-marchproxy-oidc"

// flow is the cookie. It is sent when the provider leads back here, which a strict one is not.
func flow(sealed string, lasts time.Duration) *http.Cookie {
	return &http.Cookie{
		Name: flowCookie, Value: sealed, Path: "/", MaxAge: int(lasts.Seconds()), Secure: true, HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
	}
}

// addProvider adds the two addresses by which browsers sign in at a provider. They are pages, and answer with another
// one whatever happens: nobody is to be left with a document.
func (a *API) addProvider(e *echo.Echo) {
	if a.Provider == nil {
		return
	}
	e.GET("/v1/session/oidc", a.toProvider)
	e.GET(provider.CallbackPath, a.fromProvider)
}

func (a *API) toProvider(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "no-store")
	to, sealed, err := a.Provider.Begin(c.Request().Context())
	if err != nil {
		return a.notSignedIn(c, err)
	}
	c.SetCookie(flow(sealed, provider.Lasts))
	return c.Redirect(http.StatusFound, to)
}

// errDenied says that the provider has let nobody in.
var errDenied = errors.New("the provider has let nobody in")

func (a *API) fromProvider(c echo.Context) error {
	r := c.Request()
	c.Response().Header().Set("Cache-Control", "no-store")
	sealed := ""
	if kept, err := r.Cookie(flowCookie); err == nil {
		sealed = kept.Value
		c.SetCookie(flow("", -time.Second))
	}
	if wait, look := a.Attempts.Look(r.RemoteAddr, "provider"); !look {
		return a.notSignedIn(c, slowed(c, wait))
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return a.notSignedIn(c, provider.ErrState)
	}
	if query.Get("error") != "" {
		return a.notSignedIn(c, errDenied)
	}
	who, err := a.Provider.Finish(r.Context(), query, sealed, a.Store.Once)
	if err != nil {
		return a.notSignedIn(c, err)
	}
	u, err := a.Store.FromProvider(r.Context(), store.UserRow{Issuer: who.Issuer, Subject: who.Subject}, who.Name, who.Role,
		requestID(c))
	a.followers.deleted.Raise() // his role may be another one
	if err != nil {
		return a.notSignedIn(c, err)
	}
	if err := a.beginSession(c, u.Identity, "provider"); err != nil {
		return a.notSignedIn(c, err)
	}
	if a.Proven != nil {
		a.Proven(r.RemoteAddr)
	}
	return c.Redirect(http.StatusFound, webui.Path)
}

// notSignedIn leads back to the page, which says what was wrong.
func (a *API) notSignedIn(c echo.Context, err error) error {
	word, result := "failed", "wrong"
	for _, x := range []struct {
		err  error
		word string
	}{
		{provider.ErrUnavailable, "unavailable"},
		{provider.ErrState, "expired"},
		{provider.ErrToken, "invalid"},
		{store.ErrNoRole, "no-role"},
		{store.ErrDisabled, "disabled"},
		{store.ErrUserExists, "name"},
		{errDenied, "denied"},
		{errSlowed, "slowed"},
	} {
		if errors.Is(err, x.err) {
			word = x.word
		}
	}
	switch word {
	case "slowed":
		result = "slowed"
	case "expired", "invalid":
		a.Attempts.Failed(c.Request().RemoteAddr, "provider", "provider")
	}
	a.metrics.signIns.WithLabelValues("provider", result).Inc()
	a.about(c).Warn("somebody was not signed in by the provider", zap.Error(err))
	return c.Redirect(http.StatusFound, webui.Path+"?sign_in="+word)
}
