package explain

import (
	"strconv"
	"strings"
)

// Host is what Envoy makes of a request's host before it looks for anything: without one final dot, and without a port.
func Host(raw string) string {
	host := strings.Trim(raw, " \t")
	if dot := strings.LastIndexByte(host, '.'); dot >= 0 {
		switch {
		case dot == len(host)-1:
			host = host[:dot]
		case host[dot+1] == ':':
			host = host[:dot] + host[dot+1:]
		}
	}
	if at := portAt(host); at >= 0 {
		if _, is := portOf(host[at+1:]); is {
			host = host[:at]
		}
	}
	return host
}

// portAt is where the colon before a port is, -1 where there is none.
func portAt(host string) int {
	at := strings.LastIndexByte(host, ':')
	if strings.LastIndexByte(host, ']') > at {
		return -1
	}
	return at
}

// portOf reads a port as Envoy does: blanks around it and a plus before it are no matter.
func portOf(s string) (uint32, bool) {
	s = strings.Trim(s, " \t\n\v\f\r")
	if len(s) > 1 && s[0] == '+' {
		s = s[1:]
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil
}

// validAuthority says whether Envoy takes a host at all (RFC 3986, 3.2).
func validAuthority(host string) bool {
	for _, c := range []byte(host) {
		if !alphanumeric(c) && strings.IndexByte("-._~!$&'()*+,;=:[]%@", c) < 0 {
			return false
		}
	}
	return true
}
