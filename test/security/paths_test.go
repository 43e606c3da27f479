package security

import (
	"net/http"
	"strings"
	"testing"
)

// pathForms are ways to write a path that a lenient server takes for one below /admin, with ADMIN for the prefix that
// is protected.
var pathForms = []string{
	"/ADMIN", "/ADMIN/", "/ADMIN/x", "//ADMIN", "///ADMIN", "//ADMIN//x", "/ADMIN//", "/./ADMIN", "/././ADMIN", "/ADMIN/.",
	"/ADMIN/./x",
	"/x/../ADMIN", "/x/y/../../ADMIN", "/../ADMIN", "/../../ADMIN", "/x/..//ADMIN", "/.//ADMIN", "//./ADMIN",
	"/x//../ADMIN",
	"/%2e/ADMIN", "/%2E/ADMIN", "/x/%2e%2e/ADMIN", "/x/%2E%2e/ADMIN", "/x/.%2e/ADMIN", "/x/%2e./ADMIN", "/x/..%2fADMIN",
	"/x/..%2FADMIN",
	"/x/%2e%2e%2fADMIN", "/%2fADMIN", "/%2f%2fADMIN", "/%2FADMIN/x", "/ADMIN%2fx", "/ADMIN%2F", "/ADMIN%2f..%2fADMIN",
	"/ADMIN/x%2f..",
	`\ADMIN`, `/\ADMIN`, `\\ADMIN`, `/x\..\ADMIN`, `/x/..\ADMIN`, "/%5cADMIN", "/%5CADMIN", "/x%5c..%5cADMIN",
	"/x/..%5cADMIN", `/ADMIN\x`, "/ADMIN%5cx",
	"/ENCODED", "/ENCODED/x", "/%2f/ENCODED", "/x/../ENCODED", "/ADMIN?x", "/ADMIN?/../x", "/ADMIN/?x=/open", "/ADMIN#x",
	"/ADMIN/..%00", "/ADMIN%00",
	"/ADMIN/x/..", "/ADMIN/%2e", "/ADMIN/.%00/", "/ADMIN%2e%2e/../ADMIN", "/ADMIN/\x01",
}

// encoded writes each letter as its code.
func encoded(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		const digits = "0123456789abcdef"
		b.Write([]byte{'%', digits[c>>4], digits[c&15]})
	}
	return b.String()
}

// TestPaths: however a request spells a path, it meets the policy of a route by prefix, the exemption of a policy, the
// gate of a license and the client certificate that a host demands, at every path, as the plain path does. What the
// backend gets must not be, read leniently, below a protected path. Envoy redirects (307) where a slash is escaped, and
// what it is redirected to is asked for, too.
func TestPaths(t *testing.T) {
	p := newPerimeter(t)
	for _, d := range p.doors {
		for what, c := range map[string]struct {
			host, path string
			refused    int
		}{
			"policy of a route":  {"paths.example.com", "admin", 401},
			"gate of a license":  {"other.test", "gated", 402},
			"client certificate": {"mtls.example.com", "admin", 421},
		} {
			for _, f := range pathForms {
				path := strings.NewReplacer("ADMIN", c.path, "ENCODED", encoded(c.path)).Replace(f)
				got := p.ask(d, c.host, path)
				for range 3 {
					if got.status != http.StatusTemporaryRedirect {
						break
					}
					path = got.seen.Get("Location")
					if _, rest, absolute := strings.Cut(path, "://"); absolute {
						_, path, _ = strings.Cut(rest, "/")
						path = "/" + path
					}
					got = p.ask(d, c.host, path)
				}
				if got.status == 200 && (c.refused == 421 || below(got.seen.Get("Seen-Path"), c.path)) {
					t.Errorf("%s, %s: %q came to the backend as %q", d.name, what, f, got.seen.Get("Seen-Path"))
				}
				if got.status != c.refused && got.status != 400 && got.status != 200 && got.status != 0 {
					t.Errorf("%s, %s: %q: %d, want %d", d.name, what, f, got.status, c.refused)
				}
			}
		}
		// What is exempt is that path and nothing beside it.
		for _, path := range []string{
			"/open/../admin", "/open/%2e%2e/admin", "/open/..%2fadmin", "/open%2f..", "/opens",
			"/open;/x", "//open/../x", "/x",
		} {
			got := p.ask(d, "exempt.example.com", path)
			if got.status == 200 && !below(got.seen.Get("Seen-Path"), "open") {
				t.Errorf("%s: %q came to the backend as %q without credentials", d.name, path, got.seen.Get("Seen-Path"))
			}
		}
		p.want(d, "exempt.example.com", "/open", 200)
		p.want(d, "exempt.example.com", "/x", 401)
		p.want(d, "paths.example.com", "/administrator", 200)
	}
}

// below says whether a lenient server takes a path for one below a prefix: escapes are undone once, backslashes are
// slashes, several slashes one, and dots are followed.
func below(path, prefix string) bool {
	path, _, _ = strings.Cut(path, "?")
	path, _, _ = strings.Cut(path, "#")
	path = strings.ReplaceAll(unescaped(path), `\`, "/")
	path, _, _ = strings.Cut(path, "\x00")
	var segments []string
	for s := range strings.SplitSeq(path, "/") {
		switch s {
		case "", ".":
		case "..":
			segments = segments[:max(0, len(segments)-1)]
		default:
			segments = append(segments, s)
		}
	}
	return len(segments) > 0 && segments[0] == prefix
}

func unescaped(s string) string {
	digit := func(c byte) int { return strings.IndexByte("0123456789abcdef", c|0x20) }
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && digit(s[i+1]) >= 0 && digit(s[i+2]) >= 0 {
			b.WriteByte(byte(digit(s[i+1])<<4 | digit(s[i+2])))
			i += 2
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
