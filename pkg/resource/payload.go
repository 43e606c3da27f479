package resource

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// encode makes the bytes of [Object.Payload]: those that encoding/json makes of the object where it leaves HTML
// alone. It writes them by itself because encoding/json reads the spec through twice more, which most of a payload
// is, and there are thousands of payloads in one apply, for which other writes wait.
func (o *Object) encode() []byte {
	b := make([]byte, 0, len(o.Spec)+len(o.Name)+len(o.UID)+len(o.Owner)+64*len(o.Labels)+224)
	b = append(b, `{"kind":`...)
	b = appendString(b, o.Kind)
	b = appendMember(b, "name", o.Name)
	if o.UID != "" {
		b = appendMember(b, "uid", o.UID)
	}
	if o.Revision != 0 {
		b = strconv.AppendInt(append(b, `,"revision":`...), o.Revision, 10)
	}
	if o.Deleted {
		b = append(b, `,"deleted":true`...)
	}
	if o.Owner != "" {
		b = appendMember(b, "owner", o.Owner)
	}
	if len(o.Labels) > 0 {
		b = append(b, `,"labels":`...)
		between := byte('{')
		for _, name := range slices.Sorted(maps.Keys(o.Labels)) {
			b = appendString(append(b, between), name)
			b = appendString(append(b, ':'), o.Labels[name])
			between = ','
		}
		b = append(b, '}')
	}
	if o.CreatedAt != "" {
		b = appendMember(b, "created_at", o.CreatedAt)
	}
	if o.UpdatedAt != "" {
		b = appendMember(b, "updated_at", o.UpdatedAt)
	}
	if len(o.Spec) > 0 {
		b = append(append(b, `,"spec":`...), o.Spec...)
	}
	return append(b, '}')
}

func appendMember(b []byte, name, value string) []byte {
	b = append(append(append(b, `,"`...), name...), `":`...)
	return appendString(b, value)
}

// appendString adds a string as JSON.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' { // something to escape, or to look at more closely
			return append(b, escaped(s)...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

func escaped(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(fmt.Sprintf("resource: encode a string: %v", err)) // there is none that it refuses
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
