package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// pack marshals a message deterministically.
func pack(m proto.Message) *anypb.Any {
	b, err := (proto.MarshalOptions{Deterministic: true}).Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("translate: marshal %T: %v", m, err)) // strings were checked for UTF-8 when decoded
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: b}
}

func newResource(name string, m proto.Message, clusters []string, objects ...resource.Ref) *Resource {
	body := pack(m)
	return &Resource{
		Key: Key{Type(body.TypeUrl), name}, Body: body, Version: VersionOf(body.Value),
		Clusters: clusters, Objects: objects,
	}
}

// VersionOf is the version of content: its digest, so that the same content is the same version at every server and
// after every restart.
func VersionOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:16])
}

// ads is where Envoy gets what a resource refers to.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{
		Ads: &corev3.AggregatedConfigSource{},
	}}
}

// sds is where Envoy gets secrets. An xDS server answers at once, also for those that do not exist; where that
// is lost, no listener waits for longer than this.
func sds() *corev3.ConfigSource {
	out := ads()
	out.InitialFetchTimeout = durationpb.New(2 * time.Second)
	return out
}

func address(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

// orElse is d, or a default where it is absent.
func orElse(d *durationpb.Duration, def time.Duration) *durationpb.Duration {
	if d == nil {
		return durationpb.New(def)
	}
	return d
}
