// Package security holds the cases that an attacker would try, one file an area, against the real system: each is a
// hole that was closed, and fails where it opens again. docs/threat-model.md names them line by line. `make
// check-security` runs them alone.
package security
