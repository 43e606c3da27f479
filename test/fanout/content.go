package fanout

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

var runtimeLayers = []string{bootstrap.RuntimeLayer}

// content is what the clients have, once for all of them: they all have the same.
type content struct {
	mu       sync.Mutex
	versions map[translate.Type]map[string]string
	// requests are the fields of a request that say what a client has of a type, encoded; nil where they are old.
	requests map[translate.Type][]byte
	filters  []string
}

func newContent() *content {
	return &content{versions: map[translate.Type]map[string]string{}, requests: map[translate.Type][]byte{}}
}

// response is what a client makes of one.
type response struct {
	t         translate.Type
	ack       []byte
	resources int
	marked    int
	// names are those of clusters, filters those that a listener gets by ECDS.
	names, filters []string
}

// Fields of the messages.
const (
	fieldResources = 2
	fieldTypeURL   = 4
	fieldNonce     = 5

	fieldVersion = 1
	fieldBody    = 2
	fieldName    = 3

	requestNode      = 1
	requestType      = 2
	requestSubscribe = 3
	requestInitial   = 5
	requestNonce     = 6
)

// fields goes through those of a message that are bytes.
func fields(raw []byte, each func(n protowire.Number, v []byte)) error {
	for len(raw) > 0 {
		n, typ, size := protowire.ConsumeTag(raw)
		if size < 0 {
			return protowire.ParseError(size)
		}
		raw = raw[size:]
		if typ != protowire.BytesType {
			if size = protowire.ConsumeFieldValue(n, typ, raw); size < 0 {
				return protowire.ParseError(size)
			}
			raw = raw[size:]
			continue
		}
		v, size := protowire.ConsumeBytes(raw)
		if size < 0 {
			return protowire.ParseError(size)
		}
		raw = raw[size:]
		each(n, v)
	}
	return nil
}

func (w *content) read(raw, mark []byte) (r response, err error) {
	var all [][]byte
	err = fields(raw, func(n protowire.Number, v []byte) {
		switch n {
		case fieldTypeURL:
			r.t = typeOf(v)
		case fieldNonce:
			r.ack = protowire.AppendBytes(protowire.AppendTag(nil, requestNonce, protowire.BytesType), v)
		case fieldResources:
			if r.resources++; mark != nil && bytes.Contains(v, mark) {
				r.marked++
			}
			all = append(all, v)
		}
	})
	if err == nil && len(all) > 0 {
		err = w.note(&r, all)
	}
	return r, err
}

// note keeps the versions of resources, where they are new.
func (w *content) note(r *response, all [][]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := w.versions[r.t]
	if known == nil {
		known = map[string]string{}
		w.versions[r.t] = known
	}
	for _, raw := range all {
		var name, version, body []byte
		if err := fields(raw, func(n protowire.Number, v []byte) {
			switch n {
			case fieldName:
				name = v
			case fieldVersion:
				version = v
			case fieldBody:
				body = v
			}
		}); err != nil {
			return err
		}
		if have, has := known[string(name)]; !has || have != string(version) {
			known[string(name)] = string(version)
			delete(w.requests, r.t)
			if r.t == translate.TypeListener {
				if err := w.listener(body); err != nil {
					return err
				}
			}
		}
		if r.t == translate.TypeCluster {
			r.names = append(r.names, string(name))
		}
	}
	r.filters = w.filters
	return nil
}

// listener finds the filters that a listener gets by ECDS.
func (w *content) listener(raw []byte) error {
	var body []byte
	if err := fields(raw, func(n protowire.Number, v []byte) {
		if n == 2 {
			body = v
		}
	}); err != nil {
		return err
	}
	var l listenerv3.Listener
	if err := proto.Unmarshal(body, &l); err != nil {
		return err
	}
	for _, chain := range l.GetFilterChains() {
		for _, f := range chain.GetFilters() {
			var m hcmv3.HttpConnectionManager
			if f.GetTypedConfig().UnmarshalTo(&m) != nil {
				continue
			}
			for _, h := range m.GetHttpFilters() {
				if h.GetConfigDiscovery() != nil && !slices.Contains(w.filters, h.GetName()) {
					w.filters = append(w.filters, h.GetName())
				}
			}
		}
	}
	return nil
}

// had says what a client has of a type, as fields of a request.
func (w *content) had(t translate.Type) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	if raw, known := w.requests[t]; known {
		return raw
	}
	var out []byte
	for _, name := range slices.Sorted(maps.Keys(w.versions[t])) {
		pair := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
		pair = protowire.AppendString(protowire.AppendTag(pair, 2, protowire.BytesType), w.versions[t][name])
		out = protowire.AppendBytes(protowire.AppendTag(out, requestInitial, protowire.BytesType), pair)
	}
	switch t {
	case translate.TypeEndpoint, translate.TypeExtension, translate.TypeRuntime:
		out = append(out, subscribe(slices.Sorted(maps.Keys(w.versions[t])))...)
	}
	w.requests[t] = out
	return out
}

func request(t translate.Type) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, requestType, protowire.BytesType), string(t))
}

func subscribe(names []string) (out []byte) {
	for _, n := range names {
		out = protowire.AppendString(protowire.AppendTag(out, requestSubscribe, protowire.BytesType), n)
	}
	return out
}

var types = []translate.Type{
	translate.TypeRuntime, translate.TypeCluster, translate.TypeEndpoint, translate.TypeSecret, translate.TypeExtension,
	translate.TypeListener, translate.TypeScope,
}

// typeOf does not allocate.
func typeOf(raw []byte) translate.Type {
	for _, t := range types {
		if string(raw) == string(t) {
			return t
		}
	}
	return translate.Type(raw)
}

// node is the field that names a client.
func node(id int) []byte {
	said, err := structpb.NewStruct(map[string]any{bootstrap.MetadataSpace: map[string]any{
		bootstrap.MetadataRuntime: true, bootstrap.MetadataLogFile: true,
	}})
	if err != nil {
		return nil
	}
	raw, err := proto.Marshal(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{
		Id:      fmt.Sprintf("fan-%d", id),
		Cluster: "default", Metadata: said,
	}})
	if err != nil {
		return nil
	}
	return raw
}
