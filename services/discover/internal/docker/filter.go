package docker

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"time"
)

// allowed are the only paths that are passed on. All others of the engine's API can read files of containers, or start
// one as root: what filters by prefixes lets /containers/ID/archive through with /containers.
var allowed = regexp.MustCompile(`^(/v1\.[0-9]{1,3})?/(_ping|version|events|containers/json|networks)$`)

// Filter passes on what this package asks a Docker engine for, and nothing else: GET and HEAD of five exact paths,
// without a body. It is for a process of its own, the only one that has the engine's socket.
func Filter(host string) (http.Handler, error) {
	base, c, err := dial(host, 10*time.Second)
	if err != nil {
		return nil, err
	}
	to, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	pass := &httputil.ReverseProxy{
		Transport:     c.Transport,
		FlushInterval: -1, // events are passed on as they come
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if (r.Method != http.MethodGet && r.Method != http.MethodHead) || !allowed.MatchString(r.URL.EscapedPath()) ||
			r.ContentLength != 0 || r.Header.Get("Upgrade") != "" {
			http.Error(w, "this is not passed on; GET of /_ping, /version, /events, /containers/json and /networks is",
				http.StatusForbidden)
			return
		}
		pass.ServeHTTP(w, r)
	}), nil
}
