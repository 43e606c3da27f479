package ads_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"unicode"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	statusv3 "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"
)

const (
	cluster      = translate.TypeCluster
	endpoint     = translate.TypeEndpoint
	listener     = translate.TypeListener
	scope        = translate.TypeScope
	filterConfig = translate.TypeExtension
	secret       = translate.TypeSecret
)

// needsFilter is how the content of a route begins that may not come before a filter config; the number of that
// follows.
const needsFilter = "needs "

// number is the first one in a text; 0 without any.
func number(text string) (n int) {
	text = strings.TrimLeftFunc(text, func(r rune) bool { return !unicode.IsDigit(r) })
	_, _ = fmt.Sscanf(text, "%d", &n) // 0 otherwise
	return n
}

// res makes a resource whose content is a text. An Envoy of this test refuses what has "bad" in it.
func res(t translate.Type, name, text string, clusters ...string) *translate.Resource {
	return &translate.Resource{
		Key: translate.Key{Type: t, Name: name}, Body: &anypb.Any{
			TypeUrl: string(t),
			Value:   []byte(strings.Join(clusters, ",") + ";" + text),
		},
		Version: text + "<" + strings.Join(clusters, ","), Clusters: clusters,
		Objects: []resource.Ref{{Kind: resource.KindRoute, Name: name}},
	}
}

// service is a cluster with its endpoints.
func service(name, text string) []*translate.Resource {
	return []*translate.Resource{res(cluster, name, text), res(endpoint, name, text)}
}

func newGateway() *ads.Gateway {
	return ads.NewGateway("default", ads.Options{OnChange: func() {}, Log: zap.NewNop()})
}

// directory has one gateway.
type directory struct{ g *ads.Gateway }

func (d directory) Gateway(string) (*ads.Gateway, bool) { return d.g, true }
func (d directory) Admit(string, string) bool           { return true }

// envoy is a delta client written by hand: it subscribes as Envoy does, acknowledges, refuses, and fails the test
// when it is sent what would cost requests: a scope or listener before its clusters with their endpoints, or the
// removal of a cluster that it uses; or what would let somebody in: a filter config that does not look at what routes
// say while it has one that says something.
type envoy struct {
	grpc.ServerStream
	t    *testing.T
	name string
	ctx  context.Context
	in   chan *discoveryv3.DeltaDiscoveryRequest
	out  chan *discoveryv3.DeltaDiscoveryResponse
	stop context.CancelFunc
	done chan error

	has map[translate.Type]map[string]*discoveryv3.Resource
	// metadata is what its bootstrap says of it.
	metadata *structpb.Struct
	// place is where it is.
	place *corev3.Locality
	// filterConfigs are asked for when it dials: before its route tables.
	filterConfigs []string
	// waiting are responses that have neither been accepted nor refused, in order.
	waiting []*discoveryv3.DeltaDiscoveryResponse
	// refusal is what it says of a bad resource.
	refusal func(bad string) string
	// refused are resources that it has refused on their own, by content.
	refused map[string]bool
	// stored are the contents of secrets that it was sent last, taken or not.
	stored map[string]string
	// together are the secrets of one TLS context, which it judges when it has them all.
	together []string
	log      []string
	// refusesAll has it refuse every filter config: its filters' files are missing.
	refusesAll bool
}

func (e *envoy) Context() context.Context { return e.ctx }

func (e *envoy) Send(r *discoveryv3.DeltaDiscoveryResponse) error {
	e.out <- r
	return nil
}

func (e *envoy) Recv() (*discoveryv3.DeltaDiscoveryRequest, error) {
	select {
	case r := <-e.in:
		return r, nil
	case <-e.ctx.Done():
		return nil, e.ctx.Err()
	}
}

// connect is a new Envoy that asks for everything that Envoys ask for, and for these filter configs.
func connect(t *testing.T, g *ads.Gateway, name string, filterConfigs ...string) *envoy {
	return connectAt(t, g, name, nil, filterConfigs...)
}

// connectAt is a new Envoy somewhere.
func connectAt(t *testing.T, g *ads.Gateway, name string, at *corev3.Locality, filterConfigs ...string) *envoy {
	e := &envoy{
		t: t, name: name, filterConfigs: filterConfigs, has: map[translate.Type]map[string]*discoveryv3.Resource{},
		refused: map[string]bool{}, stored: map[string]string{}, place: at,
	}
	for _, typ := range []translate.Type{cluster, endpoint, listener, scope, filterConfig, secret} {
		e.has[typ] = map[string]*discoveryv3.Resource{}
	}
	e.refusal = func(string) string { return "something is wrong with one of them" }
	e.dial(g)
	return e
}

// dial opens a stream, and says on it what the Envoy has.
func (e *envoy) dial(g *ads.Gateway) {
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.in, e.out, e.done = make(chan *discoveryv3.DeltaDiscoveryRequest, 10000),
		make(chan *discoveryv3.DeltaDiscoveryResponse, 10000), make(chan error, 1)
	e.waiting = nil
	go func() { e.done <- ads.NewServer(directory{g}).DeltaAggregatedResources(e) }()
	e.t.Cleanup(e.stop)
	types := []translate.Type{cluster, listener, filterConfig, scope}
	if len(e.has[listener]) > 0 {
		types = []translate.Type{filterConfig, cluster, listener, scope} // it knows what it follows
	}
	for _, typ := range types {
		r := &discoveryv3.DeltaDiscoveryRequest{
			Node: &corev3.Node{Id: e.name, Metadata: e.metadata, Locality: e.place}, TypeUrl: string(typ),
			InitialResourceVersions: e.versions(typ),
		}
		if typ == filterConfig {
			r.ResourceNamesSubscribe = e.filterConfigs
		}
		if typ != filterConfig || len(e.filterConfigs) > 0 {
			e.in <- r
			e.read()
		}
	}
	if names := e.versions(secret); len(names) > 0 {
		e.in <- &discoveryv3.DeltaDiscoveryRequest{
			TypeUrl:                string(secret),
			ResourceNamesSubscribe: slices.Sorted(maps.Keys(e.stored)), InitialResourceVersions: names,
		}
	}
	if names := e.versions(cluster); len(names) > 0 { // of every cluster, whether their endpoints ever came or not
		e.in <- &discoveryv3.DeltaDiscoveryRequest{
			TypeUrl:                string(endpoint),
			ResourceNamesSubscribe: slices.Sorted(maps.Keys(names)), InitialResourceVersions: e.versions(endpoint),
		}
	}
	e.read()
}

func (e *envoy) versions(typ translate.Type) map[string]string {
	out := map[string]string{}
	for name, r := range e.has[typ] {
		out[name] = r.GetVersion()
	}
	return out
}

// ask subscribes to what something refers to by name.
func (e *envoy) ask(typ translate.Type, name string) {
	e.in <- &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(typ), ResourceNamesSubscribe: []string{name}}
	e.read()
}

// hangUp ends the stream; what the Envoy has stays.
func (e *envoy) hangUp() {
	e.stop()
	if err := <-e.done; err == nil {
		e.t.Error("the stream ended without being cut")
	}
	synctest.Wait()
}

// read takes in what has been sent.
func (e *envoy) read() {
	synctest.Wait()
	for {
		select {
		case r := <-e.out:
			var names []string
			for _, x := range r.GetResources() {
				names = append(names, x.GetName())
			}
			for _, n := range r.GetRemovedResources() {
				names = append(names, "-"+n)
			}
			e.log = append(e.log, ads.ShortType(translate.Type(r.GetTypeUrl()))+" "+strings.Join(names, " "))
			e.waiting = append(e.waiting, r)
		default:
			return
		}
	}
}

// answer accepts or refuses the oldest response; not ok where there is none.
func (e *envoy) answer() bool {
	e.read()
	if len(e.waiting) == 0 {
		return false
	}
	r := e.waiting[0]
	e.waiting = e.waiting[1:]
	typ := translate.Type(r.GetTypeUrl())
	bad := ""
	same := map[string]bool{}
	for _, x := range r.GetResources() {
		if typ == secret {
			// What it was sent last is what it compares with, and it takes the same again without a look.
			content := string(x.GetResource().GetValue())
			same[x.GetName()] = e.stored[x.GetName()] == content
			if e.stored[x.GetName()] = content; same[x.GetName()] {
				continue
			}
			if len(r.GetResources()) > 1 {
				e.t.Errorf("%d secrets in one response", len(r.GetResources()))
			}
		}
		if e.isBad(x) || (e.refusesAll && typ == filterConfig) {
			bad = x.GetName()
			if content := string(x.GetResource().GetValue()); len(r.GetResources()) == 1 {
				e.refused[x.GetName()+content] = true
			} else if e.refused[x.GetName()+content] {
				e.t.Errorf("%s was sent again among others after it had been refused", x.GetName())
			}
		}
	}
	reply := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
	if bad != "" {
		reply.ErrorDetail = &statusv3.Status{Message: e.refusal(bad)}
		e.in <- reply
		synctest.Wait()
		return true
	}
	for _, x := range r.GetResources() {
		if !same[x.GetName()] {
			e.put(typ, x)
		}
	}
	for _, n := range r.GetRemovedResources() {
		e.remove(typ, n)
	}
	e.in <- reply
	synctest.Wait()
	return true
}

// isBad says whether it refuses a resource.
func (e *envoy) isBad(x *discoveryv3.Resource) bool {
	if !slices.Contains(e.together, x.GetName()) {
		return strings.Contains(string(x.GetResource().GetValue()), "bad")
	}
	bad := false
	for _, name := range e.together {
		content, has := e.stored[name]
		if !has {
			return false
		}
		bad = bad || strings.Contains(content, weakMark)
	}
	return bad
}

func (e *envoy) put(typ translate.Type, x *discoveryv3.Resource) {
	if typ == scope || typ == listener {
		for _, c := range uses(x) {
			if e.has[cluster][c] == nil || e.has[endpoint][c] == nil {
				e.t.Errorf("%s was sent %s before cluster %s with its endpoints:\n%s", e.name, x.GetName(), c,
					strings.Join(e.log, "\n"))
			}
		}
	}
	if typ == endpoint && e.has[cluster][x.GetName()] == nil {
		return // sent before the Envoy's word came that it has no such cluster any more
	}
	if typ == cluster {
		// A request of its own type, as Envoy makes it. For a changed cluster, whose warming waits for endpoints
		// too, it makes none: it has asked already.
		if e.has[cluster][x.GetName()] == nil {
			e.in <- &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(endpoint), ResourceNamesSubscribe: []string{x.GetName()}}
		}
	}
	e.has[typ][x.GetName()] = x
	if text, ok := strings.CutPrefix(e.texts(scope)[x.GetName()], needsFilter); ok && typ == scope {
		if has := e.texts(filterConfig)["auth"]; number(has) < number(text) {
			e.t.Errorf("%s was sent %s, which needs filter config %s, and has %q:\n%s", e.name, x.GetName(), text, has,
				strings.Join(e.log, "\n"))
		}
	}
	for name, text := range e.texts(scope) {
		if content := e.texts(filterConfig)["auth"]; strings.HasPrefix(text, "says") &&
			(content == "wide" || content == "open") {
			e.t.Errorf("%s has %s, which says something, with a filter config that does not look:\n%s", e.name, name,
				strings.Join(e.log, "\n"))
		}
	}
}

func (e *envoy) remove(typ translate.Type, name string) {
	if typ == cluster {
		for _, t := range []translate.Type{scope, listener} {
			for _, x := range e.has[t] {
				if slices.Contains(uses(x), name) {
					e.t.Errorf("%s was told to remove cluster %s, which %s uses:\n%s", e.name, name, x.GetName(),
						strings.Join(e.log, "\n"))
				}
			}
		}
		if e.has[cluster][name] != nil {
			e.in <- &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(endpoint), ResourceNamesUnsubscribe: []string{name}}
		}
		delete(e.has[endpoint], name)
	}
	delete(e.has[typ], name)
}

func uses(x *discoveryv3.Resource) []string {
	list, _, _ := strings.Cut(string(x.GetResource().GetValue()), ";")
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// settle answers everything until nothing comes any more.
func (e *envoy) settle() {
	for e.answer() {
	}
}

// texts are the contents that the Envoy has, without the clusters.
func (e *envoy) texts(typ translate.Type) map[string]string {
	out := map[string]string{}
	for name, x := range e.has[typ] {
		_, out[name], _ = strings.Cut(string(x.GetResource().GetValue()), ";")
	}
	return out
}

// want fails unless the Envoy has exactly these.
func (e *envoy) want(typ translate.Type, want map[string]string) {
	e.t.Helper()
	if got := e.texts(typ); !maps.Equal(got, want) {
		e.t.Errorf("%s has %s %v, want %v; it was sent:\n%s", e.name, ads.ShortType(typ), got, want,
			strings.Join(e.log, "\n"))
	}
}

// sent fails unless exactly these responses came since the last call.
func (e *envoy) sent(want ...string) {
	e.t.Helper()
	e.read()
	if !slices.Equal(e.log, want) {
		e.t.Errorf("%s was sent %q, want %q", e.name, e.log, want)
	}
	e.log = nil
}

func apply(g *ads.Gateway, revision int64, upserts []*translate.Resource, removes ...translate.Key) {
	g.Apply(revision, translate.Delta{Upserts: upserts, Removes: removes})
}

func key(t translate.Type, name string) translate.Key { return translate.Key{Type: t, Name: name} }

func name(prefix string, i int) string { return fmt.Sprintf("%s%02d", prefix, i) }
