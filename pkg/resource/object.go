package resource

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// DefaultGateway is the gateway that always exists.
const DefaultGateway = "default"

// MaxNameLength is that of an RFC 1123 label.
const MaxNameLength = 63

// Ref names an object.
type Ref struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// String is kind/name.
func (r Ref) String() string { return r.Kind + "/" + r.Name }

// Compare orders by kind, then name.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(cmp.Compare(r.Kind, o.Kind), cmp.Compare(r.Name, o.Name))
}

// Object is a resource in its envelope. It is immutable once it has been handed on: change a copy.
type Object struct {
	Kind      string            `json:"kind"`
	Name      string            `json:"name"`
	UID       string            `json:"uid,omitempty"`
	Revision  int64             `json:"revision,omitempty"`
	Deleted   bool              `json:"deleted,omitempty"`
	Owner     string            `json:"owner,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	CreatedAt string            `json:"created_at,omitempty"`
	UpdatedAt string            `json:"updated_at,omitempty"`
	// Spec is the kind's message in canonical JSON (see [CanonicalSpec]); nil in a tombstone.
	Spec json.RawMessage `json:"spec,omitempty"`

	msg     proto.Message
	payload []byte
}

// Ref names the object.
func (o *Object) Ref() Ref { return Ref{o.Kind, o.Name} }

// Tombstone is the object's successor when it is deleted at a revision.
func Tombstone(r Ref, revision int64) *Object {
	return &Object{Kind: r.Kind, Name: r.Name, Revision: revision, Deleted: true}
}

// Time formats t as objects and events carry it: RFC 3339 in UTC, microseconds.
func Time(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

// Payload returns the bytes that are stored, published and hashed. Callers must not change them.
func (o *Object) Payload() []byte {
	if o.payload == nil {
		o.payload = o.encode()
		o.shareSpec()
	}
	return o.payload
}

// ParsePayload reads what [Object.Payload] made, keeping the bytes. The spec is decoded as well, so
// that an error here means that the writer and the reader differ in their schema.
func ParsePayload(payload []byte) (*Object, error) {
	if o := scan(payload); o != nil {
		return o, nil
	}
	var o Object
	if err := json.Unmarshal(payload, &o); err != nil {
		return nil, fmt.Errorf("parse payload: %w", err)
	}
	o.payload = payload
	k, ok := KindByName(o.Kind)
	if !ok {
		return nil, fmt.Errorf("unknown kind %q", o.Kind)
	}
	o.share(k)
	if o.Deleted {
		return &o, nil
	}
	if _, err := o.decode(); err != nil {
		return nil, err
	}
	return &o, nil
}

// ParsePayloads is [ParsePayload] of many, on all processors: a start waits for it.
func ParsePayloads(payloads [][]byte) ([]*Object, error) {
	out := make([]*Object, len(payloads))
	const part = 128
	var group sync.WaitGroup
	var next atomic.Int64
	var failed atomic.Pointer[error]
	for range min(runtime.GOMAXPROCS(0), (len(payloads)+part-1)/part) {
		group.Go(func() {
			for end := int(next.Add(part)); end-part < len(payloads) && failed.Load() == nil; end = int(next.Add(part)) {
				for i := end - part; i < min(end, len(payloads)); i++ {
					o, err := ParsePayload(payloads[i])
					if err != nil {
						failed.CompareAndSwap(nil, &err)
						return
					}
					out[i] = o
				}
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return out, nil
}

// share has the object hold once what is there several times, for there are many objects.
func (o *Object) share(k Kind) {
	o.Kind = k.Name // the same of all
	if o.UpdatedAt == o.CreatedAt {
		o.UpdatedAt = o.CreatedAt
	}
	o.shareSpec()
}

// shareSpec has the spec be a part of the payload, whose last field it is.
func (o *Object) shareSpec() {
	end := len(o.payload) - 1
	if begin := end - len(o.Spec); begin > 0 && bytes.Equal(o.payload[begin:end], o.Spec) {
		o.Spec = o.payload[begin:end:end]
	}
}

// Message returns the decoded spec: *configv1.Route for a Route, and so on. Callers must not change
// it. It panics on a spec that [ParsePayload] or [New] would have refused.
func (o *Object) Message() proto.Message {
	m, err := o.decode()
	if err != nil {
		panic(err)
	}
	return m
}

// Spec is an object's spec as its kind has it, such as Spec[*configv1.Route]; nil, whose fields are all unset, where
// there is no object. It panics for another kind's type, and as [Object.Message] does.
func Spec[M proto.Message](o *Object) (m M) {
	if o != nil {
		m = o.Message().(M)
	}
	return m
}

func (o *Object) decode() (proto.Message, error) {
	if o.msg != nil {
		return o.msg, nil
	}
	k, ok := KindByName(o.Kind)
	if !ok {
		return nil, fmt.Errorf("unknown kind %q", o.Kind)
	}
	m := k.New()
	// Fields that a newer writer added are not for this reader.
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(o.Spec, m); err != nil {
		return nil, fmt.Errorf("decode %s: %w", o.Ref(), err)
	}
	o.msg = m
	return m, nil
}

// New makes an object from a decoded spec; the envelope's other fields are the caller's to fill before
// it hands the object on.
func New(r Ref, spec proto.Message) (*Object, error) {
	raw, err := CanonicalSpec(spec)
	if err != nil {
		return nil, err
	}
	return &Object{Kind: r.Kind, Name: r.Name, Spec: raw, msg: spec}, nil
}

// CanonicalSpec encodes a spec: snake_case, fields in the order of their numbers, maps by key, no
// white space, nothing that is absent. Equal messages give equal bytes.
func CanonicalSpec(spec proto.Message) (json.RawMessage, error) {
	raw, err := (protojson.MarshalOptions{UseProtoNames: true}).Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("encode spec: %w", err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil { // protojson varies its white space on purpose
		return nil, fmt.Errorf("encode spec: %w", err)
	}
	return b.Bytes(), nil
}
