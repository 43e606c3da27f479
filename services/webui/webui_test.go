package webui

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// first is how much a browser loads for the first page, in bytes as sent.
const first = 300 << 10

// TestFirstLoad: what the page names, and what that needs at once, is there, compressed, to be kept, and not too much.
func TestFirstLoad(t *testing.T) {
	h, err := Handler()
	if err != nil {
		t.Fatal(err)
	}
	get := func(path, encoding string) *httptest.ResponseRecorder {
		t.Helper()
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, http.NoBody)
		r.Header.Set("Accept-Encoding", encoding)
		h.ServeHTTP(w, r)
		if w.Code != 200 {
			t.Fatalf("%s: %d", path, w.Code)
		}
		return w
	}
	index := get(Path, "").Body.String()
	files := regexp.MustCompile(`(?:src|href)="(/ui/[^"]+)"`).FindAllStringSubmatch(index, -1)
	if len(files) < 4 {
		t.Fatalf("the page names %d files: %s", len(files), index)
	}
	total := len(index)
	for _, f := range files {
		plain, zipped := get(f[1], ""), get(f[1], "gzip, br")
		total += zipped.Body.Len()
		z, err := gzip.NewReader(bytes.NewReader(zipped.Body.Bytes()))
		if err != nil {
			t.Fatalf("%s: %v", f[1], err)
		}
		if raw, err := io.ReadAll(z); err != nil || !bytes.Equal(raw, plain.Body.Bytes()) {
			t.Errorf("%s: what is compressed is another file, %v", f[1], err)
		}
		kept := zipped.Header().Get("Cache-Control")
		if strings.Contains(f[1], "/assets/") != strings.Contains(kept, "immutable") {
			t.Errorf("%s: Cache-Control %q", f[1], kept)
		}
	}
	t.Logf("the first load is %d bytes", total)
	if total > first {
		t.Errorf("the first load is %d bytes, more than %d", total, first)
	}
}
