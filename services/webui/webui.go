// Package webui is the web UI: pages for browsers, which use the API of the server that they come from. The sources are
// beside this file, and dist is what scripts/webui makes of them.
package webui

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/marchproxy/marchproxy/services/static"
)

//go:embed all:dist
var dist embed.FS

const (
	// Path is where the pages are.
	Path = "/ui/"
	// placeholder stands in index.html for the nonce of an answer.
	placeholder = "NONCE"
)

// Handler serves the pages below [Path]. A path without a file is a page of the UI's own, which index.html finds; so
// links to pages can be kept and sent.
func Handler() (http.Handler, error) {
	files, err := static.Load(dist, "dist")
	if err != nil {
		return nil, fmt.Errorf("web UI: %w", err)
	}
	index, ok := files["index.html"]
	if !ok || !bytes.Contains(index.Raw, []byte(placeholder)) {
		return nil, errors.New("the web UI's files lack an index.html with " + placeholder + " in it; scripts/webui makes them")
	}
	delete(files, "index.html")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, Path)
		f, ok := files[name]
		asset := strings.HasPrefix(name, "assets/")
		switch {
		case ok && asset: // its name changes with its content
			f.Serve(w, r, http.StatusOK, "public, max-age=31536000, immutable")
		case ok:
			f.Serve(w, r, http.StatusOK, "no-cache")
		case asset && path.Ext(name) != "": // of another version
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, "there is no such file; load the page again", http.StatusNotFound)
		default:
			page(w, index.Raw)
		}
	}), nil
}

// page sends index.html with a nonce of its own, by which the styles are allowed that scripts of the page make.
func page(w http.ResponseWriter, index []byte) {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	nonce := base64.RawStdEncoding.EncodeToString(b[:])
	h := w.Header()
	static.Secure(h, nonce)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(bytes.ReplaceAll(index, []byte(placeholder), []byte(nonce))) // the client is gone
}
