package docker

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"

	"github.com/marchproxy/marchproxy/pkg/engine"
)

// allowed are the only paths that are passed on. All others of the engine's API can read files of containers, or start
// one as root: what filters by prefixes lets /containers/ID/archive through with /containers.
var allowed = regexp.MustCompile(
	`^(/v1\.[0-9]{1,3})?/(_ping|version|events|containers/json|containers/[0-9a-f]{64}/json|networks)$`)

// one is the path of a single container, of whose answer only what [inspected] has is passed on.
var one = regexp.MustCompile(`/containers/[0-9a-f]{64}/json$`)

// Filter passes on what this package asks a Docker engine for, and nothing else: GET and HEAD of six exact paths,
// without a body. It is for a process of its own, the only one that has the engine's socket.
func Filter(host string) (http.Handler, error) {
	c, err := engine.New(host, patience) // who asks is no more patient
	if err != nil {
		return nil, err
	}
	pass := c.Proxy() // what is compressed could not be cut down
	pass.ModifyResponse = reduce
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if (r.Method != http.MethodGet && r.Method != http.MethodHead) || !allowed.MatchString(r.URL.EscapedPath()) ||
			r.ContentLength != 0 || r.Header.Get("Upgrade") != "" {
			http.Error(w, "this is not passed on; GET of /_ping, /version, /events, /containers/json, /containers/ID/json "+
				"and /networks is",
				http.StatusForbidden)
			return
		}
		pass.ServeHTTP(w, r)
	}), nil
}

// reduce takes out of the answer about a single container what nobody needs to know: its environment has its secrets.
func reduce(resp *http.Response) error {
	if !one.MatchString(resp.Request.URL.Path) || resp.StatusCode != http.StatusOK {
		return nil
	}
	var is inspected
	err := json.NewDecoder(io.LimitReader(resp.Body, maxInspect)).Decode(&is)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	raw, err := json.Marshal(is)
	resp.Body = io.NopCloser(bytes.NewReader(raw))
	resp.ContentLength, resp.Header = int64(len(raw)), http.Header{
		"Content-Type":   {"application/json"},
		"Content-Length": {strconv.Itoa(len(raw))},
	}
	return err
}
