package auth

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"
	"golang.org/x/text/unicode/norm"
)

// cost is what one look at a password takes, by OWASP's list: who has stolen the hashes pays it for each guess.
var cost = &argon2id.Params{Memory: 19 * 1024, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// atOnce bounds the memory that passwords take while they are looked at: anybody may send one.
var atOnce = make(chan struct{}, 4)

// turn waits until one more may be looked at, and returns what ends that.
func turn(ctx context.Context) (done func(), err error) {
	select {
	case atOnce <- struct{}{}:
		return func() { <-atOnce }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

const (
	// MinPassword is how many characters a password has at least.
	MinPassword = 12
	// MaxPassword is how many it has at most: one that is longer costs more to read than to guess.
	MaxPassword = 256
)

// CheckNewPassword says what is wrong with a password that somebody chooses, and "" where it can be taken.
func CheckNewPassword(password, name string) string {
	n := utf8.RuneCountInString(password)
	switch {
	case !utf8.ValidString(password):
		return "is not UTF-8"
	case n < MinPassword || n > MaxPassword:
		return fmt.Sprintf("has %d characters; give it %d to %d, such as four words that have nothing to do with each other",
			n, MinPassword, MaxPassword)
	case strings.EqualFold(password, name) || strings.Trim(password, password[:1]) == "":
		return "is the first that somebody would guess; choose another one"
	}
	return ""
}

// HashPassword makes what is stored of a password, as PHC writes it.
func HashPassword(ctx context.Context, password string) (string, error) {
	done, err := turn(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	return argon2id.CreateHash(norm.NFC.String(password), cost)
}

// nobody is a hash that no password fits, of the same cost: whether a name is known takes no other time.
var nobody = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// PasswordFits says whether a password is the one that a hash was made of; "" is no password's. It takes the same time
// whatever the answer is.
func PasswordFits(ctx context.Context, password, hash string) (bool, error) {
	if utf8.RuneCountInString(password) > MaxPassword {
		password = "" // fits nothing
	}
	done, err := turn(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	of := hash
	if of == "" {
		of = nobody
	}
	fits, err := argon2id.ComparePasswordAndHash(norm.NFC.String(password), of)
	return fits && hash != "", err
}
