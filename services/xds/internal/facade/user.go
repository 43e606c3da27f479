package facade

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/process"
)

// AsUser has requests of the server's own user, from this machine and without a token, made with the one in a file that
// this user alone can read. It is for `marchproxy dev`, where `curl localhost:19000/v1/config` is to work as it stands.
//
// The user of the other end of a connection is asked of the kernel. A loopback address alone is no credential, since
// every user of the machine connects from there. A web page in this user's browser sends an Origin, or a Host that is
// not this machine; what a proxy of this user's passes on for somebody else has the headers that proxies add.
func AsUser(file string, h http.Handler) http.Handler {
	if file == "" {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" && byOwnUser(r) {
			if token, err := os.ReadFile(file); err == nil { // otherwise the request is refused for want of a token
				r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
			}
		}
		h.ServeHTTP(w, r)
	})
}

func byOwnUser(r *http.Request) bool {
	for name := range r.Header {
		switch name = strings.ToLower(name); {
		case name == "origin", name == "forwarded", name == "via", strings.HasPrefix(name, "x-forwarded-"),
			strings.HasPrefix(name, "x-envoy-"), strings.HasPrefix(name, "sec-fetch-"):
			return false
		}
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	if !identity.Loopback(strings.Trim(host, "[]")) {
		return false
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	own, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return false
	}
	uid, ok := process.PeerUser(peer, own)
	return ok && (uid == os.Geteuid() || uid == 0)
}
