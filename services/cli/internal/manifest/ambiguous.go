package manifest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

var (
	leadingZero = regexp.MustCompile(`^[-+]?0[0-9_]+$`)
	otherBase   = regexp.MustCompile(`^[-+]?0[bo]`)
	sexagesimal = regexp.MustCompile(`^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`)
)

// ambiguous says what is wrong with a value that readers of YAML 1.1 and of YAML 1.2 take for different
// things, such as a port 010, which is 8 to one and 10 to the other; "" where all take it for the same. The
// file's author sees only what is written. Not among them: yes, no, on and off, which are text here, and
// which a field that is true or false refuses; and dates, which are text as they are written.
func ambiguous(n *yaml.Node) string {
	const quotes = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle |
		yaml.TaggedStyle
	tag := n.ShortTag()
	if tag == "!!str" && n.Style&quotes != 0 {
		return ""
	}
	number := tag == "!!int" || tag == "!!float"
	switch v := n.Value; {
	case number && leadingZero.MatchString(v):
		digits := strings.ReplaceAll(strings.TrimPrefix(v, "+"), "_", "")
		decimal, err := strconv.ParseInt(digits, 10, 64)
		octal, notOctal := strconv.ParseInt(digits, 8, 64)
		switch {
		case err != nil || notOctal != nil:
			return fmt.Sprintf("is %s, which is a number to some readers of YAML and text to others; write it without the "+
				"zero in front, or %q in quotes if text is meant", v, v)
		case decimal == octal && !strings.Contains(v, "_"):
			return ""
		}
		return fmt.Sprintf("is %s, which is %d to some readers of YAML and %d to others; write %d or %d, or %q in quotes "+
			"if text is meant", v, octal, decimal, octal, decimal, v)
	case number && (otherBase.MatchString(v) || strings.Contains(v, "_")):
		return fmt.Sprintf("is %s, which is a number to some readers of YAML and text to others; write the number in plain "+
			"digits, or %q in quotes if text is meant", v, v)
	case tag == "!!str" && sexagesimal.MatchString(v):
		return fmt.Sprintf("is %s, which is a number to the base of 60 to some readers of YAML and text to others; write "+
			"%q in quotes if text is meant", v, v)
	}
	return ""
}

// pathTo is where a node stands below another: spec.listeners[0].port; "" for the node itself.
func pathTo(root, n *yaml.Node) (path string, found bool) {
	if root == n {
		return "", true
	}
	for i, c := range root.Content {
		below, found := pathTo(c, n)
		switch {
		case !found:
			continue
		case root.Kind == yaml.SequenceNode:
			return strings.TrimSuffix(fmt.Sprintf("[%d].%s", i, below), "."), true
		case root.Kind == yaml.MappingNode && i%2 == 1:
			step := root.Content[i-1].Value
			if below == "" || strings.HasPrefix(below, "[") {
				return step + below, true
			}
			return step + "." + below, true
		default:
			return below, true
		}
	}
	return "", false
}
