package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/marchproxy/marchproxy/pkg/audit"
)

// export is a chain after a point, as lines.
func export(after audit.Point, n int) []string {
	h := audit.Header{Format: audit.Format, After: after, Last: after}
	lines := []string{""}
	for i := range n {
		l := audit.Line{Record: audit.Record{
			N: h.Last.N + 1, At: fmt.Sprintf("2026-01-01T00:00:%02d.000000Z", i),
			Revision: int64(i), Actor: "<ci>", Message: "why\n" + strings.Repeat("x", i),
		}}
		for k := range i {
			l.Entries = append(l.Entries, audit.Entry{Kind: "Route", Name: fmt.Sprint("r", k), Action: "update"})
		}
		l.Hash = l.Sum(h.Last.Hash)
		h.Last = audit.Point{N: l.N, Hash: l.Hash}
		var b bytes.Buffer
		enc := audit.Encoder{W: &b}
		enc.Begin(l.Record)
		for _, e := range l.Entries {
			enc.Entry(e)
		}
		enc.End(l.Hash)
		lines = append(lines, strings.TrimSuffix(b.String(), "\n"))
	}
	raw, err := json.Marshal(h)
	if err != nil {
		panic(err)
	}
	lines[0] = string(raw)
	return lines
}

func TestCheck(t *testing.T) {
	for name, after := range map[string]audit.Point{"whole": {}, "part": {N: 41, Hash: strings.Repeat("ab", 32)}} {
		t.Run(name, func(t *testing.T) {
			lines := export(after, 9)
			check := func(lines []string, hash string) (audit.Result, error) {
				return audit.Check(strings.NewReader(strings.Join(lines, "\n")+"\n"), hash, nil)
			}
			whole, err := check(lines, "")
			if err != nil || whole.Records != 9 || whole.Entries != 36 || whole.Last.N != after.N+9 || whole.Found != nil ||
				whole.From > whole.To {
				t.Fatalf("%+v %v", whole, err)
			}
			if got, err := check(lines, whole.Last.Hash); err != nil || got.Found == nil || *got.Found != whole.Last.N {
				t.Errorf("its head: %+v %v", got, err)
			}
			if got, err := check(lines, strings.Repeat("0", 64)); err != nil || got.Found != nil {
				t.Errorf("another head: %+v %v", got, err)
			}
			edited := func(i int, old, now string) []string {
				out := append([]string(nil), lines...)
				if out[i] = strings.Replace(out[i], old, now, 1); out[i] == lines[i] {
					t.Fatalf("%s is not in %s", old, lines[i])
				}
				return out
			}
			cut := func(from, to int) []string { return append(append([]string(nil), lines[:from]...), lines[to:]...) }
			swapped := append([]string(nil), lines...)
			swapped[4], swapped[5] = swapped[5], swapped[4]
			for what, c := range map[string]struct {
				lines  []string
				record int64
			}{
				"an actor":              {edited(5, `"actor":"`, `"actor":"x`), 5},
				"an action":             {edited(5, `"update"`, `"create"`), 5},
				"a number":              {edited(5, fmt.Sprintf(`"n":%d`, after.N+5), fmt.Sprintf(`"n":%d`, after.N+6)), 5},
				"moved between fields":  {edited(5, `"message":"why`, `"request_id":"w","message":"hy`), 5},
				"a field of its own":    {edited(5, `"actor"`, `"reason":"none","actor"`), 5},
				"a hash":                {edited(5, `"hash":"`, `"hash":"0`), 5},
				"a line is gone":        {cut(5, 6), 5},
				"lines are swapped":     {swapped, 4},
				"the last line is gone": {cut(9, 10), 9},
				"half a line":           {append(cut(9, 10), lines[9][:40]), 9},
				"the first is gone":     {cut(1, 2), 1},
			} {
				_, err := check(c.lines, "")
				var broken *audit.BrokenError
				if !errors.As(err, &broken) || broken.Record != after.N+c.record {
					t.Errorf("%s: %v, want record %d", what, err, after.N+c.record)
				}
			}
			// A disk that fails has changed nothing.
			text := strings.Join(lines, "\n") + "\n"
			for _, n := range []int{0, len(lines[0]) / 2, len(text) / 2, len(text) - 1, len(text)} {
				lost := errors.New("input/output error")
				_, err := audit.Check(io.MultiReader(strings.NewReader(text[:n]), iotest.ErrReader(lost)), "", nil)
				if broken := (*audit.BrokenError)(nil); !errors.Is(err, lost) || errors.As(err, &broken) {
					t.Errorf("a file that cannot be read after %d bytes: %v", n, err)
				}
			}
			for what, text := range map[string]string{
				"nothing": "", "another file": "{}\n", "no JSON": "hello",
				"a later format": `{"marchproxy_audit":2}`,
			} {
				if _, err := audit.Check(strings.NewReader(text), "", nil); err == nil {
					t.Errorf("%s passes", what)
				}
			}
		})
	}
}

// TestSum: the hash is what docs/adr/0029 says, for whoever makes it anew without this program.
func TestSum(t *testing.T) {
	l := audit.Line{
		Record: audit.Record{
			N: 2, At: "2026-01-01T00:00:00.000000Z", Revision: 1, Actor: "marchproxy",
			Message: "first boot", State: "00ff",
		},
		Entries: []audit.Entry{{Kind: "Gateway", Name: "default", Action: "create"}},
	}
	// printf '%s' '19:marchproxy audit v1,2:aa,1:2,27:2026-01-01T00:00:00.000000Z,1:1,10:marchproxy,0:,0:,10:first
	// boot,4:00ff,0:,7:Gateway,7:default,6:create,' | sha256sum
	if got := l.Sum("aa"); got != "d90f2efed2bab00a0ca9dc5cdc0c7502762782f2d7f0bfe22ced79d3b0678409" {
		t.Error(got)
	}
}
