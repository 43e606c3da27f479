package translate

import "testing"

func TestPlainRoute(t *testing.T) {
	const plain = "%METADATA(ROUTE:marchproxy:route)%"
	for format, want := range map[string]string{
		"":                           "",
		"no operator":                "no operator",
		"%ROUTE_NAME%":               plain,
		"a%ROUTE_NAME%b%ROUTE_NAME%": "a" + plain + "b" + plain,
		"%REQ(:PATH):9%%ROUTE_NAME%": "%REQ(:PATH):9%" + plain,
		"%%ROUTE_NAME%%":             "%%ROUTE_NAME%%",
		"100%%%ROUTE_NAME%":          "100%%" + plain,
	} {
		if got := plainRoute(format); got != want {
			t.Errorf("%q: %q, want %q", format, got, want)
		}
	}
}
