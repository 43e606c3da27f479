package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/marchproxy/marchproxy/test/wasm/forge"
)

// explanation is a disagreement that is meant to be.
type explanation struct {
	// other is who disagrees; "" for anyone.
	other string
	// ours is the filter's reason, "" where it lets pass.
	ours string
	// odd is what must be true of the case.
	odd string
}

// explained lists every known disagreement. The table in docs/filters.md says why the filter decides so.
var explained = []explanation{
	{"", "ambiguous", "two headers"},
	{"", "missing", "token in the query"},
	{"", "too_long", "longer than 8192"},
	{"", "malformed", "leftover bits"},
	{"", "malformed", "has crit"},
	{"", "malformed", "has b64"},
	{"", "malformed", "header names a member twice"},
	{"", "malformed", "header not UTF-8"},
	{"", "malformed", "header lone surrogate"},
	{"", "malformed", "header not JSON"},
	{"", "malformed", "header too deep or too large"},
	{"", "malformed", "kid no string"},
	{"", "unknown_key", "kid empty"},
	{"", "type", "typ no string"},
	{"", "claims", "claims names a member twice"},
	{"", "claims", "claims not UTF-8"},
	{"", "claims", "claims lone surrogate"},
	{"", "claims", "claims not JSON"},
	{"", "claims", "claims too deep or too large"},
	{"", "claims", "date out of range"},
	{"", "claims", "exp no number"},
	{"", "claims", "nbf no number"},
	{"", "claims", "iat no number"},
	{"", "claims", "iss no string"},
	{"", "claims", "aud not only strings"},
	{"", "claims", "sub no string"},
	{"", "claims", "jti no string"},
	{"jwt_authn", "issued_later", "has iat"},
	{"jwt_authn", "malformed", "not three parts"},
	{"jwt_authn", "malformed", "junk after the token"},
	{"jwt_authn", "scheme", "no scheme"},
	{"", "expired", "at the very second"},
	{"", "not_yet", "at the very second"},
	{"", "issued_later", "at the very second"},
	{"golang-jwt", "", "more spaces"},
	{"go-jose", "", "more spaces"},
	{"go-jose", "", "has jwk"},
	{"go-jose", "", "nonce no string"},
	// It encodes the parts anew before it checks the signature.
	{"go-jose", "signature", "leftover bits"},
	{"go-jose", "algorithm", "leftover bits"},
	{"jwt_authn", "", "scheme in other case"},
	{"jwt_authn", "", "number beyond a double"},
}

type opinion struct {
	who string
	err error
}

// tally counts agreement and disagreement. It may be used by several goroutines.
type tally struct {
	sync.Mutex
	cases, passed map[string]int
	known         map[string]int
	unknown       map[string][]string
	alone         []string
}

func newTally() *tally {
	return &tally{
		cases: make(map[string]int), passed: make(map[string]int), known: make(map[string]int),
		unknown: make(map[string][]string),
	}
}

func (t *tally) add(number uint64, now int64, c forge.Case, ours string, others []opinion) {
	t.Lock()
	defer t.Unlock()
	refused := 0
	var odd map[string]bool
	for _, o := range others {
		t.cases[o.who]++
		if ours == "" {
			t.passed[o.who]++
		}
		if o.err != nil {
			refused++
		}
		if (o.err == nil) == (ours == "") {
			continue
		}
		if odd == nil {
			odd = oddities(c, now)
		}
		why := explain(o.who, ours, odd)
		answer := cmp.Or(ours, "passes")
		if why == "" {
			says := "accepts"
			if o.err != nil {
				says = o.err.Error()
			}
			var list []string
			for name, is := range odd {
				if is && name != "has kid" {
					list = append(list, name)
				}
			}
			slices.Sort(list)
			what := fmt.Sprintf("%s: the filter: %s; it: %.90s; oddities: %s", o.who, answer, says, strings.Join(list, ", "))
			t.unknown[what] = append(t.unknown[what], fmt.Sprint(number))
			continue
		}
		t.known[fmt.Sprintf("| %s | %s | %s |", o.who, answer, why)]++
	}
	// "bearer  token": each of the others takes one of the two spellings of RFC 6750, none takes both.
	if ours == "" && refused == len(others) && len(others) > 2 && (!odd["scheme in other case"] || !odd["more spaces"]) {
		t.alone = append(t.alone, fmt.Sprintf("case %d of %s: %q", number, others[0].who, c.Headers))
	}
}

// explain gives the first oddity on which the disagreement is known to rest.
func explain(who, ours string, odd map[string]bool) string {
	for _, e := range explained {
		if (e.other == "" || e.other == who) && e.ours == ours && odd[e.odd] {
			return e.odd
		}
	}
	return ""
}

func (t *tally) report() error {
	for _, who := range slices.Sorted(maps.Keys(t.cases)) {
		fmt.Printf("%s: %d cases, of which the filter passed %d\n", who, t.cases[who], t.passed[who])
	}
	fmt.Println("\n| other | the filter | because | cases |\n|---|---|---|---|")
	for _, k := range slices.Sorted(maps.Keys(t.known)) {
		fmt.Println(k, t.known[k], "|")
	}
	if len(t.unknown) == 0 && len(t.alone) == 0 {
		return nil
	}
	for _, k := range slices.SortedFunc(maps.Keys(t.unknown),
		func(a, b string) int { return len(t.unknown[b]) - len(t.unknown[a]) }) {
		fmt.Printf("NOT EXPLAINED %d× %s (case %s)\n", len(t.unknown[k]), k, t.unknown[k][0])
	}
	for _, a := range t.alone {
		fmt.Println("PASSED ALONE", a)
	}
	return errors.New("disagreements that nobody has explained")
}
