// Package docsite is the documentation for browsers: the pages of docs/, and the API's reference among them. dist is what
// scripts/docs makes of docs/ by the layouts beside this file.
package docsite

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/marchproxy/marchproxy/services/static"
)

//go:embed all:dist
var dist embed.FS

const (
	// Path is where the pages are.
	Path = "/docs/"
	// Reference is the path of the API's reference.
	Reference = Path + "api.html"
	// placeholder stands in the page of the reference for what it says.
	placeholder = "<!-- reference -->"
)

// Handler serves the pages below [Path]. The reference is HTML, and found is what the search knows of it: a JSON array of
// sections, each [address, page, heading, text]. Both are made of the API as it is, so that a change of it changes no page
// here.
func Handler(reference, found []byte) (http.Handler, error) {
	files, err := static.Load(dist, "dist")
	if err != nil {
		return nil, fmt.Errorf("documentation: %w", err)
	}
	page, missing := files["api.html"], files["404.html"]
	if page == nil || missing == nil || !bytes.Contains(page.Raw, []byte(placeholder)) {
		return nil, errors.New("the documentation's files lack api.html with its place for the reference, or 404.html; " +
			"scripts/docs makes them")
	}
	files["api.html"] = static.New("api.html", bytes.Replace(page.Raw, []byte(placeholder), reference, 1))
	files["api.json"] = static.New("api.json", found)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, Path)
		if name == "" || strings.HasSuffix(name, "/") {
			name += "index.html"
		}
		if f, ok := files[name]; ok {
			f.Serve(w, r, http.StatusOK, "no-cache")
			return
		}
		for _, ending := range []string{".html", "/index.html"} { // as people write it
			if _, ok := files[name+ending]; ok {
				http.Redirect(w, r, Path+name+ending, http.StatusFound) //nolint:gosec // a file of ours
				return
			}
		}
		missing.Serve(w, r, http.StatusNotFound, "no-store")
	}), nil
}
