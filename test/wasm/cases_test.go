package wasm

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/jwtcases"
)

// TestCases: the filter's own reason for each case of the table.
func TestCases(t *testing.T) {
	all, err := jwtcases.Read()
	if err != nil {
		t.Fatal(err)
	}
	e := jwtcases.Filter()
	var rules object
	if err := json.Unmarshal([]byte("{"+jwtcases.Rules+"}"), &rules); err != nil {
		t.Fatal(err)
	}
	rules["keys"] = []jwk{
		{"main", "HS256", b64([]byte(jwtcases.Main))},
		{"other", "HS256", b64([]byte(jwtcases.Other))},
		{"hs384", "HS384", b64([]byte(jwtcases.Long))},
		{"hs512", "HS512", b64([]byte(jwtcases.Long))},
	}
	vm := start(t, "auth", object{"default_policy": "p", "policies": []object{{"name": "p", "jwt": rules}}})
	tried := 0
	for _, c := range all {
		if c.Only == "native" || c.Filter == "proxy" {
			continue
		}
		path, lines, err := c.Request(e, now.Unix())
		if err != nil {
			t.Fatal(err)
		}
		var headers []string
		for _, line := range lines { // as Envoy hands them over: unfolded, those of one name joined
			name, value, _ := strings.Cut(strings.ReplaceAll(line, "\r\n", ""), ":")
			name, value = strings.ToLower(name), strings.Trim(value, " \t")
			switch {
			case len(headers) == 0:
				headers = []string{name, value}
			case headers[0] != name:
				t.Fatalf("%s: several headers of different names", c.Name)
			case headers[1] == "":
				headers[1] = value
			default:
				headers[1] += "," + value
			}
		}
		tried++
		got := strings.TrimPrefix(refusedFor(send(t, vm, request(path, headers...))), "marchproxy_auth_")
		if want := strings.TrimPrefix(c.Filter, "ok"); got != want {
			t.Errorf("%s: %q, want %q, for %.300q", c.Name, got, want, lines)
		}
	}
	if tried < 150 {
		t.Errorf("only %d cases are tried", tried)
	}
}
