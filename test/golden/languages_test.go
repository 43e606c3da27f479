package golden

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// texts is how many random texts of each language Envoy is shown; MARCHPROXY_TEXTS asks for more.
const texts = 250

// languages are those that Envoy reads in texts of ours: where they stand, and the pieces of them.
var languages = map[string]struct {
	spec   string // with %s for the text in JSON
	pieces []string
}{
	"regex": {
		`{"path":{"regex":%s},"direct_response":{"status":200}}`,
		[]string{
			"a", "b", "/", ".", "*", "+", "?", "|", "(", ")", "(?:", "(?i)", "(?P<n>", "(?<n>", "(?s:", "(?U)", "(?=", "(?!",
			"[", "]", "[^", "-", "{2}", "{1,3}", "{0,}", "{1000}", "{1001}", "{,2}", "^", "$",
			`\d`, `\D`, `\w`, `\s`, `\b`, `\B`, `\A`, `\z`, `\Z`, `\Q`, `\E`, `\C`, `\pL`, `\p{L}`, `\P{Greek}`, `\p{^Lu}`,
			`\p{Cn}`, `\x41`, `\x{41}`, `\x{e9}`, `\x{100}`, `\101`, `\0`, `\1`, `\n`, `\t`, `\v`, `\a`, `\h`, `\R`, `\X`, `\K`,
			`\/`, `\-`, `\é`, "é", "日", "[[:alpha:]]", "[:digit:]", "[[:^space:]]", "[[:word:]]", "[a-", "z]", "[é-ü]", " ",
			"\t", "\"", "\u2028", "x*?", "++", "{", "}", ",", "\\",
		},
	},
	"substitution": {
		`{"path":{"prefix":"/"},"rewrite":{"regex":{"pattern":"(a)(b)|c","substitution":%s}},"backends":[{"service":"web"}]}`,
		[]string{`\0`, `\1`, `\2`, `\3`, `\9`, `\\`, `\`, "/", "a", "é", "%", "$1", "{}", "\t", " ", `\a`, "0", "1"},
	},
	"format": {
		`{"direct_response":{"status":200},"response_headers":{"set":[{"name":"x","value":%s}]}}`,
		[]string{
			"%", "%%", "REQ", "RESP", "TRAILER", "START_TIME", "PROTOCOL", "RESPONSE_CODE", "DURATION", "UPSTREAM_HOST",
			"ROUTE_NAME", "HOSTNAME", "NONSENSE", "ENVIRONMENT(HOME)", "FILE_CONTENT(/etc/passwd)",
			"(", ")", "(x)", "(x?y)", "(:path)", "(x-a?:authority)", "()", "(?)", "(x?)", "(X)", "(a b)", ":", ":5", ":0",
			":99999", ":-1", "%REQ(x)%", "%REQ(x?y):10%", "%REQ(:path)%", "%RESP(x)%", "%START_TIME%", "%START_TIME(%s)%",
			"%PROTOCOL%", "a", " ", "é", "\t", "{", "}", "\"",
			"%DOWNSTREAM_PEER_SERIAL%", "%GRPC_STATUS%", "%TRAILER(x):3%", "%METADATA(a)%", "%DYNAMIC_METADATA(a:b)%",
			"%CEL(x)%", "%UPSTREAM_METADATA(a)%", "%FILTER_STATE(x)%", "%REQ_WITHOUT_QUERY(x)%", "%RESPONSE_FLAGS%",
			"%RESPONSE_FLAGS_LONG%", "%STREAM_ID%", "%DURATION%", "%QUERY_PARAM(x)%", "%PATH(WQ:PATH)%",
		},
	},
}

// TestLanguages: of texts that Envoy reads as regular expressions, substitutions and formats, it takes those that the
// checks take. The texts are put together at random of the languages' pieces.
func TestLanguages(t *testing.T) {
	n := texts
	if v := os.Getenv("MARCHPROXY_TEXTS"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	e := startLive(t, nil)
	roots := rootsOf(t)
	for name, l := range languages {
		r := rand.New(rand.NewPCG(11, uint64(len(name))))
		st := config.New()
		objects := []*resource.Object{defaultGateway(t), object1(t, resource.KindService, "web", `{}`)}
		st.Apply(objects)
		before := built(t, st)
		var listeners []any
		said := map[int]string{} // the text by case
		taken, complaints := 0, 0
		show := func() {
			for i, why := range e.load(t, "lds", listeners) {
				if complaints++; complaints <= 10 {
					t.Errorf("%s %q: accepted by the checks, refused by Envoy: %.300s", name, said[i], why)
				}
			}
			listeners = nil
		}
		for range n {
			var b strings.Builder
			for range 1 + r.IntN(6) {
				b.WriteString(l.pieces[r.IntN(len(l.pieces))])
			}
			raw, err := json.Marshal(b.String())
			if err != nil {
				t.Fatal(err)
			}
			o := object1(t, resource.KindRoute, "r", fmt.Sprintf(l.spec, raw))
			if len(resource.Validate(o.Message())) > 0 {
				continue
			}
			changes, undo := st.Apply([]*resource.Object{o})
			if len(translate.Check(st, changes)) == 0 {
				said[taken] = b.String()
				ls, _ := alone(t, taken, differing(built(t, st), before), roots)
				taken++
				listeners = append(listeners, ls[1:]...) // without the one that has no table
			}
			undo()
			if len(listeners) == atOnce {
				show()
			}
		}
		show()
		t.Logf("%s: %d of %d taken", name, taken, n)
		if taken < n/50 {
			t.Errorf("%s: only %d of %d were taken by the checks", name, taken, n)
		}
	}
}

func object1(t testing.TB, kind, name, spec string) *resource.Object {
	t.Helper()
	k, _ := resource.KindByName(kind)
	m, v := resource.DecodeSpec(k, []byte(spec))
	if len(v) > 0 {
		t.Fatalf("%s: %v", spec, v)
	}
	o, err := resource.New(resource.Ref{Kind: kind, Name: name}, m)
	if err != nil {
		t.Fatal(err)
	}
	return o
}
