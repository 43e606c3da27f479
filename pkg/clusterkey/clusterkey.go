// Package clusterkey says what a key is by which an Envoy opens its gateway, for all who take one.
package clusterkey

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Least and Most are how many characters a key has. What is shorter can be guessed, or found by its hash.
const (
	Least = 16
	Most  = 512
)

// Check says what is wrong with a key, in words that follow its name; nil where nothing is. It never repeats the key.
func Check(key string) error {
	if len(key) < Least || len(key) > Most {
		return fmt.Errorf("has %d characters; a key of an Envoy has %d to %d: make one with openssl rand -hex 32",
			len(key), Least, Most)
	}
	for _, c := range []byte(key) {
		if c < '!' || c > '~' {
			return fmt.Errorf("has a space or a character beyond ASCII; make one with openssl rand -hex 32")
		}
	}
	return nil
}

// Sum is what is stored in the place of a key: its SHA-256, in hexadecimal.
func Sum(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
