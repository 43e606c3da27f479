package arbitrary

import (
	"slices"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// publicKeys are real ones, since they cannot be made up. Nobody has their private halves.
var publicKeys = map[configv1.JwtKey_Algorithm]string{
	configv1.JwtKey_RS256: `-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzDlC5zRmlRiv9LQzyrTx
lz2AnDeaYzhPMQndKnTMRNV6wcPVFj6DUpwsBOQAIvR6t2vUWYp4WXf+gPpLauMV
FzJ0OB/tRWSxkctTqLKbXIt0djQ/gdn9ycn+4hUlTzrtx8kyhsEnbaeLsTiaXm2x
fOsqUNZQlOt5+1ZorTcw6Kf0QFub9/lk0YXx5md+T3ckEXGQW5l5yQXnDPgec5YK
KfPQfsm2rUX8tFw+Z42Deg1BkfP0QG1xLkJL4Zzf64Mdq0oKy8xXQnzIJ6aAYzx0
llzg0CR27X/A5+1Yvf6RMGtm9p1JdYH6qgB1sfXMz/YIy6j9DnpTPIU2fOMIkqf9
9wIDAQAB
-----END PUBLIC KEY-----
`,
	configv1.JwtKey_ES256: `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAENlxV24vXBzqnzvOPND+Jij9sEila
9add1kvfPE8CR5Zsfne/dQzAcWcnw7hf8o866L7JkGO2eq7xg/fgJlom+g==
-----END PUBLIC KEY-----
`,
	configv1.JwtKey_ES384: `-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEOPWa6gZ2ZSv3MV2Daag0jxWrfGCEfzEA
9xGPtz7jaMGBHqVQN1BwpRk6/eURyesEDDOXbmBbAXln4V/EEBuOpIfbE1B0TSJR
MGCQF8JHZCmeEe9QMY1lYtukA6hD7bzU
-----END PUBLIC KEY-----
`,
	configv1.JwtKey_ES512: `-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQB0OoE6sFYmeTumoPhPF9bUeisDTN4
QY0emzaaislqUVhpTCjYoeLptkXx4nZFEWkdD72i4UXLrRMVb57T0Daa7EQBpbUf
xZzvPfwyudtSvEGSqdb24zIxjQcL3R1AVh/nJM5iXMtjgakI1C2w7maGznLeUjf/
ttyknEkMIwxd9A5Bv9A=
-----END PUBLIC KEY-----
`,
	configv1.JwtKey_EdDSA: `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA4CarmfBFm5dV7gG2xy9OnArJHLQl391jSnPWseivgPQ=
-----END PUBLIC KEY-----
`,
}

// jwksWords are key sets, good ones and others.
var jwksWords = []string{
	`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"d","x":"ipMt0-f-8FwQ6x-PtjYbpk_4ugUOGoKl6T3Qr7o9t8E"}]}`, `{"keys":[]}`,
	`{}`, "", "null", `{"keys":[{}]}`,
	`{"keys":[{"kty":"oct","k":"AAAA"}]}`, `{"keys":[{"kty":"EC","d":"AAAA"}]}`,
	`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`, "[",
}

// credentials makes a policy's keys and tokens such as the api stores: with the secret or the public key that the
// algorithm needs, and digests only.
func (s *source) credentials(p *configv1.AuthPolicy) {
	for _, k := range p.GetJwt().GetKeys() {
		k.Secret, k.PublicKey = "", ""
		switch a := k.GetAlgorithm(); {
		case config.IsHMAC(k):
			k.Secret, k.Encoding = strings.Repeat("0123456789abcdef", 4), configv1.JwtKey_text
		case a <= configv1.JwtKey_RS512:
			k.PublicKey = publicKeys[configv1.JwtKey_RS256]
		default:
			k.PublicKey = publicKeys[a]
		}
	}
	for _, t := range p.GetTokens() {
		t.Value, t.Sha256 = "", strings.Repeat(s.of([]string{"0a", "ff"}), 32)
	}
}

var (
	claimNames = []string{"sub", "scope", "roles", "a.b", "realm_access", " ", "https://x.example/y", "~", `"`, `\`}
	times      = []string{
		"", "2027-01-31T00:00:00Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z",
		"9999-12-31T23:59:59Z", "2027-02-30T00:00:00Z", "2027-01-31T00:00:00.123456789+14:00", "2027-01-31T24:00:00Z",
		"1969-12-31T23:59:59Z",
	}
	plainPaths = []string{"/", "/a", "/a/", "/a/b", "/a.b", "/~a", "/.", "/a/..", "/!$&'()*+,=:@", "/a/b/c/d/e/f"}
)

// credentialWords are those of AuthPolicy and License, as words.
var credentialWords = map[string][]string{
	"auth_policy": append(slices.Clone(names[resource.KindAuthPolicy]), config.NoPolicy, ""),
	"license":     append(slices.Clone(names[resource.KindLicense]), ""),
	"kid":         {"k1", "k2", "a/b", "="}, "jwks": jwksWords, "issuers": {
		"joe", "https://id.example.com",
		"é", "\x01", `"`,
	},
	"audiences": {"shop", "é", `\`, "\n"},
	"claim":     claimNames, "values": {"admin", "read", "a b", "é", ".*", `\`, "\x01"},
	"ForwardedClaim.header": {
		"x-user",
		"x-roles", "a", "x-license-key", "authorization", "host", "x-envoy-x", "cookie", "te",
	},
	"OpaqueToken.name": {"ci", "x", "t-3"}, "subject": {"", "ci", "a,b", " ", "~"}, "not_after": times,
	"expires_at": times, "ExemptPath.path": plainPaths, "FeatureGate.paths": plainPaths,
	"feature": {"multi-cloud", "numa", "a", "a.b_c-d", ""}, "features": {"multi-cloud", "numa", "a", "a.b_c-d"},
	"License.key": {""}, "RemoteJwks.path": {"/keys", "/%zz", "/a?b#c", "/", "/{}"},
	"RemoteJwks.host": {"", "id.example.com", "127.0.0.1:8080", "id.example.com:99999"},
}
