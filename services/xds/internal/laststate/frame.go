package laststate

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"net/netip"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// frame is what is sealed: one commit and its objects, and what has changed of the names' addresses.
type frame struct {
	Commit []byte
	Reset  bool
	// More says that the snapshot goes on in the next frame: without that it is none.
	More     bool
	Payloads [][]byte
	Notes    Notes
	Names    map[string][]netip.Addr
}

// A frame is written as a protobuf message would be, behind a zero. The gob that was written before says in every frame
// what a frame is, for which a change paid more than for all else that is written of it; it never begins with a zero,
// and is still read.
const (
	plainMark = 0

	fieldCommit   = 1
	fieldReset    = 2
	fieldMore     = 3
	fieldPayload  = 4
	fieldVersion  = 5
	fieldName     = 6
	fieldDocument = 7
	fieldNameHost = 1
	fieldNameAddr = 2
)

var errFrame = errors.New("a frame cannot be read")

func (fr *frame) fill(c resource.Commit, objects []*resource.Object) (err error) {
	fr.Payloads = make([][]byte, len(objects))
	for i, o := range objects {
		fr.Payloads[i] = o.Payload()
	}
	fr.Commit, err = json.Marshal(c)
	return err
}

// plain is the frame as it is sealed.
func (fr *frame) plain() []byte {
	size := 64 + len(fr.Commit) + len(fr.Notes.ConfigVersion) + len(fr.Notes.Document)
	for _, p := range fr.Payloads {
		size += len(p) + 8
	}
	out := append(make([]byte, 0, size), plainMark)
	field := func(n protowire.Number, b []byte) {
		out = protowire.AppendBytes(protowire.AppendTag(out, n, protowire.BytesType), b)
	}
	flag := func(n protowire.Number, set bool) {
		if set {
			out = protowire.AppendVarint(protowire.AppendTag(out, n, protowire.VarintType), 1)
		}
	}
	field(fieldCommit, fr.Commit)
	flag(fieldReset, fr.Reset)
	flag(fieldMore, fr.More)
	for _, p := range fr.Payloads {
		field(fieldPayload, p)
	}
	if fr.Notes.ConfigVersion != "" {
		field(fieldVersion, []byte(fr.Notes.ConfigVersion))
	}
	if fr.Notes.Document != "" {
		field(fieldDocument, []byte(fr.Notes.Document))
	}
	for host, addrs := range fr.Names {
		name := protowire.AppendString(protowire.AppendTag(nil, fieldNameHost, protowire.BytesType), host)
		for _, a := range addrs {
			raw, _ := a.MarshalBinary() // it cannot fail
			name = protowire.AppendBytes(protowire.AppendTag(name, fieldNameAddr, protowire.BytesType), raw)
		}
		field(fieldName, name)
	}
	return out
}

// parse reads a frame. What it returns shares nothing with the bytes, which are those of the next frame soon.
func parse(plain []byte) (fr frame, err error) {
	if len(plain) == 0 || plain[0] != plainMark {
		err = gob.NewDecoder(bytes.NewReader(plain)).Decode(&fr)
		return fr, err
	}
	err = fields(plain[1:], func(n protowire.Number, number uint64, b []byte) (err error) {
		switch n {
		case fieldCommit:
			fr.Commit = bytes.Clone(b)
		case fieldReset:
			fr.Reset = number != 0
		case fieldMore:
			fr.More = number != 0
		case fieldPayload:
			fr.Payloads = append(fr.Payloads, bytes.Clone(b))
		case fieldVersion:
			fr.Notes.ConfigVersion = string(b)
		case fieldDocument:
			fr.Notes.Document = string(b)
		case fieldName:
			if fr.Names == nil {
				fr.Names = map[string][]netip.Addr{}
			}
			err = parseName(b, fr.Names)
		}
		return err
	})
	return fr, err
}

func parseName(b []byte, into map[string][]netip.Addr) error {
	host, addrs := "", []netip.Addr(nil)
	err := fields(b, func(n protowire.Number, _ uint64, b []byte) error {
		switch n {
		case fieldNameHost:
			host = string(b)
		case fieldNameAddr:
			var a netip.Addr
			if err := a.UnmarshalBinary(b); err != nil {
				return err
			}
			addrs = append(addrs, a)
		}
		return nil
	})
	into[host] = addrs
	return err
}

// fields yields a message's fields, which are numbers or bytes.
func fields(b []byte, yield func(n protowire.Number, number uint64, b []byte) error) error {
	for len(b) > 0 {
		n, sort, size := protowire.ConsumeTag(b)
		if size < 0 {
			return errFrame
		}
		b = b[size:]
		var number uint64
		var text []byte
		switch sort {
		case protowire.VarintType:
			number, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			text, size = protowire.ConsumeBytes(b)
		default:
			return errFrame
		}
		if size < 0 {
			return errFrame
		}
		if err := yield(n, number, text); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

func (fr *frame) replay(objects map[resource.Ref]*resource.Object, saved *Saved) error {
	var c resource.Commit
	if err := json.Unmarshal(fr.Commit, &c); err != nil {
		return err
	}
	changed, err := resource.ParsePayloads(fr.Payloads)
	if err != nil {
		return err
	}
	if fr.Reset {
		clear(objects)
		clear(saved.Names)
	}
	enter(saved.Names, fr.Names)
	for _, o := range changed {
		if o.Deleted {
			delete(objects, o.Ref())
		} else {
			objects[o.Ref()] = o
		}
	}
	saved.Commit, saved.Notes = c, fr.Notes
	return nil
}
