// Package hermetic keeps a test from what its user has set for other programs: PGHOST, DATABASE_URL, NATS_URL,
// MARCHPROXY_TOKEN, LC_ALL and whatever comes next. Importing it is enough: the process, and so what it starts, has
// left what finding, building and fetching programs needs. Tests set the rest themselves.
package hermetic

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// kept are the names of settings that stay, and those that end in * are how such names begin.
var kept = []string{
	"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TERM", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
	"GO*", "CGO_*", "CC", "CARGO_*", "RUSTUP_*", "PIP_*", "PYENV_*", // of toolchains
	// of what fetches
	"SSL_CERT_*", "*_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy",
	"DOCKER_*", "MARCHPROXY_ENGINE_DIR", // of the engine that is used
	// the tests' own
	"MARCHPROXY_BUILD_FLAGS", "MARCHPROXY_CACHE", "MARCHPROXY_CONFIGURATIONS", "MARCHPROXY_TEXTS",
	"MARCHPROXY_PGTEST_URL", "MARCHPROXY_DISKTEST",
	"PORTTEST_CHILD",
}

// direct are the addresses of tests, to which no proxy leads: those of loopback and of benchmarks (RFC 2544).
const direct = "localhost,127.0.0.1,::1,198.18.0.0/15"

func init() {
	for _, setting := range os.Environ() {
		name, _, _ := strings.Cut(setting, "=")
		if !keeps(name) {
			_ = os.Unsetenv(name) // it was there
		}
	}
	if os.Geteuid() == 0 && !open(os.TempDir()) {
		_ = os.Unsetenv("TMPDIR") // a directory of root's own, where the database's user cannot be
	}
	path := os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin" // where ip and bpftool are; su leaves these out
	for name, value := range map[string]string{"PATH": path, "LC_ALL": "C.UTF-8", "NO_PROXY": direct, "no_proxy": direct} {
		_ = os.Setenv(name, value) // such names and values are accepted
	}
}

// open says whether others can pass through a directory and those above it.
func open(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

func keeps(name string) bool {
	return slices.ContainsFunc(kept, func(k string) bool {
		if rest, ok := strings.CutPrefix(k, "*"); ok {
			return strings.HasSuffix(name, rest)
		}
		if rest, ok := strings.CutSuffix(k, "*"); ok {
			return strings.HasPrefix(name, rest)
		}
		return name == k
	})
}
