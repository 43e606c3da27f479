package seal_test

import (
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/seal"
)

const (
	old   = "the old secret key of this test"
	fresh = "the new secret key of this test"
)

func box(t testing.TB, secrets string) *seal.Box {
	t.Helper()
	b, err := seal.New(secrets)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSealed(t *testing.T) {
	b := box(t, old)
	for _, plain := range []string{"", "x", strings.Repeat("long", 10000), "\x00\xff", "sealed:v1:"} {
		s := b.Seal(plain, "Certificate", "site", "private_key")
		if !seal.Sealed(s) || (len(plain) > 3 && strings.Contains(s[10:], plain)) {
			t.Errorf("%.40q is not sealed", s)
		}
		if got, err := b.Open(s, "Certificate", "site", "private_key"); err != nil || got != plain {
			t.Errorf("%.40q: %v", got, err)
		}
		if s == b.Seal(plain, "Certificate", "site", "private_key") {
			t.Error("two seals of one value are equal")
		}
	}
	if seal.Sealed("plain") || seal.Sealed("") {
		t.Error("a plain value counts as sealed")
	}
}

// TestPlace: a sealed value opens nowhere but where it was put.
func TestPlace(t *testing.T) {
	b := box(t, old)
	s := b.Seal("x", "Certificate", "site", "private_key")
	for _, p := range [][3]string{
		{"Certificate", "other", "private_key"},
		{"AuthPolicy", "site", "private_key"},
		{"Certificate", "site", "chain"},
		{"Certificate", "siteprivate_key", ""},
		{"", "", ""},
	} {
		if got, err := b.Open(s, p[0], p[1], p[2]); err == nil {
			t.Errorf("opens at %v: %q", p, got)
		}
	}
}

func TestRotation(t *testing.T) {
	was := box(t, old).Seal("x", "K", "n", "f")
	both := box(t, fresh+", "+old)
	if got, err := both.Open(was, "K", "n", "f"); err != nil || got != "x" {
		t.Error(got, err)
	}
	now := both.Seal("x", "K", "n", "f")
	if both.Current(was) || !both.Current(now) || both.Current("") {
		t.Error("the key that seals now is not told from the older one")
	}
	if got, err := box(t, fresh).Open(now, "K", "n", "f"); err != nil || got != "x" {
		t.Error("what is sealed now needs the old key:", got, err)
	}
	if _, err := box(t, fresh).Open(was, "K", "n", "f"); err == nil ||
		!strings.Contains(err.Error(), "another SECRET_KEY") {
		t.Error(err)
	}
}

func TestShortKey(t *testing.T) {
	for _, s := range []string{"", "short", "              .", old + ",", old + ",short"} {
		if _, err := seal.New(s); err == nil || !strings.Contains(err.Error(), "at least 16 characters") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// FuzzOpen: no bytes bring Open down, and nothing opens that was not sealed.
func FuzzOpen(f *testing.F) {
	b := box(f, fresh+","+old)
	sealed := b.Seal("x", "K", "n", "f")
	for _, s := range []string{
		"", "x", "sealed:v1:", "sealed:v1::", sealed, sealed[:len(sealed)-1], sealed + "A",
		"sealed:v1:" + strings.Repeat("0", 8) + ":AAAA", strings.ToUpper(sealed),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := b.Open(s, "K", "n", "f"); err == nil && got != "x" {
			t.Errorf("%q opens as %q", s, got)
		}
	})
}

// FuzzTamper: whatever is changed in a sealed value, it does not open any more.
func FuzzTamper(f *testing.F) {
	b := box(f, old)
	f.Add("secret", uint16(3), byte(1), "n")
	f.Add("", uint16(40), byte(0x80), "other")
	f.Fuzz(func(t *testing.T, plain string, at uint16, flip byte, name string) {
		s := b.Seal(plain, "K", "n", "f")
		if got, err := b.Open(s, "K", name, "f"); (err == nil) != (name == "n") || (err == nil && got != plain) {
			t.Errorf("at %q: %q, %v", name, got, err)
		}
		raw := []byte(s)
		raw[int(at)%len(raw)] ^= flip
		if string(raw) == s {
			return
		}
		if got, err := b.Open(string(raw), "K", "n", "f"); err == nil {
			t.Errorf("altered at %d, it opens as %q", int(at)%len(raw), got)
		}
	})
}

// TestSigned: a signature is good for its data, purpose and key alone, and outlives a rotation.
func TestSigned(t *testing.T) {
	before, both, after := box(t, old), box(t, fresh+","+old), box(t, fresh)
	key, s := before.Sign("audit", []byte("data"))
	for what, c := range map[string]struct {
		b             *seal.Box
		key, purpose  string
		data          string
		signed, known bool
	}{
		"itself":          {before, key, "audit", "data", true, true},
		"after rotation":  {both, key, "audit", "data", true, true},
		"without its key": {after, key, "audit", "data", false, false},
		"other data":      {before, key, "audit", "date", false, true},
		"other purpose":   {before, key, "anchor", "data", false, true},
		"shifted":         {before, key, "audit\x00d", "ata", false, true},
		"no key":          {before, "", "audit", "data", false, false},
	} {
		if signed, known := c.b.Signed(c.key, c.purpose, []byte(c.data), s); signed != c.signed || known != c.known {
			t.Errorf("%s: %v %v", what, signed, known)
		}
	}
	otherKey, other := both.Sign("audit", []byte("data"))
	if signed, known := both.Signed(key, "audit", []byte("data"), other); signed || !known || otherKey == key {
		t.Error("a signature of another key is taken for this one's")
	}
	if signed, _ := before.Signed(key, "audit", []byte("data"), nil); signed {
		t.Error("no signature is one")
	}
}
