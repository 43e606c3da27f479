package command

import (
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// TestKinds: every kind is found by each of its names, whatever kinds there are.
func TestKinds(t *testing.T) {
	for _, k := range resource.Kinds {
		for _, word := range []string{
			k.Name, k.Path, k.Token, strings.ToUpper(k.Path), strings.ReplaceAll(k.Path, "-", ""),
			strings.ReplaceAll(k.Token, "_", "-"),
		} {
			if got, err := kindOf(word); err != nil || got.Name != k.Name {
				t.Errorf("%s is %s, %v", word, got.Name, err)
			}
		}
		if _, names, err := refs([]string{k.Path + "/a"}); err != nil || len(names) != 1 || names[0] != "a" {
			t.Error(names, err)
		}
	}
	if k, err := kindOf("cert"); err != nil || k.Name != resource.KindCertificate {
		t.Error(k.Name, err)
	}
	for _, word := range []string{"", "x", "routing"} {
		if _, err := kindOf(word); err == nil || !strings.Contains(err.Error(), "routes") {
			t.Errorf("%q: %v", word, err)
		}
	}
	if _, _, err := refs([]string{"routes/a", "b"}); err == nil {
		t.Error("kind/name and a name are taken")
	}
}

func TestSummary(t *testing.T) {
	for spec, want := range map[string]string{
		`{"hosts":["a","b","c","d"],"path":{"prefix":"/"},"backends":[{"service":"s","weight":1}],` +
			`"timeout":"5s","websocket":true}`: "hosts=a,b,c+1 path=/ backends=s:1 timeout=5s websocket=true",
		`{"chain":"-----BEGIN\nx"}`: "",
		`{}`:                        "",
		`nonsense`:                  "",
	} {
		if got := summary([]byte(spec), 80); got != want {
			t.Errorf("%s: %q", spec, got)
		}
	}
	if got := summary([]byte(`{"a":"äöüäöüäöü"}`), 5); got != "a=äö…" {
		t.Error(got)
	}
}

// TestRow: what somebody wrote into a message does not move the reader's cursor.
func TestRow(t *testing.T) {
	var b strings.Builder
	row(&b, "a\x1b[31m\nb\u009b", 1)
	if b.String() != "a [31m b \t1\n" {
		t.Errorf("%q", b.String())
	}
}
