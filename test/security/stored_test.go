package security

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

// disk is every file of a part of the system, as a backup or a stolen disk has it.
func disk(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		out[path], err = os.ReadFile(path)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func within(files map[string][]byte, text string) (path string, found bool) {
	for path, raw := range files {
		if bytes.Contains(raw, []byte(text)) {
			return path, true
		}
	}
	return "", false
}

// TestStored: who has the files of PostgreSQL, of NATS or of the xDS server has no private key, no secret of a policy,
// no token and no key of a gateway. The first two hold the rest of the configuration in clear, and the xDS server's
// none of it, in files of its user alone.
func TestStored(t *testing.T) {
	s := harness.ForTest(t, nil, "--no-demo")
	w := &sentinels{t: t, forms: map[string][]written{}}
	chain, private := w.private("the private key", "stored.example.com")
	const (
		hmacSecret = "an-hmac-secret-that-no-disk-shows-0123456789"
		opaque     = "an-opaque-token-that-no-disk-shows"
		clusterKey = "a-cluster-key-that-no-disk-shows"
		plain      = "what-a-route-says-is-no-secret"
	)
	token := s.Want(t, "POST", s.API+"/v1/tokens", `{"name":"stored","role":"operator"}`, 201)["token"].(string)
	first, err := s.Token()
	if err != nil {
		t.Fatal(err)
	}
	for path, spec := range map[string]any{
		"certificates/stored": map[string]string{"chain": chain, "private_key": private},
		"auth-policies/stored": map[string]any{
			"tokens": []any{map[string]string{"name": "t", "value": opaque}},
			"jwt":    map[string]any{"keys": []any{map[string]string{"kid": "k", "algorithm": "HS256", "secret": hmacSecret}}},
		},
		"gateways/stored": map[string]any{
			"listeners": []any{map[string]any{"name": "http", "port": 10079}},
			"api_keys":  []any{map[string]string{"name": "k", "key": clusterKey}},
		},
		"routes/stored": map[string]any{
			"hosts": []string{"stored.example.com"}, "direct_response": map[string]any{"status": 200, "body": plain},
		},
	} {
		s.Want(t, "PUT", s.API+"/v1/"+path, map[string]any{"spec": spec}, 201)
	}
	s.Want(t, "PUT", s.API+"/v1/routes/after?wait=live", `{"spec":{"direct_response":{"status":200}}}`, 201)

	secrets := map[string]string{
		"the policy's secret": hmacSecret, "the opaque token": opaque,
		"the gateway's key": clusterKey, "a token of the api": token, "the first token": first,
	}
	for what, secret := range secrets {
		w.add(what, []byte(secret))
	}
	places := map[string]map[string][]byte{}
	for _, part := range []string{"postgres/data", "nats", "xds", "log"} {
		places[part] = disk(t, filepath.Join(s.Dir, filepath.FromSlash(part)))
		for path, raw := range places[part] {
			for _, what := range w.in(raw) {
				t.Errorf("%s is in %s", what, path)
			}
		}
		for what, secret := range secrets {
			digest := sha256.Sum256([]byte(secret))
			// Its hash is how PostgreSQL knows a token of the api again.
			if sum := string(digest[:]); part == "postgres/data" && strings.HasPrefix(secret, "mp_") {
				if _, found := within(places[part], sum); !found {
					if _, found = within(places[part], hex.EncodeToString(digest[:])); !found {
						t.Errorf("%s has left no SHA-256", what)
					}
				}
			}
		}
	}
	if _, found := within(places["postgres/data"], plain); !found {
		t.Error("PostgreSQL's files show nothing of the configuration: this test looks at the wrong ones")
	}
	if _, found := within(places["nats"], plain); !found {
		t.Error("NATS' files show nothing of the configuration: this test looks at the wrong ones")
	}
	if len(places["xds"]) == 0 {
		t.Error("the xDS server has no files: this test looks at the wrong place")
	}
	for path, raw := range places["xds"] {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(path) == ".wasm" {
			continue // a filter's code, which Envoy reads
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		if bytes.Contains(raw, []byte(plain)) || bytes.Contains(raw, []byte("stored.example.com")) {
			t.Errorf("%s shows the configuration", path)
		}
	}
}
