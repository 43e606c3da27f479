package explain

import "strings"

// Paths as Envoy has them once a listener of ours has taken them (normalize_path, merge_slashes, and
// path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT).

// pathOf is what becomes of a request's target. A redirect sends the client to the path; not ok is refused.
func pathOf(target string) (path string, redirect, ok bool) {
	if strings.Contains(target, "#") {
		return "", false, false
	}
	path, query := cutQuery(target)
	for _, escaped := range []string{"%2F", "%2f"} {
		path = strings.ReplaceAll(path, escaped, "/")
	}
	for _, escaped := range []string{"%5C", "%5c"} {
		path = strings.ReplaceAll(path, escaped, `\`)
	}
	redirect = len(path)+len(query) != len(target)
	path, ok = canonical(withoutParameters(path))
	return mergeSlashes(path) + query, redirect, ok
}

// cutQuery divides a target before its question mark.
func cutQuery(target string) (path, query string) {
	if i := strings.IndexByte(target, '?'); i >= 0 {
		return target[:i], target[i:]
	}
	return target, ""
}

// withoutQuery is the path that routes match.
func withoutQuery(target string) string {
	if i := strings.IndexAny(target, "?#"); i >= 0 {
		return target[:i]
	}
	return target
}

// withoutParameters takes off the parameters of dot segments, so that these are found.
func withoutParameters(path string) string {
	if !strings.Contains(path, ".;") {
		return path
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		for _, dots := range []string{"..", "."} {
			if strings.HasPrefix(s, dots+";") {
				segments[i] = dots
			}
		}
	}
	return strings.Join(segments, "/")
}

func mergeSlashes(path string) string {
	if !strings.Contains(path, "//") {
		return path
	}
	parts := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	out := "/" + strings.Join(parts, "/")
	if strings.HasSuffix(path, "/") {
		out += "/" // of slashes alone two are left
	}
	return out
}

// canonical is what Chromium's URL library, which Envoy uses, makes of a path: escapes of what needs none are undone,
// what must be escaped is, dot segments are resolved, and a backslash is a slash.
func canonical(path string) (string, bool) {
	ok := true
	var out []byte
	if path == "" || (path[0] != '/' && path[0] != '\\') {
		out = append(out, '/')
	}
	for i := 0; i < len(path); {
		c := path[i]
		if n := dotAt(path, i); n > 0 {
			i += n
			if len(out) == 0 || out[len(out)-1] != '/' {
				out = append(out, '.')
				continue
			}
			switch used, up := afterDot(path[i:]); {
			case used < 0:
				out = append(out, '.')
			case up:
				i += used
				out = parent(out)
			default:
				i += used
			}
			continue
		}
		switch {
		case c == '\\':
			out = append(out, '/')
		case c == '%':
			value, escaped := unescape(path[i:])
			switch {
			case !escaped:
				out = append(out, '%')
			case unreserved(value):
				out = append(out, value)
				i += 2
			default:
				ok = ok && value != 0
				out = append(out, path[i:i+3]...)
				i += 2
			}
		case mustEscape(c):
			ok = ok && c != 0
			const hex = "0123456789ABCDEF"
			out = append(out, '%', hex[c>>4], hex[c&15])
		default:
			out = append(out, c)
		}
		i++
	}
	return string(out), ok
}

// dotAt is the length of a dot, written as it is or escaped; 0 where there is none.
func dotAt(path string, i int) int {
	switch {
	case i < len(path) && path[i] == '.':
		return 1
	case i+3 <= len(path) && strings.EqualFold(path[i:i+3], "%2e"):
		return 3
	}
	return 0
}

// afterDot says how much belongs to the dot segment whose first dot is before rest, -1 where it is none, and whether
// it leads up.
func afterDot(rest string) (used int, up bool) {
	slash := func(i int) int {
		switch {
		case i == len(rest):
			return 0
		case rest[i] == '/' || rest[i] == '\\':
			return 1
		}
		return -1
	}
	if n := slash(0); n >= 0 {
		return n, false
	}
	if second := dotAt(rest, 0); second > 0 {
		if n := slash(second); n >= 0 {
			return second + n, true
		}
	}
	return -1, false
}

// parent takes off the last segment of a path that ends in a slash.
func parent(path []byte) []byte {
	if len(path) == 1 {
		return path
	}
	return path[:strings.LastIndexByte(string(path[:len(path)-1]), '/')+1]
}

// unescape reads an escape at the beginning of a text.
func unescape(s string) (value byte, ok bool) {
	if len(s) < 3 {
		return 0, false
	}
	for _, c := range []byte(s[1:3]) {
		value <<= 4
		switch {
		case '0' <= c && c <= '9':
			value |= c - '0'
		case 'a' <= c && c <= 'f':
			value |= c - 'a' + 10
		case 'A' <= c && c <= 'F':
			value |= c - 'A' + 10
		default:
			return 0, false
		}
	}
	return value, true
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// unreserved says what is never written as an escape.
func unreserved(c byte) bool { return alphanumeric(c) || c == '-' || c == '_' || c == '~' }

// mustEscape says what is never written as it is.
func mustEscape(c byte) bool {
	return c <= ' ' || c >= 0x7f || strings.IndexByte("\"#<>?^`{|}", c) >= 0
}
