package ads

import (
	"slices"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that is extended
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// removed are the names that are removed.
func (r *response) removed() []string {
	out := r.absent
	for _, it := range r.items {
		if it.resource == nil {
			out = append(out, it.name)
		}
	}
	return out
}

// message is the response.
func (r *response) message() *discoveryv3.DeltaDiscoveryResponse {
	msg := &discoveryv3.DeltaDiscoveryResponse{
		TypeUrl: string(r.typ), Nonce: r.nonce, SystemVersionInfo: r.nonce,
		RemovedResources: r.removed(),
	}
	for _, it := range r.items {
		if it.resource != nil {
			msg.Resources = append(msg.Resources, &discoveryv3.Resource{
				Name: it.name, Version: it.resource.Version,
				Resource: it.resource.Body,
			})
		}
	}
	return msg
}

// Fields of DeltaDiscoveryResponse, Resource and Any.
const (
	fieldSystemVersion = 1
	fieldResources     = 2
	fieldTypeURL       = 4
	fieldNonce         = 5
	fieldRemoved       = 6

	fieldVersion  = 1
	fieldResource = 2
	fieldName     = 3

	fieldAnyType  = 1
	fieldAnyValue = 2
)

// encoded is a response that is marshalled already: the resources, which many streams share, and what is the
// stream's own.
type encoded struct{ data mem.BufferSlice }

func (r *response) encoded(c *encodings) *encoded {
	var own []byte
	text := func(field protowire.Number, s string) {
		own = protowire.AppendString(protowire.AppendTag(own, field, protowire.BytesType), s)
	}
	text(fieldSystemVersion, r.nonce)
	text(fieldTypeURL, string(r.typ))
	text(fieldNonce, r.nonce)
	for _, name := range r.removed() {
		text(fieldRemoved, name)
	}
	return &encoded{append(slices.Clip(c.resources(r.items)), mem.SliceBuffer(own))}
}

// encodings are the last encoded resources of responses: the same change goes to many Envoys.
type encodings struct {
	mu   sync.Mutex
	made map[*translate.Resource]*batch
	size int
}

// batch is what some resources are in a response.
type batch struct {
	of   []item
	data mem.BufferSlice
}

// kept is how many bytes of their own encodings may have, and how many there are of them at most. The bodies of
// resources are shared and not copied.
const (
	keptBytes = 8 << 20
	kept      = 256
)

func (c *encodings) resources(items []item) mem.BufferSlice {
	first := slices.IndexFunc(items, func(it item) bool { return it.resource != nil })
	if first < 0 {
		return nil
	}
	key := items[first].resource
	c.mu.Lock()
	known := c.made[key]
	c.mu.Unlock()
	if known != nil && slices.EqualFunc(known.of, items, func(a, b item) bool { return a.resource == b.resource }) {
		return known.data
	}
	made := &batch{of: items}
	size := 0
	for _, it := range items {
		if it.resource == nil {
			continue
		}
		head := resourceHead(it.resource)
		size += len(head)
		made.data = append(made.data, mem.SliceBuffer(head), mem.SliceBuffer(it.resource.Body.GetValue()))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size += size; c.made == nil || len(c.made) >= kept || c.size > keptBytes {
		c.made, c.size = map[*translate.Resource]*batch{}, size
	}
	c.made[key] = made
	return made.data
}

// resourceHead is all of a resource in a response but its content, which follows.
func resourceHead(r *translate.Resource) []byte {
	body := r.Body.GetValue()
	size := func(s string) int { return protowire.SizeTag(1) + protowire.SizeBytes(len(s)) }
	content := size(r.Body.GetTypeUrl()) + protowire.SizeTag(1) + protowire.SizeBytes(len(body))
	all := size(r.Version) + size(r.Name) + protowire.SizeTag(1) + protowire.SizeBytes(content)
	out := make([]byte, 0, all-len(body)+16)
	tag := func(field protowire.Number) { out = protowire.AppendTag(out, field, protowire.BytesType) }
	tag(fieldResources)
	out = protowire.AppendVarint(out, uint64(all))
	tag(fieldVersion)
	out = protowire.AppendString(out, r.Version)
	tag(fieldName)
	out = protowire.AppendString(out, r.Name)
	tag(fieldResource)
	out = protowire.AppendVarint(out, uint64(content))
	tag(fieldAnyType)
	out = protowire.AppendString(out, r.Body.GetTypeUrl())
	tag(fieldAnyValue)
	return protowire.AppendVarint(out, uint64(len(body)))
}

// codec is gRPC's own, which also takes what is marshalled already.
type codec struct{ encoding.CodecV2 }

// Marshal implements [encoding.CodecV2].
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(*encoded); ok {
		return e.data, nil
	}
	return c.CodecV2.Marshal(v)
}

func init() { encoding.RegisterCodecV2(codec{encoding.GetCodecV2("proto")}) }
