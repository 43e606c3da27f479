package translate

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// systemRoots is where the Debian and distroless images keep the system's certificate authorities.
const systemRoots = "/etc/ssl/certs/ca-certificates.crt"

// builtService is what became of a service.
type builtService struct {
	cluster *Resource
	// endpoints are nil while a name has not been answered yet.
	endpoints *Resource
	certs     map[string]certUse
	// names are those of its endpoints.
	names []string
	// kept says that it is served as it was. There is neither a cluster nor endpoints then.
	kept bool
}

// service makes a cluster of a service, and its endpoints, of what they were, nil for nothing. The cluster has the
// service's name, or is a sink's. While names of its endpoints have no address, its last form stays, cluster and
// endpoints: they belong together, as a protocol belongs to a port.
func (v *view) service(name, service string, s *configv1.Service, was, wasEndpoints *Resource) builtService {
	sets := v.st.EndpointSetsOf(service)
	found := v.endpoints(name, service, s, sets)
	out := builtService{names: found.names}
	if found.wanting() && was != nil && len(placesOf(wasEndpoints)) > 0 {
		out.kept = true
		return out
	}
	ref := resource.Ref{Kind: resource.KindService, Name: service}
	out.certs = serviceCerts(s)
	c := cluster(service, s)
	if c.Name = name; IsSink(name) {
		boundSink(c, s)
	}
	out.cluster = newResource(name, c, nil, ref)
	out.cluster.Secrets = secrets(out.certs)
	out.cluster.Together = together(out.cluster.Secrets)
	if !found.pending {
		out.endpoints = newResource(name, found.cla, nil, ref)
		for _, o := range sets {
			out.endpoints.Objects = append(out.endpoints.Objects, o.Ref())
		}
		out.endpoints.Partial = found.unresolved && adds(out.endpoints, wasEndpoints)
		if found.assignment.near() {
			found.assignment.locate(out.endpoints)
		}
	}
	return out
}

// endpoints are what a service's endpoints came to.
type endpoints struct {
	// cla is the assignment for an Envoy that does not say where it is.
	cla        *endpointv3.ClusterLoadAssignment
	assignment assignment
	names      []string
	// pending says that a name has not been answered yet, unresolved that one has no address.
	pending, unresolved bool
}

// wanting says whether there is nothing yet to take the place of other endpoints.
func (e endpoints) wanting() bool {
	return e.pending || (e.unresolved && len(e.cla.GetEndpoints()) == 0)
}

// place is a locality of a priority.
type place struct {
	priority uint32
	locality.Place
}

// endpoints are a service's own and those of the sets that add to it.
func (v *view) endpoints(name, service string, s *configv1.Service, sets []*resource.Object) endpoints {
	places := map[place][]*endpointv3.LbEndpoint{}
	out := endpoints{assignment: assignment{cluster: name, policy: s.GetLocality()}}
	for _, e := range s.GetEndpoints() {
		p := place{e.GetPriority(), locality.Of(e)}
		for _, a := range v.addresses(&out, e.GetHost()) {
			places[p] = append(places[p], lbEndpoint(a, e))
		}
	}
	v.add(&out, places, sets)
	v.drain(places)
	keep(s, places)
	keys := slices.SortedFunc(maps.Keys(places), func(a, b place) int {
		return compareAll(int(a.priority)-int(b.priority), a.Place.Compare(b.Place))
	})
	for _, p := range keys {
		out.assignment.groups = append(out.assignment.groups, localEndpoints{p, places[p]})
	}
	if v.opt.Measured != nil {
		out.assignment.measure(v.opt.Measured(service))
	}
	out.cla = out.assignment.at(locality.Place{})
	return out
}

// addresses are those of a host, and out has noted what is to be known of it if it is a name.
func (v *view) addresses(out *endpoints, host string) []netip.Addr {
	if ip, err := netip.ParseAddr(host); err == nil && (v.opt.Refused == nil || !v.opt.Refused(ip)) {
		return []netip.Addr{ip}
	}
	out.names = append(out.names, host)
	found, known := v.opt.Resolve(host)
	out.pending = out.pending || !known
	out.unresolved = out.unresolved || len(found) == 0
	return found
}

// lbEndpoint is one address of an endpoint.
func lbEndpoint(a netip.Addr, e interface {
	GetHost() string
	GetPort() uint32
	GetWeight() uint32
},
) *endpointv3.LbEndpoint {
	lb := &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
		Address: address(a.String(), e.GetPort()), Hostname: hostname(e.GetHost()),
	}}}
	if e.GetWeight() > 0 {
		lb.LoadBalancingWeight = wrapperspb.UInt32(e.GetWeight())
	}
	return lb
}

// adds says whether endpoints only add to others that were partial too, so that what an Envoy has of an earlier
// life of this server may still be more than both.
func adds(r, to *Resource) bool {
	if to == nil {
		return true
	}
	now := placesOf(r)
	for p := range placesOf(to) {
		if !now[p] {
			return false
		}
	}
	return to.Partial
}

// placesOf are the single endpoints of a ClusterLoadAssignment, with all that is said of them.
func placesOf(r *Resource) map[string]bool {
	var cla endpointv3.ClusterLoadAssignment
	if r == nil || r.Body.UnmarshalTo(&cla) != nil {
		return nil
	}
	out := map[string]bool{}
	for _, l := range cla.GetEndpoints() {
		where := fmt.Sprintf("%d %q %q ", l.GetPriority(), l.GetLocality().GetRegion(), l.GetLocality().GetZone())
		for _, e := range l.GetLbEndpoints() {
			out[where+string(pack(e).GetValue())] = true
		}
	}
	return out
}

func hostname(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	return host
}

func cluster(name string, s *configv1.Service) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name:                 name,
		ConnectTimeout:       orElse(s.GetConnectTimeout(), 5*time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()},
		// An endpoint that has been taken away gets no more requests, however healthy it looks.
		IgnoreHealthOnHostRemoval:     true,
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(32 << 10),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(httpOptions(s)),
		},
		TransportSocket: upstreamTLS(s),
	}
	balance(c, s.GetLoadBalancing())
	checkHealth(c, name, s)
	if d := s.GetOutlierDetection(); d != nil {
		c.OutlierDetection = outliers(d)
	}
	if s.GetHealthCheck() != nil || s.GetOutlierDetection() != nil {
		c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{
			HealthyPanicThreshold: &typev3.Percent{Value: panicThreshold(s)}, UpdateMergeWindow: durationpb.New(mergeWindow),
		}
	}
	if split(s.GetLocality()) {
		if c.CommonLbConfig == nil {
			c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{}
		}
		c.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
		}
	}
	b := s.GetCircuitBreaker()
	atMost := func(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(orNumber(n, serviceLimit)) }
	c.CircuitBreakers = &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: atMost(b.GetMaxConnections()), MaxPendingRequests: atMost(b.GetMaxPendingRequests()),
		MaxRequests: atMost(b.GetMaxRequests()), MaxRetries: positive(b.GetMaxRetries()),
	}}}
	if b.GetMaxRetries() == 0 && several(s) {
		// When an endpoint or a place dies all its requests are tried elsewhere: Envoy's 3 at a time would fail most of them.
		c.CircuitBreakers.Thresholds[0].MaxRetries = wrapperspb.UInt32(serviceLimit)
	}
	return c
}

// mergeWindow is how long Envoy gathers what it has learned of endpoints' health after it has told its workers of one. In
// its own 1s requests still go to the second endpoint that dies, for that long.
const mergeWindow = 50 * time.Millisecond

// serviceLimit is how many connections and requests of a service an Envoy has at a time, where nothing is set. Envoy's
// own 1,024 are what one address may have (perAddress), and eleven connections of HTTP/2: who holds those open has the
// service to himself.
const serviceLimit = 4096

// panicThreshold is 1 where nothing is set, the least that Envoy knows besides "never". Its own 50 sends two thirds of
// the requests to two dead endpoints of three; never would answer 503 while a new service's first checks are out.
func panicThreshold(s *configv1.Service) float64 {
	if s.PanicThreshold != nil {
		return float64(s.GetPanicThreshold())
	}
	return 1
}

func positive(n uint32) *wrapperspb.UInt32Value {
	if n == 0 {
		return nil
	}
	return wrapperspb.UInt32(n)
}

func isHTTP2(s *configv1.Service) bool {
	return s.GetProtocol() == configv1.Service_http2 || s.GetProtocol() == configv1.Service_grpc
}

func httpOptions(s *configv1.Service) *httpv3.HttpProtocolOptions {
	o := &httpv3.HttpProtocolOptions{CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
		IdleTimeout: orElse(s.GetIdleTimeout(), time.Hour),
	}}
	explicit := &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
		},
	}
	if isHTTP2(s) {
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
				MaxConcurrentStreams: wrapperspb.UInt32(100), InitialStreamWindowSize: wrapperspb.UInt32(1 << 20),
				InitialConnectionWindowSize: wrapperspb.UInt32(16 << 20),
			},
		}
	}
	o.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit}
	return o
}

func usesTLS(s *configv1.Service) bool {
	return s.GetProtocol() == configv1.Service_https || s.GetTls() != nil
}

func upstreamTLS(s *configv1.Service) *corev3.TransportSocket {
	if !usesTLS(s) {
		return nil
	}
	t := s.GetTls()
	common := &tlsv3.CommonTlsContext{AlpnProtocols: []string{"http/1.1"}}
	if isHTTP2(s) {
		common.AlpnProtocols = []string{"h2"}
	}
	if c := t.GetClientCertificate(); c != "" {
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{{Name: certSecret(c), SdsConfig: sds()}}
	}
	out := &tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: t.GetSni(), MaxSessionKeys: wrapperspb.UInt32(8)}
	if t.GetSni() == "" { // the name sent, and verified, is that of the endpoint
		out.AutoHostSni = true
		out.AutoSniSanValidation = !t.GetInsecureSkipVerify()
	}
	own := &tlsv3.CertificateValidationContext{}
	if t.GetSni() != "" {
		own.MatchTypedSubjectAltNames = []*tlsv3.SubjectAltNameMatcher{{
			SanType: tlsv3.SubjectAltNameMatcher_DNS,
			Matcher: exactly(t.GetSni()),
		}}
	}
	switch {
	case t.GetInsecureSkipVerify():
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{
			ValidationContext: &tlsv3.CertificateValidationContext{
				TrustChainVerification: tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED,
			},
		}
	case t.GetCaCertificate() != "":
		common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: own, ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{
					Name: caSecret(t.GetCaCertificate()), SdsConfig: sds(),
				},
			},
		}
	default:
		own.TrustedCa = &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: systemRoots}}
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: own}
	}
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{
		TypedConfig: pack(out),
	}}
}

func balance(c *clusterv3.Cluster, lb *configv1.LoadBalancing) {
	var slow *clusterv3.Cluster_SlowStartConfig
	if lb.GetSlowStart() != nil {
		slow = &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: lb.GetSlowStart()}
	}
	switch lb.GetPolicy() {
	case configv1.LoadBalancing_least_request:
		c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
		cfg := &clusterv3.Cluster_LeastRequestLbConfig{SlowStartConfig: slow}
		if lb.GetChoiceCount() > 0 {
			cfg.ChoiceCount = wrapperspb.UInt32(max(lb.GetChoiceCount(), 2))
		}
		c.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: cfg}
	case configv1.LoadBalancing_ring_hash:
		c.LbPolicy = clusterv3.Cluster_RING_HASH
		if n := lb.GetMinRingSize(); n > 0 {
			c.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{
				MinimumRingSize: wrapperspb.UInt64(uint64(n)),
			}}
		}
	case configv1.LoadBalancing_maglev:
		c.LbPolicy = clusterv3.Cluster_MAGLEV
		if n := lb.GetTableSize(); n > 0 {
			c.LbConfig = &clusterv3.Cluster_MaglevLbConfig_{MaglevLbConfig: &clusterv3.Cluster_MaglevLbConfig{
				TableSize: wrapperspb.UInt64(uint64(n)),
			}}
		}
	case configv1.LoadBalancing_random:
		c.LbPolicy = clusterv3.Cluster_RANDOM
	default:
		c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
		if slow != nil {
			c.LbConfig = &clusterv3.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &clusterv3.Cluster_RoundRobinLbConfig{
				SlowStartConfig: slow,
			}}
		}
	}
}

func checkHealth(c *clusterv3.Cluster, name string, s *configv1.Service) {
	h := s.GetHealthCheck()
	if h == nil {
		return
	}
	hc := &corev3.HealthCheck{
		Interval: orElse(h.GetInterval(), 10*time.Second), Timeout: orElse(h.GetTimeout(), 2*time.Second),
		HealthyThreshold:   wrapperspb.UInt32(max(h.GetHealthyThreshold(), 1)),
		UnhealthyThreshold: wrapperspb.UInt32(orNumber(h.GetUnhealthyThreshold(), 3)),
		NoTrafficInterval:  orElse(h.GetInterval(), 10*time.Second),
	}
	switch check := h.GetCheck().(type) {
	case *configv1.HealthCheck_Http:
		path := check.Http.GetPath()
		if path == "" {
			path = "/"
		}
		cfg := &corev3.HealthCheck_HttpHealthCheck{Path: path, Host: check.Http.GetHost()}
		if cfg.Host == "" {
			cfg.Host = name
		}
		if isHTTP2(s) {
			cfg.CodecClientType = typev3.CodecClientType_HTTP2
		}
		for _, status := range check.Http.GetExpectedStatuses() {
			cfg.ExpectedStatuses = append(cfg.ExpectedStatuses, &typev3.Int64Range{Start: int64(status), End: int64(status) + 1})
		}
		hc.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: cfg}
	case *configv1.HealthCheck_Grpc:
		hc.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{
			ServiceName: check.Grpc.GetService(),
		}}
	default:
		hc.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{}}
	}
	c.HealthChecks = []*corev3.HealthCheck{hc}
	// An Envoy that starts serves before its first checks are back: until some endpoint is known to be healthy it tries
	// them all (panicThreshold). Waiting would keep its listeners closed. A cluster that comes later warms until each
	// endpoint was checked once, whatever is said here.
	c.WaitForWarmOnInit = wrapperspb.Bool(false)
}

func orNumber(n, def uint32) uint32 {
	if n == 0 {
		return def
	}
	return n
}

func outliers(d *configv1.OutlierDetection) *clusterv3.OutlierDetection {
	out := &clusterv3.OutlierDetection{
		Consecutive_5Xx:           positive(d.GetConsecutive_5Xx()),
		ConsecutiveGatewayFailure: positive(d.GetConsecutiveGatewayFailure()),
		Interval:                  d.GetInterval(), BaseEjectionTime: d.GetBaseEjectionTime(),
		MaxEjectionPercent: wrapperspb.UInt32(orNumber(d.GetMaxEjectionPercent(), 50)),
		// Of two to four endpoints none would be ejected otherwise, whatever they answer.
		AlwaysEjectOneHost: wrapperspb.Bool(true),
	}
	if d.GetConsecutiveGatewayFailure() > 0 {
		out.EnforcingConsecutiveGatewayFailure = wrapperspb.UInt32(100)
	}
	return out
}

// inOrder says whether some endpoints of a service are for when others fail.
func inOrder(s *configv1.Service) bool {
	return s.GetLocality() != nil || slices.ContainsFunc(s.GetEndpoints(), func(e *configv1.Endpoint) bool {
		return e.GetPriority() > 0
	})
}

// several says whether a service may have another endpoint when one cannot be reached: all but those of one address. It is
// decided by the service alone, so that its routes stay as they are when endpoint sets and names change.
func several(s *configv1.Service) bool {
	if inOrder(s) || len(s.GetEndpoints()) != 1 {
		return true
	}
	return hostname(s.GetEndpoints()[0].GetHost()) != "" // which may have several addresses
}

// traitsOf is what the routes to a service depend on; empty for the ordinary.
func traitsOf(s *configv1.Service) string {
	t := ""
	if s.GetProtocol() == configv1.Service_grpc {
		t = "grpc;"
	}
	if several(s) {
		t += "several;"
	}
	if inOrder(s) {
		t += "order;"
	}
	if p := s.GetLoadBalancing().GetPolicy(); p == configv1.LoadBalancing_ring_hash || p == configv1.LoadBalancing_maglev {
		t += "hash:" + strconv.Itoa(len(s.GetLoadBalancing().GetHashOn()))
		for _, h := range s.GetLoadBalancing().GetHashOn() {
			t += fmt.Sprintf(
				"%T%q/%q/%q/%t/%v;",
				h.GetSource(),
				h.GetHeader(),
				h.GetQuery(),
				h.GetCookie().GetName()+h.GetCookie().GetPath(),
				h.GetTerminal(),
				h.GetCookie().GetTtl().AsDuration(),
			)
		}
	}
	return t
}
