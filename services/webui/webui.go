// Package webui is the web UI: pages for browsers, which use the API of the server that they come from. The sources are
// beside this file, and dist is what scripts/webui makes of them.
package webui

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed all:dist
var dist embed.FS

// Path is where the pages are.
const Path = "/ui/"

// placeholder stands in index.html for the nonce of an answer.
const placeholder = "NONCE"

// file is one of dist, as it is sent.
type file struct {
	name, contentType string
	raw               []byte
	// zipped is raw by gzip, made when it is first asked for.
	zipped func() []byte
}

// Handler serves the pages below [Path]. A path without a file is a page of the UI's own, which index.html finds; so
// links to pages can be kept and sent.
func Handler() (http.Handler, error) {
	files := map[string]file{}
	err := fs.WalkDir(dist, "dist", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := dist.ReadFile(name)
		if err != nil {
			return err
		}
		f := file{name: name, contentType: typeOf(name), raw: raw}
		f.zipped = sync.OnceValue(func() []byte { return zip(f.raw) })
		files[strings.TrimPrefix(name, "dist/")] = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("the web UI's files: %w", err)
	}
	index, ok := files["index.html"]
	if !ok || !bytes.Contains(index.raw, []byte(placeholder)) {
		return nil, fmt.Errorf("the web UI's files lack an index.html with %s in it; scripts/webui makes them", placeholder)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := files[strings.TrimPrefix(r.URL.Path, Path)]
		switch {
		case ok && f.name != index.name:
			f.serve(w, r)
		case path.Ext(r.URL.Path) != "" && strings.HasPrefix(r.URL.Path, Path+"assets/"): // of another version
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, "there is no such file; load the page again", http.StatusNotFound)
		default:
			page(w, index.raw)
		}
	}), nil
}

func typeOf(name string) string {
	switch path.Ext(name) { // the machine's own table may know none of them
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".txt":
		return "text/plain; charset=utf-8"
	}
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

func zip(raw []byte) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // a level that there is
	_, _ = z.Write(raw)                                   // to memory
	_ = z.Close()
	return b.Bytes()
}

// serve sends a file. Names in assets change with their content.
func (f file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	secure(h, "")
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", "no-cache")
	if strings.Contains(f.name, "/assets/") {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("Vary", "Accept-Encoding")
	body := f.raw
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = f.zipped()
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client is gone: nobody is left to tell
}

// page sends index.html with a nonce of its own, by which the styles are allowed that scripts of the page make.
func page(w http.ResponseWriter, index []byte) {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	nonce := base64.RawStdEncoding.EncodeToString(b[:])
	h := w.Header()
	secure(h, nonce)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(bytes.ReplaceAll(index, []byte(placeholder), []byte(nonce))) // the client is gone
}

// secure sets what OWASP's list of headers has for pages. Nothing is loaded from elsewhere, no script stands in a page,
// and no other site shows one in a frame.
func secure(h http.Header, nonce string) {
	styles := "'self'"
	if nonce != "" {
		styles += " 'nonce-" + nonce + "'"
	}
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src "+styles+"; img-src 'self' data:; "+
		"font-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "+
		"frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Embedder-Policy", "require-corp")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("X-Permitted-Cross-Domain-Policies", "none")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
}
