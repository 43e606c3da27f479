package rules

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	messageHeading = regexp.MustCompile("(?m)^### `(.+)`$")
	verb           = regexp.MustCompile(`%[-+# 0]*[0-9.]*[a-zA-Z]`)
)

// TestMessages: each message that docs/troubleshooting.md explains is one of the programs', word by word, so that who
// searches for what is before them finds it.
func TestMessages(t *testing.T) {
	root, _ := documents(t)
	raw, err := os.ReadFile(filepath.Join(root, "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	sources(t, root, []string{"pkg", "services"}, func(path string, _ *token.FileSet, f *ast.File) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			x, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			text, ok := wording(x)
			if ok {
				said = append(said, text)
			}
			return !ok
		})
	})
	all := strings.Join(said, "\n")
	found := messageHeading.FindAllStringSubmatch(string(raw), -1)
	if len(found) < 40 || len(said) < 5000 {
		t.Fatalf("%d messages are explained, and %d strings are in the code: the form of one is another", len(found), len(said))
	}
	seen := map[string]bool{}
	for _, m := range found {
		message, words := m[1], strings.ReplaceAll(m[1], "…", "")
		switch {
		case seen[message]:
			t.Errorf("%q is explained twice", message)
		case len(words) < 15:
			t.Errorf("%q has too few words of its own to be found by", message)
		case !says(all, message):
			t.Errorf("docs/troubleshooting.md explains %q, which no program says", message)
		}
		seen[message] = true
	}
}

// says is whether a line of texts has the message in it; … stands for anything in the message.
func says(texts, message string) bool {
	parts := strings.Split(message, "…")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return regexp.MustCompile(strings.Join(parts, ".*")).MatchString(texts)
}

// wording is a string of the code on one line, put together of its parts, with … for what is only known when it runs.
func wording(x ast.Expr) (text string, ok bool) {
	switch x := x.(type) {
	case *ast.BasicLit:
		if x.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(x.Value)
		if err != nil {
			return "", false
		}
		s = strings.ReplaceAll(strings.ReplaceAll(s, "%q", `"…"`), "%%", "\x00")
		return strings.NewReplacer("\x00", "%", "\n", " ").Replace(verb.ReplaceAllString(s, "…")), true
	case *ast.BinaryExpr:
		if x.Op != token.ADD {
			return "", false
		}
		left, isLeft := wording(x.X)
		right, isRight := wording(x.Y)
		if !isLeft && !isRight {
			return "", false
		}
		if !isLeft {
			left = "…"
		}
		if !isRight {
			right = "…"
		}
		return left + right, true
	case *ast.ParenExpr:
		return wording(x.X)
	}
	return "", false
}

// TestTheRuleOfMessages: a message whose words are others is found out.
func TestTheRuleOfMessages(t *testing.T) {
	texts := "port … (…) is taken…; … chooses another\nnames the … \"…\", which does not exist"
	for message, want := range map[string]bool{
		"port … (…) is taken…; … chooses another":      true,
		`names the … "…", which does not exist`:        true,
		"port … (…) is taken…; choose another one":     false,
		"port … names the …":                           false, // not of one string
		"names the object \"…\", which does not exist": false,
	} {
		if got := says(texts, message); got != want {
			t.Errorf("%q: %v, want %v", message, got, want)
		}
	}
}
