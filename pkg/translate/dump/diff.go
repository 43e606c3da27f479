package dump

import (
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

const (
	// around is how many lines are shown before and after what differs.
	around = 3
	// likeness begins the line that names what a new document is compared with.
	likeness = "~ "
)

// Diff says what of the documents now differs from those before. It is empty where nothing does.
func Diff(before, now []Document) []byte {
	var out strings.Builder
	was, is := byTitle(before), byTitle(now)
	for _, name := range titles(was, is) {
		old, fresh := was[name], is[name]
		switch {
		case old == nil:
			out.WriteString(rule + name + "\n" + added(was, is, fresh))
		case fresh == nil:
			out.WriteString(rule + name + "\n")
			whole(&out, "-", old.lines())
		case !reflect.DeepEqual(old.Body, fresh.Body) || !reflect.DeepEqual(old.about, fresh.about):
			out.WriteString(rule + name + "\n")
			hunks(&out, old.lines(), fresh.lines())
		}
	}
	return []byte(out.String())
}

// added shows a document that was not there: what it has beside one that it is like, or all of it where that is
// shorter.
func added(was, is map[string]*Document, d *Document) string {
	var all, less strings.Builder
	whole(&all, "+", d.lines())
	like := model(was, is, d)
	if like == nil {
		return all.String()
	}
	less.WriteString(likeness + like.Title + "\n")
	hunks(&less, like.lines(), d.lines())
	if strings.Count(less.String(), "\n") < strings.Count(all.String(), "\n") {
		return less.String()
	}
	return all.String()
}

// model is what a new document may be like: the resource that it is a variant of, or the first of its type that was
// there.
func model(was, is map[string]*Document, d *Document) *Document {
	if main, _, variant := strings.Cut(d.Title, " ("); variant {
		return is[main]
	}
	typ, _, _ := strings.Cut(d.Title, " ")
	for _, title := range titles(was, nil) {
		if strings.HasPrefix(title, typ+" ") {
			return was[title]
		}
	}
	return nil
}

func hunks(out *strings.Builder, had, has []line) {
	before, after := text(had), text(has)
	u, err := udiff.ToUnifiedDiff("", "", before, udiff.Lines(before, after), around)
	if err != nil {
		panic(err) // the edits are of this text
	}
	marks := map[udiff.OpKind]string{udiff.Delete: "-", udiff.Insert: "+", udiff.Equal: " "}
	for _, h := range u.Hunks {
		out.WriteString("@@ " + had[h.FromLine-1].place + " @@\n")
		for _, l := range h.Lines {
			out.WriteString(marks[l.Kind] + l.Content)
		}
	}
}

func whole(out *strings.Builder, mark string, lines []line) {
	for _, l := range lines {
		out.WriteString(mark + l.text + "\n")
	}
}

// Apply makes the documents that [Diff] was told of, from the ones before and what it has said. It returns an error
// where the difference is not one to these.
func Apply(before []Document, diff []byte) ([]Document, error) {
	was, is := byTitle(before), byTitle(before)
	for s := range sections(diff) {
		old, rest := was[s.title], s.lines
		if len(rest) > 0 && strings.HasPrefix(rest[0], likeness) {
			title := strings.TrimPrefix(rest[0], likeness)
			if old = is[title]; old == nil {
				old = was[title]
			}
			rest = rest[1:]
			if old == nil {
				return nil, fmt.Errorf("%s: there is no %s that it could be like", s.title, title)
			}
		}
		lines, err := patch(old, rest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.title, err)
		}
		if len(lines) == 0 {
			delete(is, s.title)
			continue
		}
		docs, err := Read([]byte(rule + s.title + "\n" + strings.Join(lines, "\n") + "\n"))
		if err != nil {
			return nil, err
		}
		is[s.title] = &docs[0]
	}
	var out []Document
	for _, name := range titles(is, nil) {
		out = append(out, *is[name])
	}
	return out, nil
}

// patch are a document's lines after those of a difference; old is nil where it was not there.
func patch(old *Document, diff []string) ([]string, error) {
	var had, has, places []string
	if old != nil {
		for _, l := range old.lines() {
			had, places = append(had, l.text), append(places, l.place)
		}
	}
	at, hunk := 0, false
	for _, l := range diff {
		if place, is := strings.CutPrefix(l, "@@ "); is {
			next := slices.Index(places, strings.TrimSuffix(place, " @@"))
			if next < at {
				return nil, fmt.Errorf("there is no %s where it is looked for", place)
			}
			has, at, hunk = append(has, had[at:next]...), next, true
			continue
		}
		switch {
		case l == "":
			return nil, errors.New("a line has no mark")
		case l[0] == '+' && old != nil && !hunk:
			return nil, errors.New("it is there already")
		case l[0] == '+':
			has = append(has, l[1:])
			continue
		case at == len(had) || had[at] != l[1:]:
			return nil, fmt.Errorf("the line %q is not there", l[1:])
		}
		if at++; l[0] == ' ' {
			has = append(has, l[1:])
		}
	}
	return append(has, had[at:]...), nil
}

// section is what stands below one title.
type section struct {
	title string
	lines []string
}

func sections(in []byte) iter.Seq[section] {
	return func(yield func(section) bool) {
		for part := range strings.SplitSeq("\n"+string(in), "\n"+rule) {
			name, below, _ := strings.Cut(part, "\n")
			if name == "" {
				continue // before the first
			}
			below = strings.TrimSuffix(below, "\n")
			s := section{title: name}
			if below != "" {
				s.lines = strings.Split(below, "\n")
			}
			if !yield(s) {
				return
			}
		}
	}
}

func byTitle(docs []Document) map[string]*Document {
	out := map[string]*Document{}
	for i := range docs {
		out[docs[i].Title] = &docs[i]
	}
	return out
}

// titles are those of either, in order: a resource's before those of its variants.
func titles(a, b map[string]*Document) []string {
	var out []string
	for _, m := range []map[string]*Document{a, b} {
		for name := range m {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func text(lines []line) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.text + "\n")
	}
	return b.String()
}
