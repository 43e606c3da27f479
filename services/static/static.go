// Package static has the files of a site that is built into a program, as browsers are sent them: compressed where they take
// that, not sent again where they have them, and with the headers that OWASP lists for pages.
package static

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
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

// File is one of a site, as it is sent. It is not changed once it is made.
type File struct {
	// Raw is its content.
	Raw []byte

	contentType, tag string
	// zipped is Raw by gzip, made when it is first asked for.
	zipped func() []byte
}

// New is a file of that content; its type is that of its name.
func New(name string, raw []byte) *File {
	sum := sha256.Sum256(raw)
	return &File{
		Raw: raw, contentType: typeOf(name), tag: `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`,
		zipped: sync.OnceValue(func() []byte { return zip(raw) }),
	}
}

// Load has the files below a directory, by their paths from there.
func Load(from fs.FS, dir string) (map[string]*File, error) {
	files := map[string]*File{}
	err := fs.WalkDir(from, dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		files[strings.TrimPrefix(name, dir+"/")] = New(name, raw)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("the files of %s: %w", dir, err)
	}
	return files, nil
}

func typeOf(name string) string {
	switch path.Ext(name) { // the machine's own table may know none of them
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".json":
		return "application/json"
	case ".svg":
		return "image/svg+xml"
	case ".webp":
		return "image/webp"
	case ".txt", ".yaml":
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

// Serve sends the file with a status. With no-cache as what cache says, a browser that has it is told so.
func (f *File) Serve(w http.ResponseWriter, r *http.Request, status int, cache string) {
	h := w.Header()
	Secure(h, "")
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", cache)
	h.Set("Vary", "Accept-Encoding")
	body, tag := f.Raw, f.tag
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") && f.contentType != "image/webp" {
		h.Set("Content-Encoding", "gzip")
		body, tag = f.zipped(), strings.TrimSuffix(tag, `"`)+`-z"`
	}
	h.Set("ETag", tag)
	if status == http.StatusOK && r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone: nobody is left to tell
}

// Secure sets what OWASP's list of headers has for pages. Nothing is loaded from elsewhere, no script stands in a page,
// and no other site shows one in a frame. A nonce allows the styles that scripts of the page make with it; "" allows none.
func Secure(h http.Header, nonce string) {
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
