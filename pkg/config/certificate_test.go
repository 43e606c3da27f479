package config_test

import (
	"testing"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// TestKeylessCertificate: a certificate that is only trusted cannot be presented, whichever of the two is written
// last.
func TestKeylessCertificate(t *testing.T) {
	object := func(kind, name, spec string) *resource.Object {
		t.Helper()
		k, _ := resource.KindByName(kind)
		m, v := resource.DecodeSpec(k, []byte(spec))
		if len(v) > 0 {
			t.Fatal(v)
		}
		o, err := resource.New(resource.Ref{Kind: kind, Name: name}, m)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	const with, without = `{"chain":"x","private_key":"y"}`, `{"chain":"x"}`
	for _, user := range []struct{ kind, spec, path string }{
		{"Gateway", `{"listeners":[{"name":"a","port":1,"protocol":"https","certificates":["c"]}]}`, "$.listeners[0].certificates[0]"},
		{"Gateway", `{"listeners":[{"name":"a","port":1,"protocol":"https","certificates":["d"],"client_auth":[{"hosts":["a"],"ca_certificate":"d","certificates":["c"]}]}]}`, "$.listeners[0].client_auth[0].certificates[0]"},
		{"Service", `{"tls":{"client_certificate":"c"}}`, "$.tls.client_certificate"},
		{"Service", `{"tls":{"ca_certificate":"c"}}`, ""},
	} {
		st := config.New()
		st.Apply([]*resource.Object{object("Certificate", "c", without), object("Certificate", "d", with)})
		changes, undo := st.Apply([]*resource.Object{object(user.kind, "u", user.spec)})
		refused(t, st.Check(changes), user.path)
		undo()
		st.Apply([]*resource.Object{object("Certificate", "c", with), object(user.kind, "u", user.spec)})
		changes, _ = st.Apply([]*resource.Object{object("Certificate", "c", without)})
		want := "$.private_key"
		if user.path == "" {
			want = ""
		}
		refused(t, st.Check(changes), want)
	}
}

func refused(t *testing.T, found []config.Problem, path string) {
	t.Helper()
	if path == "" && len(found) == 0 || len(found) == 1 && found[0].Path == path && found[0].Rule == "certificate.key" {
		return
	}
	t.Errorf("found %v, want a problem at %q", found, path)
}
