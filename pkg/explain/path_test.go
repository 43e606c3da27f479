package explain

import "testing"

// TestPath: paths as Envoy 1.40 has them; that it has them so is shown by make check-explain.
func TestPath(t *testing.T) {
	for _, c := range []struct {
		target, path string
		redirect, ok bool
	}{
		{"/", "/", false, true},
		{"/a/b?c=/../d", "/a/b?c=/../d", false, true},
		{"/a/./b/../c", "/a/c", false, true},
		{"/a/%2E%2e/b", "/b", false, true},
		{"/..", "/", false, true},
		{"/../../a", "/a", false, true},
		{"/a/.", "/a/", false, true},
		{"/a/..b/.c", "/a/..b/.c", false, true},
		{"/a/..;x=1/b", "/b", false, true},
		{"/a/.;/b", "/a/b", false, true},
		{"/a/x;y/b", "/a/x;y/b", false, true},
		{"/a/.%3b/b", "/a/.%3b/b", false, true},
		{`/a\b\..\c`, "/a/c", false, true},
		{"//a//b//", "/a/b/", false, true},
		{"//", "//", false, true},
		{"/%41%7e%2d%5F%2E", "/A~-_.", false, true},
		{"/%24%c3%a4%zz%", "/%24%c3%a4%zz%", false, true},
		{`/a"<>^` + "`{|}", "/a%22%3C%3E%5E%60%7B%7C%7D", false, true},
		{"/a'b[c]@!$&()*+,;=:", "/a'b[c]@!$&()*+,;=:", false, true},
		{"/a%2Fb%2f?%2F", "/a/b/?%2F", true, true},
		{"/a/..%5Cb", "/b", true, true},
		{"/a#b", "", false, false},
		{"/a?b#c", "", false, false},
		{"/a%00", "/a%00", false, false},
	} {
		path, redirect, ok := pathOf(c.target)
		if path != c.path || redirect != c.redirect || ok != c.ok {
			t.Errorf("%s: %s %t %t, want %s %t %t", c.target, path, redirect, ok, c.path, c.redirect, c.ok)
		}
	}
}

// TestHost: hosts as Envoy has them before it looks for a table.
func TestHost(t *testing.T) {
	for raw, want := range map[string]string{
		"a.test": "a.test", "a.test.": "a.test", "a.test:80": "a.test", "a.test.:80": "a.test", "a.test:+80": "a.test",
		"a.test:": "a.test:", "a.test:x": "a.test:x", "a.test:80:80": "a.test:80", "a.test..": "a.test.",
		"[2001:db8::1]": "[2001:db8::1]", "[2001:db8::1]:80": "[2001:db8::1]", "a.test:4294967296": "a.test:4294967296",
		"A.Test": "A.Test", ".": "",
	} {
		if got := Host(raw); got != want {
			t.Errorf("%s: %s, want %s", raw, got, want)
		}
	}
}

// TestReplace: RE2's GlobalReplace, byte by byte.
func TestReplace(t *testing.T) {
	for _, c := range [][4]string{
		{"a", "/aba", `x`, "/xbx"},
		{"/a(.*)", "/abc", `/\1/\0`, "/bc//abc"},
		{"x*", "abxd", "-", "-a-b-d-"},
		{"(/a)?", "/b", "/", "///b/"},
		{"^/[^/]*", "/a/b", `\\`, `\/b`},
		{"ä", "/ä", "ö", "/ö"},
		{"(a)|b", "b", `[\1]`, "[]"},
	} {
		if got, err := replaceAll(c[0], c[1], c[2]); err != nil || got != c[3] {
			t.Errorf("%s in %s by %s: %q %v, want %q", c[0], c[1], c[2], got, err, c[3])
		}
	}
	for _, c := range []struct {
		re, s string
		want  bool
	}{
		{"a|ab", "ab", true},
		{"/x", "/xy", false},
		{"(?i)/x", "/X", true},
		{".", "ä", false},
		{"..", "ä", true},
		{"", "", true},
		{`\Q.\E`, ".", true},
		{"/a$", "/a", true},
	} {
		if matchAll(c.re, c.s) != c.want {
			t.Errorf("%s in %q: %t", c.re, c.s, !c.want)
		}
	}
}
