package filterconfig

import (
	"slices"
	"testing"
)

func TestHeaders(t *testing.T) {
	for _, headers := range [][]Header{nil, {{"", ""}}, {{":path", "/"}, {"a", ""}, {"a", "b\x00c"}}} {
		if got, valid := DecodeHeaders(EncodeHeaders(headers)); !valid || !slices.Equal(got, headers) {
			t.Errorf("%q comes back as %q, %v", headers, got, valid)
		}
	}
	good := EncodeHeaders([]Header{{"name", "value"}})
	for n := 1; n < len(good); n++ {
		if _, valid := DecodeHeaders(good[:n]); valid {
			t.Errorf("the first %d of %d bytes are taken for headers", n, len(good))
		}
	}
	for i, what := range map[int]string{
		0: "more headers than there are", 3: "very many headers", 4: "a name that is longer", 7: "a very long name",
		16: "a byte of a name for its zero", len(good) - 1: "no zero at the end",
	} {
		bad := slices.Clone(good)
		bad[i] ^= 0x81
		if _, valid := DecodeHeaders(bad); valid {
			t.Errorf("%s: taken", what)
		}
	}
	if _, valid := DecodeHeaders(append(slices.Clone(good), 0)); valid {
		t.Error("a byte too many is taken")
	}
	if _, valid := DecodeHeaders([]byte{1, 0, 0, 0, 0, 0, 0, 0}); valid {
		t.Error("a header without its lengths is taken")
	}
}
