package accesslog

import (
	"net"
	"strconv"
	"strings"
)

// Filter is which entries are asked for: those that have all of it. The zero value takes every entry.
type Filter struct {
	Gateway string `json:"gateway,omitempty"`
	// Proxy is the Envoy's node id.
	Proxy string `json:"proxy,omitempty"`
	// Host without a port, in any case; *.example.com is every host below example.com.
	Host  string `json:"host,omitempty"`
	Route string `json:"route,omitempty"`
	// Status is a list such as 404,5xx.
	Status string `json:"status,omitempty"`
	Method string `json:"method,omitempty"`
	// Path is the beginning of the path.
	Path string `json:"path,omitempty"`
}

// Takes says whether an entry of an Envoy is asked for.
func (f Filter) Takes(gateway, proxy string, e *Entry) bool {
	return f.Of(gateway, proxy) &&
		(f.Method == "" || strings.EqualFold(f.Method, e.Method)) &&
		(f.Route == "" || f.Route == e.Route) &&
		strings.HasPrefix(e.Path, f.Path) && f.host(e.Host) && f.status(e.Status)
}

// Of says whether any entry of an Envoy may be asked for.
func (f Filter) Of(gateway, proxy string) bool {
	return (f.Gateway == "" || f.Gateway == gateway) && (f.Proxy == "" || f.Proxy == proxy)
}

func (f Filter) host(host string) bool {
	if f.Host == "" {
		return true
	}
	want, host := strings.ToLower(f.Host), Host(host)
	if below, ok := strings.CutPrefix(want, "*."); ok {
		return strings.HasSuffix(host, "."+below)
	}
	return host == want
}

// Host is a request's authority as routes name hosts: in lower case, without a port and a dot at its end.
func Host(authority string) string {
	if h, _, err := net.SplitHostPort(authority); err == nil {
		authority = h
	}
	return strings.ToLower(strings.TrimSuffix(authority, "."))
}

func (f Filter) status(status int32) bool {
	if f.Status == "" {
		return true
	}
	for want := range strings.SplitSeq(f.Status, ",") {
		if least, most := statuses(want); least <= int(status) && int(status) <= most {
			return true
		}
	}
	return false
}

// LeastStatus is the least status that is asked for, 0 where it does not matter.
func (f Filter) LeastStatus() int {
	out := 0
	for want := range strings.SplitSeq(f.Status, ",") {
		if least, _ := statuses(want); out == 0 || least < out {
			out = least
		}
	}
	return out
}

// statuses are those that 404 or 4xx stands for; 0 and -1 for what stands for none.
func statuses(s string) (least, most int) {
	if class, ok := strings.CutSuffix(s, "xx"); ok && len(class) == 1 && class[0] >= '1' && class[0] <= '5' {
		least = int(class[0]-'0') * 100
		return least, least + 99
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, -1
	}
	return n, n
}
