package explain

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// mismatch says why a request does not match, in words that do not repeat what the request has; "" where it does.
func (q *request) mismatch(m *routev3.RouteMatch) string {
	if why := q.otherPath(m); why != "" {
		return why
	}
	for _, h := range m.GetHeaders() {
		values := q.headers.all(h.GetName())
		if matchHeader(h, values) {
			continue
		}
		switch {
		case h.GetName() == ":method":
			return "method: is not " + describe(h.GetStringMatch())
		case h.GetName() == ":path": // only exempt paths are told so
			return "path: is not one that needs no credentials"
		}
		return "header " + strconv.Quote(h.GetName()) + ": " + whyHeader(h, len(values) > 0)
	}
	for _, p := range m.GetQueryParameters() {
		value, there := q.parameter(p.GetName())
		if present, is := p.GetQueryParameterMatchSpecifier().(*routev3.QueryParameterMatcher_PresentMatch); is {
			switch {
			case present.PresentMatch == there:
			case there:
				return "query parameter " + strconv.Quote(p.GetName()) + ": is there"
			default:
				return "query parameter " + strconv.Quote(p.GetName()) + ": is not there"
			}
			continue
		}
		switch {
		case !there:
			return "query parameter " + strconv.Quote(p.GetName()) + ": is not there"
		case !matchString(p.GetStringMatch(), value):
			return "query parameter " + strconv.Quote(p.GetName()) + ": is not " + describe(p.GetStringMatch())
		}
	}
	for _, s := range m.GetFilterState() {
		if s.GetKey() != translate.ClientCA || !matchString(s.GetStringMatch(), q.clientCA) {
			return "connection: has shown no client certificate of the authority that the host demands"
		}
	}
	return ""
}

func (q *request) otherPath(m *routev3.RouteMatch) string {
	path := withoutQuery(q.path)
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		if !strings.HasPrefix(path, p.Prefix) {
			return "path: does not begin with " + p.Prefix
		}
	case *routev3.RouteMatch_PathSeparatedPrefix:
		rest, is := strings.CutPrefix(path, p.PathSeparatedPrefix)
		if !is || rest != "" && rest[0] != '/' {
			return "path: is neither " + p.PathSeparatedPrefix + " nor below it"
		}
	case *routev3.RouteMatch_Path:
		if path != p.Path {
			return "path: is not " + p.Path
		}
	case *routev3.RouteMatch_SafeRegex:
		if !matchAll(p.SafeRegex.GetRegex(), path) {
			return "path: does not match " + p.SafeRegex.GetRegex()
		}
	default:
		return "path: is matched in a way that is not known here"
	}
	return ""
}

// matchHeader says whether a header matches: one of its values where it comes several times, and none of them where the
// matcher is inverted. One that is not there matches nothing but that it is not.
func matchHeader(m *routev3.HeaderMatcher, values []string) bool {
	if p, is := m.GetHeaderMatchSpecifier().(*routev3.HeaderMatcher_PresentMatch); is {
		return (p.PresentMatch == (len(values) > 0)) != m.GetInvertMatch()
	}
	if len(values) == 0 {
		if !m.GetTreatMissingHeaderAsEmpty() {
			return false
		}
		values = []string{""}
	}
	return slices.ContainsFunc(values, func(v string) bool { return matchString(m.GetStringMatch(), v) }) != m.GetInvertMatch()
}

func whyHeader(m *routev3.HeaderMatcher, there bool) string {
	_, present := m.GetHeaderMatchSpecifier().(*routev3.HeaderMatcher_PresentMatch)
	switch {
	case !there:
		return "is not there"
	case present:
		return "is there"
	case m.GetInvertMatch():
		return "is " + describe(m.GetStringMatch())
	}
	return "is not " + describe(m.GetStringMatch())
}

func matchString(m *matcherv3.StringMatcher, s string) bool {
	if m.GetIgnoreCase() {
		return strings.EqualFold(m.GetExact(), s)
	}
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return s == p.Exact
	case *matcherv3.StringMatcher_Prefix:
		return strings.HasPrefix(s, p.Prefix)
	case *matcherv3.StringMatcher_Suffix:
		return strings.HasSuffix(s, p.Suffix)
	case *matcherv3.StringMatcher_SafeRegex:
		return matchAll(p.SafeRegex.GetRegex(), s)
	}
	return false
}

func describe(m *matcherv3.StringMatcher) string {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return strconv.Quote(p.Exact)
	case *matcherv3.StringMatcher_Prefix:
		return "one that begins with " + strconv.Quote(p.Prefix)
	case *matcherv3.StringMatcher_Suffix:
		return "one that ends with " + strconv.Quote(p.Suffix)
	case *matcherv3.StringMatcher_SafeRegex:
		return "one that matches " + p.SafeRegex.GetRegex()
	}
	return "as it should be"
}

// parameter is the first value of a query parameter, as it was written.
func (q *request) parameter(name string) (value string, there bool) {
	_, query, _ := strings.Cut(q.path, "?")
	query, _, _ = strings.Cut(query, "#")
	if query == "" {
		return "", false
	}
	for part := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(part, "=")
		if key == name {
			return value, true
		}
	}
	return "", false
}

// Envoy gives its regular expressions to RE2, which reads them and what they match as Latin-1, byte by byte.

// latin1 is what RE2 reads, a character for each byte, and bytes is the way back.
func latin1(s string) string {
	out := make([]rune, len(s))
	for i := range len(s) {
		out[i] = rune(s[i])
	}
	return string(out)
}

func bytes(s string) string {
	out := make([]byte, 0, len(s))
	for _, r := range s {
		out = append(out, byte(r))
	}
	return string(out)
}

// expression compiles one; the checks before a write are there so that each can be.
func expression(re string) (*regexp.Regexp, error) {
	out, err := regexp.Compile(latin1(re))
	if err != nil {
		return nil, fmt.Errorf("regular expression: %w", err)
	}
	return out, nil
}

// matchAll says whether an expression matches all of a text: the longest of the leftmost matches is then all of it.
func matchAll(re, s string) bool {
	x, err := expression(re)
	if err != nil {
		return false
	}
	x.Longest()
	text := latin1(s)
	at := x.FindStringIndex(text)
	return at != nil && at[0] == 0 && at[1] == len(text)
}

// replaceAll is RE2's GlobalReplace: \0 to \9 in the substitution are groups, and \\ is a backslash.
func replaceAll(re, s, substitution string) (string, error) {
	x, err := expression(re)
	if err != nil {
		return "", err
	}
	text := latin1(s)
	var out strings.Builder
	end := 0
	for _, m := range x.FindAllStringSubmatchIndex(text, -1) {
		out.WriteString(bytes(text[end:m[0]]))
		for i := 0; i < len(substitution); i++ {
			c := substitution[i]
			if c != '\\' || i+1 == len(substitution) {
				out.WriteByte(c)
				continue
			}
			i++
			if n := int(substitution[i]) - '0'; n < 0 || n > 9 {
				out.WriteByte(substitution[i])
			} else if 2*n+1 < len(m) && m[2*n] >= 0 {
				out.WriteString(bytes(text[m[2*n]:m[2*n+1]]))
			}
		}
		end = m[1]
	}
	out.WriteString(bytes(text[end:]))
	return out.String(), nil
}
