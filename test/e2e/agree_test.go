package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// TestValidateAgrees: what validate says of files without an api, apply says with one: both take them, or
// both refuse them.
func TestValidateAgrees(t *testing.T) {
	s := start(t, "--no-demo")
	c := &terminalOf{T: t, s: s, dir: t.TempDir()}
	route := func(envelope, spec string) string {
		return "kind: Route\nname: r\n" + envelope + "spec: " + spec + "\n"
	}
	const reply = `direct_response: {status: 200}`
	many := ""
	for i := range 33 {
		many += fmt.Sprintf("  l%d: x\n", i)
	}
	for name, x := range map[string]struct {
		text string
		good bool
	}{
		"good":                  {route("owner: me\nlabels: {a: ''}\n", "{hosts: [a.test], "+reply+"}"), true},
		"nothing":               {"", false},
		"an empty list":         {"resources: []\n", false},
		"an empty resource":     {"{}\n", false},
		"an empty spec":         {route("", "{}"), false},
		"a null spec":           {route("", "~"), false},
		"an unknown field":      {route("", "{host: a.test, "+reply+"}"), false},
		"an unknown kind":       {"kind: Banana\nname: r\nspec: {}\n", false},
		"a kind in small":       {"kind: route\nname: r\nspec: {" + reply + "}\n", false},
		"a name in capitals":    {"kind: Route\nname: R\nspec: {" + reply + "}\n", false},
		"an owner with spaces":  {route("owner: a b\n", "{"+reply+"}"), false},
		"33 labels":             {route("labels:\n"+many, "{"+reply+"}"), false},
		"a long label":          {route("labels: {a: "+strings.Repeat("x", 257)+"}\n", "{"+reply+"}"), false},
		"a null label":          {route("labels: {a: }\n", "{"+reply+"}"), false},
		"a host with a scheme":  {route("", `{hosts: ["http://a.test"], `+reply+"}"), false},
		"a service that is not": {route("", "{backends: [{service: nowhere}]}"), false},
		"two in one file":       {route("", "{"+reply+"}") + "---\n" + route("", "{"+reply+"}"), false},
		"a broken expression":   {route("", `{path: {regex: "("}, `+reply+"}"), false},
		"two listeners, a port": {
			"kind: Gateway\nname: g\nspec: {listeners: [{name: a, port: 81}, {name: b, port: 81}]}\n",
			false,
		},
		"a chain of nothing": {"kind: Certificate\nname: c\nspec: {chain: nothing}\n", false},
		"no gateway":         {route("", "{gateways: [nowhere], "+reply+"}"), false},
		"a port of 010":      {"kind: Service\nname: s\nspec: {endpoints: [{host: 127.0.0.1, port: 010}]}\n", false},
		"no endpoint":        {"kind: Service\nname: s\nspec: {endpoints: []}\n", true},
		"a date of no form":  {"kind: License\nname: l\nspec: {expires_at: soon}\n", false},
		"a date":             {"kind: License\nname: l\nspec: {expires_at: 2030-01-01T00:00:00Z}\n", true},
	} {
		c.file("f.yaml", x.text)
		for _, args := range [][]string{{"validate", "-f", "f.yaml"}, {"apply", "-f", "f.yaml", "--dry-run"}} {
			cmd := s.CLI(t.Context(), args...)
			cmd.Dir = c.dir
			out, err := cmd.CombinedOutput()
			if (err == nil) != x.good {
				t.Errorf("%s: %s ends with %v, good: %v\n%s", name, args[0], err, x.good, out)
			}
			if strings.Contains(string(out), "Go ") || strings.Contains(string(out), "unmarshal") ||
				strings.Contains(string(out), "regex pattern") {
				t.Errorf("%s: %s says, in words that are not for people:\n%s", name, args[0], out)
			}
		}
	}
}
