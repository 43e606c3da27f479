package resource

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unsafe"
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

// scan reads a payload in the form in which encode writes it, with nothing escaped and no labels, as most are: a start
// reads all that there is, and encoding/json reads each of them twice. It returns nil for what it leaves to
// encoding/json, whatever is wrong with a payload included.
func scan(payload []byte) *Object {
	o := &Object{payload: payload}
	rest, ok := bytes.CutPrefix(payload, []byte(`{"kind":`))
	text := func(name string, into *string) {
		if name != "" {
			after, there := bytes.CutPrefix(rest, []byte(name))
			if !there {
				return
			}
			rest = after
		}
		end := 1
		for ok = ok && len(rest) > 1 && rest[0] == '"'; ok && rest[end] != '"'; end++ {
			ok = end+1 < len(rest) && rest[end] >= ' ' && rest[end] <= '~' && rest[end] != '\\'
		}
		if ok {
			// The payload is kept, and nobody changes it: the text is a part of it, as the spec is.
			*into, rest = unsafe.String(&rest[1], end-1), rest[end+1:] //nolint:gosec // see above
		}
	}
	text("", &o.Kind)
	text(`,"name":`, &o.Name)
	text(`,"uid":`, &o.UID)
	if after, there := bytes.CutPrefix(rest, []byte(`,"revision":`)); there {
		end := bytes.IndexByte(after, ',')
		if end < 1 || end > 18 || after[0] == '0' {
			return nil
		}
		for _, c := range after[:end] {
			ok = ok && c >= '0' && c <= '9'
			o.Revision = 10*o.Revision + int64(c-'0')
		}
		rest = after[end:]
	}
	text(`,"owner":`, &o.Owner)
	text(`,"created_at":`, &o.CreatedAt)
	text(`,"updated_at":`, &o.UpdatedAt)
	spec, there := bytes.CutPrefix(rest, []byte(`,"spec":`))
	if !ok || !there || len(spec) < 3 || spec[0] != '{' || !bytes.HasSuffix(spec, []byte("}}")) {
		return nil
	}
	k, ok := KindByName(o.Kind)
	if !ok {
		return nil
	}
	o.Spec = json.RawMessage(spec[: len(spec)-1 : len(spec)-1])
	// Others hold these two for longer than the object, and the payload would stay with them.
	o.Name, o.Owner = strings.Clone(o.Name), strings.Clone(o.Owner)
	o.share(k)
	if _, err := o.decode(); err != nil {
		return nil
	}
	return o
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
