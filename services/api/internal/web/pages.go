package web

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/services/docsite"
	"github.com/marchproxy/marchproxy/services/webui"
)

// addPages adds the web UI and the documentation, and leads to the web UI who asks for the server by its name alone.
func (a *API) addPages(e *echo.Echo) error {
	pages, err := webui.Handler()
	if err != nil {
		return err
	}
	html, found, err := reference(a.openAPI)
	if err != nil {
		return err
	}
	docs, err := docsite.Handler(html, found)
	if err != nil {
		return err
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		e.Add(method, "/", to(webui.Path))
		for path, h := range map[string]http.Handler{webui.Path: pages, docsite.Path: docs} {
			e.Add(method, strings.TrimSuffix(path, "/"), to(path))
			e.Add(method, path+"*", echo.WrapHandler(h))
		}
	}
	return nil
}

func to(path string) echo.HandlerFunc {
	return func(c echo.Context) error { return c.Redirect(http.StatusFound, path) }
}
