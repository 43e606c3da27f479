package main

import (
	"time"

	"github.com/marchproxy/marchproxy/test/authority"
)

// lasts is for how long the check's certificates count.
const lasts = 90 * 24 * time.Hour

// certificate is a Certificate with a new key for a host.
func certificate(a *authority.Authority, name, host string) (object, error) {
	chain, key, err := a.Issue(authority.Server(lasts, host))
	return object{"kind": "Certificate", "name": name, "spec": object{"chain": chain, "private_key": key}}, err
}
