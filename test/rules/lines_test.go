package rules

import (
	"go/ast"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/marchproxy/marchproxy/test/harness"
)

const (
	// longest is how many characters a line of Go has at most, a tab being one. The aim is 120; what reads better as one
	// line, or is drawn out by gofmt's columns, may have a few more.
	longest = 140
	// unbreakable is how long a literal is that excuses its line.
	unbreakable = 80
)

// TestLines: a line of Go fits beside another window, so that nothing of it is overlooked in a review. Excused are the
// inner lines of raw strings, whose breaks are part of them, imports, and lines with a literal that is long itself.
func TestLines(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	dirs := []string{"bpf", "pkg", "services", "test", "wasm-filters", "docs/examples"}
	sources(t, root, dirs, func(path string, fset *token.FileSet, f *ast.File) {
		read++
		raw, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) == 0 {
			return
		}
		excused := map[int]bool{}
		for _, i := range f.Imports {
			excused[fset.Position(i.Pos()).Line] = true
		}
		var s scanner.Scanner
		tokens := token.NewFileSet()
		file := tokens.AddFile("", -1, len(raw))
		s.Init(file, raw, nil, 0)
		for pos, tok, lit := s.Scan(); tok != token.EOF; pos, tok, lit = s.Scan() {
			begin := file.Line(pos)
			if n := strings.Count(lit, "\n"); tok == token.STRING && (n > 0 || utf8.RuneCountInString(lit) > unbreakable) {
				for i := range n + 1 {
					excused[begin+i] = true
				}
			}
		}
		line := 0
		for l := range strings.Lines(string(raw)) {
			line++
			if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n")); n > longest && !excused[line] {
				t.Errorf("%s:%d has %d characters: break it before 120", path, line, n)
			}
		}
	})
	if read < 400 {
		t.Errorf("only %d files are read", read)
	}
}
