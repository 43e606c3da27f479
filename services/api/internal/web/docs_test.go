package web

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/net/html"

	"github.com/marchproxy/marchproxy/services/docsite"
	"github.com/marchproxy/marchproxy/services/webui"
)

// site is the documentation as a browser gets it.
type site struct {
	h http.Handler
	// pages has what was read, by path: the ids of each page, none of what is no page.
	pages map[string]map[string]bool
	// links has what each page leads to, in the order of reading.
	links []pageLink
}

type pageLink struct{ from, to string }

func (s *site) get(path, tag string) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, http.NoBody)
	r.Header.Set("If-None-Match", tag)
	s.h.ServeHTTP(w, r)
	return w
}

// read reads a page, once, and what it leads to.
func (s *site) read(t *testing.T, from, path string) {
	t.Helper()
	if _, ok := s.pages[path]; ok {
		return
	}
	w := s.get(path, "")
	s.pages[path] = map[string]bool{}
	if w.Code != http.StatusOK {
		t.Errorf("%s leads to %s, which is answered with %d", from, path, w.Code)
		return
	}
	if strings.Contains(w.Header().Get("Content-Security-Policy"), "unsafe") || w.Header().Get("X-Frame-Options") != "DENY" {
		t.Errorf("%s has the headers %v", path, w.Header())
	}
	if !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
		return
	}
	doc, err := html.Parse(w.Body)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	base, err := url.Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	headings, here := 0, len(s.links)
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		attrs := map[string]string{}
		for _, a := range n.Attr {
			attrs[a.Key] = a.Val
			if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
				t.Errorf("%s: <%s %s=…> is what the policy blocks", path, n.Data, a.Key)
			}
		}
		if id := attrs["id"]; id != "" {
			if s.pages[path][id] {
				t.Errorf("%s has the id %s twice", path, id)
			}
			s.pages[path][id] = true
		}
		switch {
		case n.Data == "h1":
			headings++
		case n.Data == "style", n.Data == "script" && attrs["src"] == "", n.Data == "base", n.Data == "iframe":
			t.Errorf("%s has a <%s> in it, which the policy blocks", path, n.Data)
		}
		for _, key := range []string{"href", "src", "srcset"} {
			to, ok := attrs[key]
			if !ok {
				continue
			}
			u, err := base.Parse(strings.Fields(to + " ")[0])
			switch {
			case err != nil:
				t.Errorf("%s: %s=%q: %v", path, key, to, err)
			case u.Host == "":
				s.links = append(s.links, pageLink{path, u.String()})
			case n.Data != "a":
				t.Errorf("%s: <%s %s=%q> is loaded from elsewhere", path, n.Data, key, to)
			}
		}
	}
	if headings == 0 {
		t.Errorf("%s has no heading", path)
	}
	for _, l := range s.links[here:] {
		if to, _, _ := strings.Cut(l.to, "#"); strings.HasPrefix(to, docsite.Path) {
			s.read(t, path, to)
		}
	}
}

// TestDocumentation reads the documentation as a browser does, from its first page on: every link and anchor leads
// somewhere, every document of docs/ is there, the search leads to what there is, and nothing is what the policy blocks.
func TestDocumentation(t *testing.T) {
	a := &API{Log: zap.NewNop()}
	h, err := a.Handler()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{h: h, pages: map[string]map[string]bool{}}
	s.read(t, "the test", docsite.Path)
	for _, name := range []string{"search.json", "api.json"} {
		var sections [][4]string // address, page, heading, text
		if err := json.Unmarshal(s.get(docsite.Path+name, "").Body.Bytes(), &sections); err != nil || len(sections) < 100 {
			t.Errorf("%s has %d sections, %v", name, len(sections), err)
		}
		for _, x := range sections {
			s.links = append(s.links, pageLink{name, x[0]})
		}
	}
	for _, l := range s.links {
		to, id, _ := strings.Cut(l.to, "#")
		switch {
		case strings.HasPrefix(to, docsite.Path):
			s.read(t, l.from, to)
			if id, err = url.PathUnescape(id); err != nil || id != "" && !s.pages[to][id] {
				t.Errorf("%s leads to %s, which has no such anchor (%v)", l.from, l.to, err)
			}
		case to != webui.Path && to != "/v1/openapi.json":
			t.Errorf("%s leads to %s, which is no page", l.from, l.to)
		}
	}
	root, documents := filepath.Join("..", "..", "..", ".."), 0
	if err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".md" {
			return err
		}
		documents++
		name, err := filepath.Rel(root, strings.Replace(strings.TrimSuffix(path, ".md")+".html", "README.html", "index.html", 1))
		if _, ok := s.pages["/"+filepath.ToSlash(name)]; !ok {
			t.Errorf("no link of the documentation leads to %s (/%s)", path, name)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if documents < 90 || len(s.pages) < documents || len(s.links) < 5000 {
		t.Errorf("only %d documents, %d pages and %d links are read", documents, len(s.pages), len(s.links))
	}
	t.Logf("%d documents, %d pages and files, %d links", documents, len(s.pages), len(s.links))
}

// TestDocumentationIsServed: as people write its addresses, not sent again where it is there, and with a page for what is
// not.
func TestDocumentationIsServed(t *testing.T) {
	a := &API{Log: zap.NewNop()}
	h, err := a.Handler()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{h: h}
	for from, to := range map[string]string{
		"/docs": "/docs/", "/docs/operations": "/docs/operations.html", "/docs/guides": "/docs/guides/index.html",
	} {
		if w := s.get(from, ""); w.Code != http.StatusFound || w.Header().Get("Location") != to {
			t.Errorf("%s: %d to %q, want %s", from, w.Code, w.Header().Get("Location"), to)
		}
	}
	first := s.get("/docs/operations.html", "")
	if w := s.get("/docs/operations.html", first.Header().Get("ETag")); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
		t.Errorf("what a browser has is sent again: %d, %d bytes", w.Code, w.Body.Len())
	}
	w := s.get("/docs/no-such-page.html", "")
	if w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "<h1>There is no such page") {
		t.Errorf("a page that is not there: %d %s", w.Code, w.Body)
	}
	ui := s.get(webui.Path+"icon.svg", "").Header()
	for _, name := range []string{
		"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy", "Permissions-Policy",
	} {
		if got := first.Header().Get(name); got == "" || got != ui.Get(name) {
			t.Errorf("%s is %q, and the web UI's %q", name, got, ui.Get(name))
		}
	}
}
