// Package license knows what a license key looks like, and when a license ends.
//
// A key is PENG-XXXX-XXXX-XXXX-XXXX-CCCC, of the letters A to Z and the digits. The last group is a
// checksum over the rest: the first 20 bits of the SHA-256 of PENG-XXXX-XXXX-XXXX-XXXX, in the Base32 of
// RFC 4648 (A to Z, 2 to 7). It finds mistakes in typing, all but one in a million. It is no signature:
// who issues keys keeps a list of them.
package license

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"regexp"
	"strings"
	"time"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

// DefaultGrace is how long a license that has ended still works where it does not say.
const DefaultGrace = 14 * 24 * time.Hour

var form = regexp.MustCompile(`^PENG(-[A-Z0-9]{4}){5}$`)

// Checksum is the last group of a key that begins with PENG-XXXX-XXXX-XXXX-XXXX.
func Checksum(rest string) string {
	sum := sha256.Sum256([]byte(rest))
	return base32.StdEncoding.EncodeToString(sum[:])[:4]
}

// CheckKey says what is wrong with a key, in words that go after its name and do not repeat it.
func CheckKey(key string) error {
	if !form.MatchString(key) {
		return errors.New("must look like PENG-XXXX-XXXX-XXXX-XXXX-CCCC, of letters A to Z and digits")
	}
	i := strings.LastIndexByte(key, '-')
	if Checksum(key[:i]) != key[i+1:] {
		return errors.New("has a last group that does not fit the rest; check it for a mistake in typing")
	}
	return nil
}

// State is what a license is worth at a time.
type State string

// States.
const (
	Valid   State = "valid"
	Grace   State = "grace"   // it has ended, and everything still works
	Expired State = "expired" // what needs a feature is refused
	NoKey   State = "no_key"  // no feature is licensed
)

// Ends says when a license ends and how long it works after that; not ok for one without an end.
func Ends(l *configv1.License) (end time.Time, grace time.Duration, ok bool) {
	end, err := time.Parse(time.RFC3339, l.GetExpiresAt())
	if err != nil {
		return time.Time{}, 0, false
	}
	grace = DefaultGrace
	if g := l.GetGracePeriod(); g != nil {
		grace = g.AsDuration()
	}
	return end, grace, true
}

// At says what a license is worth.
func At(l *configv1.License, now time.Time) State {
	end, grace, ends := Ends(l)
	switch {
	case !l.GetFacts().GetHasKey():
		return NoKey
	case !ends || now.Before(end):
		return Valid
	case now.Before(end.Add(grace)):
		return Grace
	default:
		return Expired
	}
}
