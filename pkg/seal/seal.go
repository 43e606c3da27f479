// Package seal keeps secrets sealed wherever they are stored or sent: in PostgreSQL, in events, on disk.
//
// SECRET_KEY is stretched by HKDF to an AES-256-GCM key. What is sealed is bound to the object and field
// that it belongs to, so that it opens nowhere else, and names its key, so that keys can be rotated: new
// values use the first key, old ones open with any. What need not be secret and must not be made up is signed
// (HMAC-SHA-256) by keys that are stretched from the same.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// MinKey is the shortest SECRET_KEY, in characters.
const MinKey = 16

const prefix = "sealed:v1:"

// Box seals and opens.
type Box struct {
	first string
	keys  map[string]keys
}

// keys are what one secret is stretched to: one key a use.
type keys struct {
	seal cipher.AEAD
	sign []byte
}

// New makes a box of one secret, or several separated by commas: the first one seals.
func New(secrets string) (*Box, error) {
	b := &Box{keys: map[string]keys{}}
	for s := range strings.SplitSeq(secrets, ",") {
		s = strings.TrimSpace(s)
		if len(s) < MinKey {
			return nil, fmt.Errorf("SECRET_KEY must have at least %d characters", MinKey)
		}
		raw, err := hkdf.Key(sha256.New, []byte(s), nil, "marchproxy seal v1", 32+4)
		if err != nil {
			return nil, fmt.Errorf("seal: %w", err)
		}
		block, err := aes.NewCipher(raw[:32])
		if err != nil {
			return nil, fmt.Errorf("seal: %w", err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("seal: %w", err)
		}
		id := hex.EncodeToString(raw[32:])
		if b.first == "" {
			b.first = id
		}
		sign, err := hkdf.Key(sha256.New, []byte(s), nil, "marchproxy sign v1", sha256.Size)
		if err != nil {
			return nil, fmt.Errorf("seal: %w", err)
		}
		b.keys[id] = keys{aead, sign}
	}
	return b, nil
}

// Sealed says whether a value is sealed already.
func Sealed(value string) bool { return strings.HasPrefix(value, prefix) }

// Seal seals a value for an object's field.
func (b *Box) Seal(value, kind, name, field string) string {
	out := b.keys[b.first].seal.Seal(nil, nil, []byte(value), place(kind, name, field))
	return prefix + b.first + ":" + base64.RawStdEncoding.EncodeToString(out)
}

// Current says whether a value is sealed with the key that seals now, and not with an older one.
func (b *Box) Current(sealed string) bool { return strings.HasPrefix(sealed, prefix+b.first+":") }

// Open opens what [Box.Seal] sealed for the same object and field.
func (b *Box) Open(sealed, kind, name, field string) (string, error) {
	rest, ok := strings.CutPrefix(sealed, prefix)
	id, body, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 {
		return "", errors.New("not sealed")
	}
	k, known := b.keys[id]
	if !known {
		return "", fmt.Errorf("sealed with another SECRET_KEY (key %s)", id)
	}
	raw, err := base64.RawStdEncoding.DecodeString(body)
	if err != nil || base64.RawStdEncoding.EncodeToString(raw) != body { // spare bits and line ends are not sealed
		return "", errors.New("sealed value is damaged")
	}
	plain, err := k.seal.Open(nil, nil, raw, place(kind, name, field))
	if err != nil {
		return "", errors.New("sealed value is damaged, or belongs to another object")
	}
	return string(plain), nil
}

func place(kind, name, field string) []byte { return []byte(kind + "\x00" + name + "\x00" + field) }

// Sign signs data for one purpose, and names the key.
func (b *Box) Sign(purpose string, data []byte) (key string, signature []byte) {
	return b.first, b.keys[b.first].signature(purpose, data)
}

// Signs says whether a key, as [Box.Sign] names it, is the one that signs now.
func (b *Box) Signs(key string) bool { return key == b.first }

// Signed says whether [Box.Sign] has made a signature with the key that is named, and whether that key is here at all.
func (b *Box) Signed(key, purpose string, data, signature []byte) (signed, known bool) {
	k, known := b.keys[key]
	return known && hmac.Equal(k.signature(purpose, data), signature), known
}

func (k keys) signature(purpose string, data []byte) []byte {
	h := hmac.New(sha256.New, k.sign)
	h.Write([]byte(purpose + "\x00"))
	h.Write(data)
	return h.Sum(nil)
}
