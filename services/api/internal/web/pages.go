package web

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/services/webui"
)

// addPages adds the web UI, and leads to it who asks for the server by its name alone.
func addPages(e *echo.Echo) error {
	pages, err := webui.Handler()
	if err != nil {
		return err
	}
	h := echo.WrapHandler(pages)
	to := func(c echo.Context) error { return c.Redirect(http.StatusFound, webui.Path) }
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		e.Add(method, "/", to)
		e.Add(method, "/ui", to)
		e.Add(method, webui.Path+"*", h)
	}
	return nil
}
