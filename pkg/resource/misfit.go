package resource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// Misfit says in a sentence what encoding/json found when it read raw, valid JSON, into a Go value: the
// path of what has the wrong type and what belongs there, or the member that is unknown. The package's own
// words name Go's types, and neither the entries of maps nor those of lists.
func Misfit(raw []byte, err error) Violation {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return Violation{Path: pathAt(raw, wrong.Offset), Message: wanted(wrong), Rule: "json.type"}
	}
	text := strings.TrimPrefix(err.Error(), "json: ")
	if name, ok := strings.CutPrefix(text, "unknown field "); ok {
		return Violation{Path: "$", Message: name + " is unknown; remove it", Rule: "json.unknown_field"}
	}
	return Violation{Path: "$", Message: text, Rule: "json.type"}
}

func wanted(wrong *json.UnmarshalTypeError) string {
	t := wrong.Type
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return "must be a string, in quotes"
	case reflect.Bool:
		return "must be true or false"
	case reflect.Slice, reflect.Array:
		return "must be a list, in brackets"
	case reflect.Map, reflect.Struct:
		return "must be an object, in braces"
	case reflect.Float32, reflect.Float64:
		return "must be a number, without quotes"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("must be a whole number from 0 to %d", ^uint64(0)>>(64-t.Bits()))
	default:
		return "must be a whole number, without quotes"
	}
}

// pathAt is the path of the value that ends, or as a list or object begins, at an offset.
func pathAt(raw []byte, offset int64) string {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	p := &pathFinder{dec: dec, offset: offset}
	p.value("$")
	if p.found == "" {
		return "$"
	}
	return p.found
}

type pathFinder struct {
	dec    *json.Decoder
	offset int64
	found  string
}

func (p *pathFinder) value(path string) {
	t, err := p.dec.Token()
	if err != nil {
		return
	}
	if p.dec.InputOffset() >= p.offset {
		p.found = path
		return
	}
	switch t {
	case json.Delim('{'):
		for p.found == "" && p.dec.More() {
			key, err := p.dec.Token()
			name, ok := key.(string)
			if err != nil || !ok {
				return
			}
			p.value(join(path, name))
		}
	case json.Delim('['):
		for i := 0; p.found == "" && p.dec.More(); i++ {
			p.value(fmt.Sprintf("%s[%d]", path, i))
		}
	default:
		return
	}
	if p.found == "" {
		_, _ = p.dec.Token() // its end; raw has been read once already
	}
}
