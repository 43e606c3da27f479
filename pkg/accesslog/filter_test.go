package accesslog_test

import (
	"testing"

	"github.com/marchproxy/marchproxy/pkg/accesslog"
)

// TestWhatAFilterTakes: each part of a filter takes what it names and nothing else, and the least status is never above one that
// is taken, or an Envoy would not tell of it.
func TestWhatAFilterTakes(t *testing.T) {
	e := accesslog.Entry{Host: "Shop.Example.com:8443", Path: "/cart/1", Method: "POST", Route: "shop", Status: 503}
	for _, c := range []struct {
		filter accesslog.Filter
		takes  bool
		least  int
	}{
		{accesslog.Filter{}, true, 0},
		{accesslog.Filter{Host: "shop.example.COM"}, true, 0},
		{accesslog.Filter{Host: "*.example.com"}, true, 0},
		{accesslog.Filter{Host: "*.shop.example.com"}, false, 0},
		{accesslog.Filter{Host: "hop.example.com"}, false, 0},
		{accesslog.Filter{Path: "/cart"}, true, 0},
		{accesslog.Filter{Path: "/card"}, false, 0},
		{accesslog.Filter{Method: "post"}, true, 0},
		{accesslog.Filter{Method: "GET"}, false, 0},
		{accesslog.Filter{Route: "shop"}, true, 0},
		{accesslog.Filter{Route: "sho"}, false, 0},
		{accesslog.Filter{Status: "503"}, true, 503},
		{accesslog.Filter{Status: "404,5xx"}, true, 404},
		{accesslog.Filter{Status: "5xx,2xx"}, true, 200},
		{accesslog.Filter{Status: "504"}, false, 504},
		{accesslog.Filter{Status: "4xx"}, false, 400},
		{accesslog.Filter{Gateway: "edge", Proxy: "one"}, true, 0},
		{accesslog.Filter{Gateway: "other"}, false, 0},
		{accesslog.Filter{Proxy: "two"}, false, 0},
		{accesslog.Filter{Host: "shop.example.com", Status: "2xx"}, false, 200},
	} {
		if got := c.filter.Takes("edge", "one", &e); got != c.takes {
			t.Errorf("%+v takes it: %v", c.filter, got)
		}
		if got := c.filter.LeastStatus(); got != c.least {
			t.Errorf("%+v: the least status is %d, want %d", c.filter, got, c.least)
		}
	}
	for authority, host := range map[string]string{
		"a.test": "a.test", "A.test.": "a.test", "a.test:80": "a.test", "[::1]:80": "::1", "[::1]": "[::1]", "": "",
	} {
		if got := accesslog.Host(authority); got != host {
			t.Errorf("the host of %q is %q, want %q", authority, got, host)
		}
	}
}
