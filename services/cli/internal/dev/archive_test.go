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
	"sync"
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

// TestKept: programs that were unpacked once are not unpacked again, and are the same wherever they are taken to.
func TestKept(t *testing.T) {
	unpacked, cache := t.TempDir(), t.TempDir()
	kept := filepath.Join(cache, "binaries-1")
	for _, d := range []string{"bin", "lib"} {
		if err := os.Mkdir(filepath.Join(unpacked, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(unpacked, "bin", "pg_ctl"), []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("libpq.so.5", filepath.Join(unpacked, "lib", "libpq.so")); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := keep(unpacked, kept); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if left, err := os.ReadDir(cache); err != nil || len(left) != 1 {
		t.Errorf("the cache has %v, %v", left, err)
	}
	to := filepath.Join(t.TempDir(), "binaries-1")
	if err := (archive{url: "http://postgres.invalid"}).take(t.Context(), kept, to); err != nil {
		t.Fatal(err)
	}
	was, err := os.Stat(filepath.Join(unpacked, "bin", "pg_ctl")) // 0755, less what the umask takes
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(to, "bin", "pg_ctl"))
	link, err2 := os.Readlink(filepath.Join(to, "lib", "libpq.so"))
	if err != nil || err2 != nil || info.Mode() != was.Mode() || link != "libpq.so.5" {
		t.Errorf("%v, want %v %v, %v %v", info, was.Mode(), err, link, err2)
	}
}
