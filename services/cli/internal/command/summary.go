package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// summary shows the gist of any kind's spec in one line: its members in their order, lists by their
// items, objects by their first two values.
func summary(spec json.RawMessage, width int) string {
	dec := json.NewDecoder(bytes.NewReader(spec))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return ""
	}
	var parts []string
	for dec.More() {
		name, err := dec.Token()
		var raw json.RawMessage
		if err != nil || dec.Decode(&raw) != nil {
			break
		}
		if v := gist(raw); v != "" {
			parts = append(parts, fmt.Sprintf("%s=%s", name, v))
		}
	}
	return short(strings.Join(parts, " "), width)
}

func gist(raw json.RawMessage) string {
	switch raw[0] {
	case '[':
		var items []json.RawMessage
		if json.Unmarshal(raw, &items) != nil {
			return ""
		}
		var out []string
		for _, item := range items[:min(len(items), 3)] {
			if g := gist(item); g != "" {
				out = append(out, g)
			}
		}
		more := ""
		if len(items) > 3 {
			more = fmt.Sprintf("+%d", len(items)-3)
		}
		return strings.Join(out, ",") + more
	case '{':
		dec := json.NewDecoder(bytes.NewReader(raw))
		_, _ = dec.Token() // the brace
		var out []string
		for dec.More() && len(out) < 2 {
			var v json.RawMessage
			if _, err := dec.Token(); err != nil || dec.Decode(&v) != nil {
				break
			}
			if g := gist(v); g != "" {
				out = append(out, g)
			}
		}
		return strings.Join(out, ":")
	case '"':
		var s string
		if json.Unmarshal(raw, &s) != nil || strings.ContainsAny(s, "\n\r") { // a PEM chain
			return ""
		}
		return short(s, 40)
	default:
		return string(raw)
	}
}
