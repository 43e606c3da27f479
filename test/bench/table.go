package bench

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Pct is a percentile, from 0 to 1.
func Pct[T cmp.Ordered](v []T, p float64) (at T) {
	if len(v) == 0 {
		return at
	}
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(p*float64(len(s))))]
}

// Table gathers figures with their bars.
type Table struct {
	rows   [][4]string
	missed []string
}

// Bar adds a figure that has one; met says whether it keeps to it.
func (t *Table) Bar(what, bar string, met bool, figure string, args ...any) {
	word := "met"
	f := fmt.Sprintf(figure, args...)
	if !met {
		word = "**missed**"
		t.missed = append(t.missed, fmt.Sprintf("%s: %s; the bar is %s", what, f, bar))
	}
	t.rows = append(t.rows, [4]string{what, f, bar, word})
}

// Note adds a figure that has no bar.
func (t *Table) Note(what, figure string, args ...any) {
	t.rows = append(t.rows, [4]string{what, fmt.Sprintf(figure, args...), "", ""})
}

// Missed are the figures that do not keep to their bars.
func (t *Table) Missed() []string { return t.missed }

// Print writes it as Markdown.
func (t *Table) Print(w io.Writer) {
	var b strings.Builder
	b.WriteString("\n| what | figure | bar | |\n|---|---|---|---|\n")
	for _, r := range t.rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(r[:], " | "))
	}
	_, _ = io.WriteString(w, b.String()) // standard output: nobody is left to tell
}
