package dev

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestArchive: what is fetched is used only where it is what the source says, and a cached file is looked at again.
func TestArchive(t *testing.T) {
	jar := func(content string) []byte {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		w, err := z.Create("postgres-linux-x86_64.txz")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	served, asked := jar("the archive"), 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		_, _ = w.Write(served)
	}))
	defer s.Close()
	sum := sha256.Sum256([]byte("the archive"))
	a := archive{url: s.URL, name: "postgres.txz", digest: hex.EncodeToString(sum[:])}
	dir := t.TempDir()
	cached := func() string {
		raw, err := os.ReadFile(filepath.Join(dir, a.name))
		if err != nil {
			return err.Error()
		}
		return string(raw)
	}
	for range 2 {
		if err := a.fetch(t.Context(), dir); err != nil || cached() != "the archive" || asked != 1 {
			t.Fatalf("%v %q after %d downloads", err, cached(), asked)
		}
	}

	// The cache is changed, and then what is served, too.
	if err := os.WriteFile(filepath.Join(dir, a.name), []byte("another one"), 0o600); err != nil {
		t.Fatal(err)
	}
	served = jar("another one")
	if err := a.fetch(t.Context(), dir); err == nil ||
		!strings.Contains(err.Error(), "is not what this program was made with") {
		t.Errorf("another archive: %v", err)
	}
	served = jar("the archive")
	if err := a.fetch(t.Context(), dir); err != nil || cached() != "the archive" {
		t.Errorf("%v %q", err, cached())
	}
	for name, broken := range map[string][]byte{"no jar": []byte("<html>"), "cut off": served[:len(served)-5]} {
		served = broken
		if _, err := a.download(t.Context()); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}
