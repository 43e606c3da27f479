package translate

import (
	"fmt"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode"
)

// Envoy gives its regular expressions to RE2, which reads them and what they match as Latin-1: byte by
// byte. Go's syntax package is RE2's by the same author, so it answers for it, but for what is here.

// maxRegex is how many instructions an expression may have, as [regexSize] counts them.
const maxRegex = 1000

// checkRegex says what is wrong with an expression, or returns "".
func checkRegex(re string) string {
	if strings.ContainsAny(re, "\x00\r\n") {
		return "has a control character"
	}
	if _, err := syntax.Parse(latin1(re), syntax.Perl); err != nil {
		return "is not an RE2 regular expression: " + strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	}
	if msg := checkEscapes(re); msg != "" {
		return msg
	}
	if n := regexSize(re); n > maxRegex {
		return fmt.Sprintf("is too large (%d instructions, at most %d); repeat less, or match by prefix", n, maxRegex)
	}
	return ""
}

// checkEscapes finds what Go's parser has learnt and RE2 has not, or not for bytes.
func checkEscapes(re string) string {
	for {
		i := strings.IndexByte(re, '\\')
		if i < 0 || i+1 >= len(re) {
			return ""
		}
		c := re[i+1]
		re = re[i+2:]
		arg := ""
		if strings.HasPrefix(re, "{") {
			arg, _, _ = strings.Cut(re[1:], "}")
		}
		switch c {
		case 'x':
			if n, err := strconv.ParseUint(arg, 16, 32); err == nil && n > 0xff {
				return `has \x{` + arg + `}, which is no byte; write the character itself`
			}
		case 'p', 'P':
			if name := strings.TrimPrefix(arg, "^"); name != "" && !isClass(name) {
				return `has \` + string(c) + `{` + arg + `}, which is not a Unicode class that RE2 knows`
			}
		}
	}
}

func isClass(name string) bool {
	_, script := unicode.Scripts[name]
	_, category := unicode.Categories[name]
	return name == "Any" || script || (category && name != "Cn" && name != "LC")
}

// latin1 is what RE2 reads: a character for each byte.
func latin1(s string) string {
	out := make([]rune, len(s))
	for i := range len(s) {
		out[i] = rune(s[i])
	}
	return string(out)
}

// regexSize is about the number of instructions of RE2's program: never less than half of it. Envoy
// refuses a program above its runtime's re2.max_program_size.error_level, which our bootstrap sets to
// twice [maxRegex].
func regexSize(re string) int {
	parsed, err := syntax.Parse(latin1(re), syntax.Perl)
	if err != nil {
		return 0 // refused for what it is
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return maxRegex + 1
	}
	n := 0
	for _, inst := range prog.Inst {
		n++
		if inst.Op == syntax.InstRuneAnyNotNL {
			n++
		}
		for i := 2; i < len(inst.Rune) && inst.Rune[i] <= 0xff; i += 2 { // each range but the first
			n++
		}
	}
	return n
}
