package config_test

import (
	"testing"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

func object(t *testing.T, kind, name, spec string) *resource.Object {
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

// TestKeylessCertificate: a certificate that is only trusted cannot be presented, whichever of the two is written
// last.
func TestKeylessCertificate(t *testing.T) {
	const with, without = `{"chain":"x","private_key":"y"}`, `{"chain":"x"}`
	for _, user := range []struct{ kind, spec, path string }{
		{
			"Gateway", `{"listeners":[{"name":"a","port":1,"protocol":"https","certificates":["c"]}]}`,
			"$.listeners[0].certificates[0]",
		},
		{
			"Gateway", `{"listeners":[{"name":"a","port":1,"protocol":"https","certificates":["d"],` +
				`"client_auth":[{"hosts":["a"],"ca_certificate":"d","certificates":["c"]}]}]}`,
			"$.listeners[0].client_auth[0].certificates[0]",
		},
		{"Service", `{"tls":{"client_certificate":"c"}}`, "$.tls.client_certificate"},
		{"Service", `{"tls":{"ca_certificate":"c"}}`, ""},
	} {
		st := config.New()
		st.Apply([]*resource.Object{object(t, "Certificate", "c", without), object(t, "Certificate", "d", with)})
		changes, undo := st.Apply([]*resource.Object{object(t, user.kind, "u", user.spec)})
		refused(t, st.Check(changes), user.path)
		undo()
		st.Apply([]*resource.Object{object(t, "Certificate", "c", with), object(t, user.kind, "u", user.spec)})
		changes, _ = st.Apply([]*resource.Object{object(t, "Certificate", "c", without)})
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

// TestCertificateNamesListeners is what a certificate may name, and what may be taken from a listener.
func TestCertificateNamesListeners(t *testing.T) {
	certificate := func(name, rest string) *resource.Object {
		return object(t, "Certificate", name, `{"chain":"x","private_key":"y"`+rest+`}`)
	}
	gateway := func(name, listeners string) *resource.Object {
		return object(t, "Gateway", name, `{"listeners":[{"name":"http","port":1}`+listeners+`]}`)
	}
	gone := func(kind, name string) *resource.Object {
		return resource.Tombstone(resource.Ref{Kind: kind, Name: name}, 1)
	}
	const (
		https = `,{"name":"https","port":2,"protocol":"https"}`
		lists = `,{"name":"https","port":2,"protocol":"https","certificates":["b"]}`
		plain = `,{"name":"https","port":2}`
		names = `,"gateways":["default"]`
	)
	for _, c := range []struct {
		what          string
		before, write []*resource.Object
		path, rule    string
	}{
		{"all https listeners", nil, []*resource.Object{gateway("default", https), certificate("a", names)}, "", ""},
		{"listeners of the default gateway", nil, []*resource.Object{
			certificate("a", `,"listeners":["https"]`),
			gateway("default", https),
		}, "", ""},
		{
			"a gateway that is not there", nil,
			[]*resource.Object{certificate("a", `,"gateways":["edge"]`)},
			"$.gateways[0]",
			"reference.dangling",
		},
		{"a listener that is not there", nil, []*resource.Object{
			gateway("default", lists), certificate("b", ""),
			certificate("a", `,"listeners":["https","other"]`),
		}, "$.listeners[1]", "reference.listener"},
		{
			"a listener without TLS", nil,
			[]*resource.Object{gateway("default", ""), certificate("a", `,"listeners":["http"]`)},
			"$.listeners[0]", "reference.listener",
		},
		{"without a key", nil, []*resource.Object{
			gateway("default", lists), certificate("b", ""),
			object(t, "Certificate", "a", `{"chain":"x"`+names+`}`),
		}, "$.private_key", "certificate.key"},
		{
			"no certificate at all", nil,
			[]*resource.Object{gateway("default", https)},
			"$.listeners[1].certificates",
			"gateway.certificates",
		},
		{
			"the last one is deleted",
			[]*resource.Object{gateway("default", https), certificate("a", names)},
			[]*resource.Object{gone("Certificate", "a")},
			"$", "reference.in_use",
		},
		{
			"the last one names it no more",
			[]*resource.Object{gateway("default", https), certificate("a", names)},
			[]*resource.Object{certificate("a", "")},
			"$.gateways", "reference.in_use",
		},
		{
			"another one comes with the same write",
			[]*resource.Object{gateway("default", https), certificate("a", names)},
			[]*resource.Object{gone("Certificate", "a"), certificate("c", names)},
			"", "",
		},
		{
			"the list has one",
			[]*resource.Object{certificate("b", ""), gateway("default", lists), certificate("a", names)},
			[]*resource.Object{gone("Certificate", "a")},
			"", "",
		},
		{
			"the list is emptied",
			[]*resource.Object{certificate("b", ""), gateway("default", lists), certificate("a", names)},
			[]*resource.Object{gateway("default", https)},
			"", "",
		},
		{
			"the list is emptied, and nothing names it",
			[]*resource.Object{certificate("b", ""), gateway("default", lists)},
			[]*resource.Object{gateway("default", https)},
			"$.listeners[1].certificates", "gateway.certificates",
		},
		{
			"a listener is taken away that is named",
			[]*resource.Object{gateway("default", https), certificate("a", `,"listeners":["https"]`)},
			[]*resource.Object{gateway("default", "")},
			"$.listeners", "reference.in_use",
		},
		{
			"a listener that is named loses TLS",
			[]*resource.Object{gateway("default", https), certificate("a", `,"listeners":["https"]`)},
			[]*resource.Object{gateway("default", plain)},
			"$.listeners", "reference.in_use",
		},
		{
			"all of its https listeners go",
			[]*resource.Object{gateway("default", https), certificate("a", names)},
			[]*resource.Object{gateway("default", "")},
			"", "",
		},
		{
			"a gateway that is named is deleted",
			[]*resource.Object{gateway("edge", https), certificate("a", `,"gateways":["edge"]`)},
			[]*resource.Object{gone("Gateway", "edge")},
			"$", "reference.in_use",
		},
	} {
		st := config.New()
		st.Apply(c.before)
		changes, _ := st.Apply(c.write)
		found := st.Check(changes)
		if c.rule == "" && len(found) == 0 || len(found) == 1 && found[0].Path == c.path && found[0].Rule == c.rule {
			continue
		}
		t.Errorf("%s: found %v, want %s at %q", c.what, found, c.rule, c.path)
	}
}
