package translate

import (
	"hash/fnv"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	staticv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/cert_mappers/static_name/v3"
	ondemandv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/cert_selectors/on_demand_secret/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// An Envoy asks for a secret on demand when the first client does, which is too late while no xDS server can be
// reached. So clusters without endpoints, the carriers, have it ask before: each lists some names in
// prefetch_secret_names, and the listeners share what came. A listener's own list would do it once only, and change
// the listener. No carrier is waited for, neither for its start nor for a secret of it.

const (
	carrierPrefix = "certificates/"
	// perCarrier is how many names one has at most: so many are read again when one of them comes or goes.
	perCarrier = 16
)

// IsCarrier says whether a cluster is one, and no service.
func IsCarrier(name string) bool { return strings.HasPrefix(name, carrierPrefix) }

// carriers says which carrier has which name. The first bits of a name's hash choose it, as few of them as leave no
// carrier with too many names. That depends on nothing but the names, so that every server finds the same, and one
// name more changes one carrier, or parts one in two. The zero value has no names.
type carriers struct{ root carrierNode }

// carrierNode has the names whose hashes begin with some bits: a carrier, or two nodes below.
type carrierNode struct {
	names []string // in order; nil where it is parted
	count int
	parts *[2]carrierNode
}

func hashOf(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	// The last bits of FNV-1a depend on every byte, the first ones hardly on the last bytes of a name.
	x := h.Sum64()
	x ^= x >> 32
	return x * 0x9e3779b97f4a7c15
}

func bit(hash uint64, depth int) uint64 { return hash >> (63 - depth) & 1 }

// of is the carrier of a name, whether it is there or not.
func (c *carriers) of(name string) string {
	hash, h, id := hashOf(name), &c.root, []byte(carrierPrefix)
	for depth := 0; h.parts != nil; depth++ {
		b := bit(hash, depth)
		h, id = &h.parts[b], append(id, '0'+byte(b))
	}
	return string(id)
}

// change adds a name, or takes it away, and calls back with every carrier that is another one then: nil is one without
// names.
func (c *carriers) change(name string, add bool, changed func(id string, names []string)) {
	h, id, hash := &c.root, carrierPrefix, hashOf(name)
	by := 1
	if !add {
		by = -1
	}
	for depth := 0; ; depth++ {
		if h.count += by; h.parts != nil && h.count <= perCarrier {
			h.names = h.gather(id, nil, changed)
			h.parts = nil
			slices.Sort(h.names)
		}
		if h.parts == nil {
			if i, has := slices.BinarySearch(h.names, name); add && !has {
				h.names = slices.Insert(h.names, i, name)
			} else if !add && has {
				h.names = slices.Delete(h.names, i, i+1)
			}
			if h.count > perCarrier && depth < 64 {
				changed(id, nil)
			}
			h.part(id, depth, changed)
			return
		}
		b := bit(hash, depth)
		h, id = &h.parts[b], id+string('0'+byte(b))
	}
}

// gather takes the names out of all carriers below.
func (h *carrierNode) gather(id string, into []string, changed func(string, []string)) []string {
	if h.parts == nil {
		if len(h.names) > 0 {
			changed(id, nil)
		}
		return append(into, h.names...)
	}
	return h.parts[1].gather(id+"1", h.parts[0].gather(id+"0", into, changed), changed)
}

// part makes two of a carrier that has too many names, as often as it takes.
func (h *carrierNode) part(id string, depth int, changed func(string, []string)) {
	if h.count <= perCarrier || depth == 64 {
		if changed(id, slices.Clone(h.names)); h.count == 0 {
			h.names = nil
		}
		return
	}
	h.parts = new([2]carrierNode)
	for _, n := range h.names {
		to := &h.parts[bit(hashOf(n), depth)]
		to.names, to.count = append(to.names, n), to.count+1
	}
	h.names = nil
	for b := range h.parts {
		if h.parts[b].count > 0 {
			h.parts[b].part(id+string('0'+byte(b)), depth+1, changed)
		}
	}
}

func carrier(name string, names []string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		TransportSocket: &corev3.TransportSocket{
			Name: "envoy.transport_sockets.tls",
			ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(&tlsv3.UpstreamTlsContext{
				CommonTlsContext: &tlsv3.CommonTlsContext{CustomTlsCertificateSelector: onDemand(&corev3.TypedExtensionConfig{
					Name: "envoy.tls.certificate_mappers.static_name", TypedConfig: pack(&staticv3.StaticName{Name: AnyName}),
				}, names...)},
			})},
		},
	}
}

// onDemand has Envoy ask for a certificate in the handshake, by the name that the mapper makes.
func onDemand(mapper *corev3.TypedExtensionConfig, early ...string) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{
		Name: "envoy.tls.certificate_selectors.on_demand_secret",
		TypedConfig: pack(&ondemandv3.Config{
			ConfigSource: ads(), CertificateMapper: mapper, PrefetchSecretNames: early,
		}),
	}
}
