package translate

import (
	"hash/fnv"
	"slices"
	"strconv"
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

// spread deals names out to carriers, by the first bits of their hash: as few as leave no carrier too many. That
// depends on nothing but the names, so that every server finds the same, and one name more changes one carrier, or
// parts one in two.
func spread(names []string) map[string][]string {
	type hashed struct {
		hash uint64
		name string
	}
	all := make([]hashed, len(names))
	for i, n := range names {
		h := fnv.New64a()
		_, _ = h.Write([]byte(n)) // never fails
		// The last bits of FNV-1a depend on every byte, the first ones hardly on the last bytes of a name.
		x := h.Sum64()
		x ^= x >> 32
		x *= 0x9e3779b97f4a7c15
		all[i] = hashed{x, n}
	}
	slices.SortFunc(all, func(a, b hashed) int {
		if a.hash != b.hash {
			if a.hash < b.hash {
				return -1
			}
			return 1
		}
		return compare(a.name, b.name)
	})
	out := map[string][]string{}
	var part func(in []hashed, depth int)
	part = func(in []hashed, depth int) {
		if len(in) == 0 {
			return
		}
		if len(in) <= perCarrier || depth == 64 {
			bits := strconv.FormatUint(in[0].hash>>(64-depth), 2)
			if depth == 0 {
				bits = ""
			}
			list := make([]string, len(in))
			for i, x := range in {
				list[i] = x.name
			}
			slices.Sort(list)
			out[carrierPrefix+strings.Repeat("0", depth-len(bits))+bits] = list
			return
		}
		at, _ := slices.BinarySearchFunc(in, (in[0].hash>>(63-depth)|1)<<(63-depth), func(x hashed, t uint64) int {
			switch {
			case x.hash < t:
				return -1
			case x.hash > t:
				return 1
			default:
				return 0
			}
		})
		part(in[:at], depth+1)
		part(in[at:], depth+1)
	}
	part(all, 0)
	return out
}

func carrier(name string, names []string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		TransportSocket: &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(&tlsv3.UpstreamTlsContext{
			CommonTlsContext: &tlsv3.CommonTlsContext{CustomTlsCertificateSelector: onDemand(&corev3.TypedExtensionConfig{
				Name: "envoy.tls.certificate_mappers.static_name", TypedConfig: pack(&staticv3.StaticName{Name: AnyName}),
			}, names...)},
		})}},
	}
}

// onDemand has Envoy ask for a certificate in the handshake, by the name that the mapper makes.
func onDemand(mapper *corev3.TypedExtensionConfig, early ...string) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{Name: "envoy.tls.certificate_selectors.on_demand_secret", TypedConfig: pack(&ondemandv3.Config{
		ConfigSource: ads(), CertificateMapper: mapper, PrefetchSecretNames: early,
	})}
}
