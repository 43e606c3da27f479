package command

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/mattn/go-isatty"

	"github.com/marchproxy/marchproxy/services/cli/internal/manifest"
)

// outputs are the values of -o.
var outputs = []string{"table", "json", "yaml"}

// people says whether a person reads the output.
func (c *cli) people() bool { return c.output == "" || c.output == "table" }

// print writes a value for programs, or a table for people.
func (c *cli) print(value any, table func(io.Writer)) error {
	switch c.output {
	case "json":
		enc := json.NewEncoder(c.out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(value)
	case "yaml":
		return manifest.WriteYAML(c.out, []any{value})
	default:
		w := tabwriter.NewWriter(c.out, 0, 4, 2, ' ', 0)
		table(w)
		return w.Flush()
	}
}

// row writes a table's row. Control characters, which somebody may have put into a message or a label,
// would move the reader's cursor.
func row(w io.Writer, cells ...any) {
	for i, cell := range cells {
		text := strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
				return ' '
			}
			return r
		}, fmt.Sprint(cell))
		if i > 0 {
			text = "\t" + text
		}
		fmt.Fprint(w, text)
	}
	fmt.Fprintln(w)
}

// short cuts a text to a number of characters.
func short(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// date shows a time of the api to the second.
func date(s string) string {
	if len(s) < 19 {
		return s
	}
	return strings.Replace(s[:19], "T", " ", 1)
}

// terminal says whether a writer is one.
func terminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && isatty.IsTerminal(f.Fd())
}

// colour says whether the output may be coloured: on a terminal, unless NO_COLOR is set.
func (c *cli) colour() bool {
	_, no := c.env("NO_COLOR")
	return !no && terminal(c.out)
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

func proxies(n int) string {
	if n == 1 {
		return "1 proxy"
	}
	return fmt.Sprintf("%d proxies", n)
}
