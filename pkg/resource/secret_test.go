package resource

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

// secretName is how a field is called that may be a secret.
var secretName = regexp.MustCompile(
	`key|secret|token|passw|hash|sha|digest|credential|private|cert|sign|auth|seal|value|pem|chain|jwks`,
)

// harmless are the fields that are called as if they were secrets and are none, and why.
var harmless = map[string]string{
	"AccessLog.FieldsEntry.key":      "a field's name in the log",
	"AccessLog.FieldsEntry.value":    "a format of the log, of what requests and responses have",
	"Certificate.chain":              "is shown to every client",
	"ClientAuth.ca_certificate":      "a Certificate's name",
	"ClientAuth.certificates":        "Certificates' names",
	"Gateway.auth_policy":            "an AuthPolicy's name",
	"Gateway.certificate_issuer":     "a CertificateIssuer's name",
	"ExternalAccount.key_id":         "what an authority calls a key",
	"Rfc2136.key_name":               "what a name server calls a key",
	"Jwt.jwks":                       "public keys: the rules refuse others (TestRefusedKeySets)",
	"JwtKey.public_key":              "is public: the rules refuse private keys",
	"Listener.certificates":          "Certificates' names",
	"Route.auth_policy":              "an AuthPolicy's name",
	"UpstreamTls.ca_certificate":     "a Certificate's name",
	"UpstreamTls.client_certificate": "a Certificate's name, whose key is sealed there",
	"HeaderValue.value": "what requests or responses get; a password there is in every request, " +
		"and docs/threat-model.md says so",
	"RequiredClaim.values":                    "what a claim may be",
	"RateLimitPolicy.NodeSelectorEntry.key":   "a label's name",
	"RateLimitPolicy.NodeSelectorEntry.value": "a label",
}

// TestSecretsAreMarked: a field of the schema that is called as secrets are is marked as one, or known to be none. A
// secret that nobody has marked would be stored as it is, and shown.
func TestSecretsAreMarked(t *testing.T) {
	marked, asked := 0, map[string]bool{}
	var walk func(d protoreflect.MessageDescriptor, above map[protoreflect.FullName]bool)
	walk = func(d protoreflect.MessageDescriptor, above map[protoreflect.FullName]bool) {
		if above[d.FullName()] {
			return
		}
		above[d.FullName()] = true
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			name := strings.TrimPrefix(string(f.FullName()), "marchproxy.config.v1.")
			use, _ := proto.GetExtension(f.Options(), configv1.E_Secret).(configv1.Secret)
			switch {
			case use != configv1.Secret_SECRET_UNSPECIFIED:
				marked++
				if harmless[name] != "" {
					t.Errorf("%s is marked, and listed as harmless", name)
				}
			case f.Kind() != protoreflect.StringKind && f.Kind() != protoreflect.BytesKind:
			case secretName.MatchString(string(f.Name())):
				if asked[name] = true; harmless[name] == "" {
					t.Errorf("is %s a secret? Mark it with (marchproxy.config.v1.secret), or say here why it is none", name)
				}
			}
			if f.Message() != nil {
				walk(f.Message(), above)
			}
		}
	}
	for _, k := range Kinds {
		walk(k.New().ProtoReflect().Descriptor(), map[protoreflect.FullName]bool{"google.protobuf.Duration": true})
	}
	for name := range harmless {
		if !asked[name] {
			t.Errorf("%s is listed as harmless, and not asked for", name)
		}
	}
	if marked < 7 {
		t.Errorf("only %d fields are marked", marked)
	}
}

// TestSecrets: secrets are found wherever they are, called as they were sealed for, and left out of what is shown. What
// databases have was sealed for these names: another one opens nothing of it.
func TestSecrets(t *testing.T) {
	for kind, c := range map[string]struct{ spec, fields, paths, shown string }{
		KindCertificate: {`{"chain":"c","private_key":"k"}`, "private_key", "$.private_key", `{"chain":"c"}`},
		KindLicense:     {`{"key":"k","max_proxies":2}`, "key", "$.key", `{"max_proxies":2}`},
		KindAuthPolicy: {
			`{"jwt":{"keys":[{"kid":"a.b","algorithm":"HS256","secret":"s"},{"kid":"c","public_key":"p"}]},` +
				`"tokens":[{"name":"ci","value":"v","sha256":"d"}]}`,
			"jwt.keys.a.b.secret jwt.keys.c.secret tokens.ci.value tokens.ci.sha256",
			"$.jwt.keys[0].secret $.jwt.keys[1].secret $.tokens[0].value $.tokens[0].sha256",
			`{"jwt":{"keys":[{"kid":"a.b","algorithm":"HS256"},{"kid":"c","public_key":"p"}]},"tokens":[{"name":"ci"}]}`,
		},
		KindGateway: {
			`{"api_keys":[{"name":"k","key":"v","sha256":"d"}]}`, "api_keys.k.key api_keys.k.sha256",
			"$.api_keys[0].key $.api_keys[0].sha256",
			`{"api_keys":[{"name":"k"}]}`,
		},
		KindRoute: {`{"hosts":["a.test"]}`, "", "", `{"hosts":["a.test"]}`},
	} {
		k, _ := KindByName(kind)
		m, v := DecodeSpec(k, []byte(c.spec))
		if len(v) > 0 {
			t.Fatal(v)
		}
		was := proto.Clone(m)
		var fields, paths []string
		for _, s := range Secrets(m) {
			fields, paths = append(fields, s.Field), append(paths, s.Path)
		}
		if got := strings.Join(fields, " "); got != c.fields {
			t.Errorf("%s: the secrets are called %s, want %s", kind, got, c.fields)
		}
		if got := strings.Join(paths, " "); got != c.paths {
			t.Errorf("%s: the secrets are at %s, want %s", kind, got, c.paths)
		}
		shown, err := CanonicalSpec(Redacted(m))
		var got, want any
		if json.Unmarshal(shown, &got) != nil || json.Unmarshal([]byte(c.shown), &want) != nil || err != nil ||
			string(shown) != c.shown {
			t.Errorf("%s: shown as %s, want %s (%v)", kind, shown, c.shown, err)
		}
		if !proto.Equal(m, was) {
			t.Errorf("%s: showing it has changed it", kind)
		}
	}
}
