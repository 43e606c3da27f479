package openapi

import (
	"fmt"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// tagText describes the tags that are not a kind's; a kind's is described as its message is.
var tagText = map[string]string{
	"Account":   "What users have of their own: password, sessions, tokens. Tokens have no account.",
	"Apply":     "Many resources at once.",
	"Revisions": "The history: what changed, by whom, and how to go back.",
	"Session":   "How the web UI signs in: with a password or a token, once, for a cookie that scripts cannot read.",
	"Status":    "What the Envoys and the nodes make of the configuration.",
	"System":    "The api itself; open to everybody.",
	"Tokens":    "Programs that may use this API.",
	"Users":     "People who may use this API.",
}

// tags lists the tags in the order of the operations.
func tags(operations []Operation, schemas object) ([]object, error) {
	var out []object
	seen := map[string]bool{}
	add := func(name, description string) {
		if !seen[name] {
			seen[name] = true
			out = append(out, object{"name": name, "description": description})
		}
	}
	for _, o := range operations {
		if !o.Kinds() {
			text, ok := tagText[o.Tag]
			if !ok {
				return nil, fmt.Errorf("operation %s: tag %q is not described", o.ID, o.Tag)
			}
			add(o.Tag, text)
			continue
		}
		for _, k := range resource.Kinds {
			spec, ok := schemas[k.Name+"Spec"].(object)
			if !ok {
				return nil, fmt.Errorf("there is no schema of %s", k.Name)
			}
			text, _ := spec["description"].(string)
			add(replacer(k).Replace(o.Tag), strings.TrimSpace(text))
		}
	}
	return out, nil
}
