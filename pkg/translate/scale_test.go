package translate_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// crowd is a gateway with many hosts, a route each and a service for each tenth, and with many policies.
type crowd struct {
	tb       testing.TB
	st       *config.State
	b        *translate.Builder
	revision int64
}

func newCrowd(tb testing.TB, hosts int) *crowd {
	tb.Helper()
	c := &crowd{tb: tb, st: config.New(), b: builder(resource.DefaultGateway)}
	c.st.Apply(c.objects(hosts))
	c.b.Rebuild(c.st)
	return c
}

func (c *crowd) objects(hosts int) []*resource.Object {
	out := []*resource.Object{c.gateway(0)}
	for i := range hosts {
		if i%10 == 0 {
			out = append(out, c.service(i/10, 80))
		}
		if i%100 == 0 {
			out = append(out, c.policy(i/100, "x"), c.limit(i/100, 1000, 0))
		}
		out = append(out, c.route(i, "/"))
	}
	return append(out, c.route(hosts, "/", "*.wild.test"), c.route(hosts+1, "/", "*"))
}

func (c *crowd) object(kind, name string, m proto.Message) *resource.Object {
	c.tb.Helper()
	spec, err := resource.CanonicalSpec(m)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.revision++
	o, err := resource.ParsePayload((&resource.Object{Kind: kind, Name: name, Revision: c.revision, Spec: spec}).Payload())
	if err != nil {
		c.tb.Fatal(err)
	}
	return o
}

func (c *crowd) gateway(maxConnections uint32, listeners ...string) *resource.Object {
	g := &configv1.Gateway{Limits: &configv1.Limits{MaxConnections: maxConnections}}
	for i, name := range append([]string{"http"}, listeners...) {
		g.Listeners = append(g.Listeners, &configv1.Listener{Name: name, Port: uint32(10000 + i)})
	}
	return c.object(resource.KindGateway, resource.DefaultGateway, g)
}

// route is the one of a host of its own, or of these hosts; each hundredth names a policy.
func (c *crowd) route(i int, prefix string, hosts ...string) *resource.Object {
	if len(hosts) == 0 {
		hosts = []string{fmt.Sprintf("host-%d.example.com", i)}
	}
	r := &configv1.Route{
		Hosts: hosts, Path: &configv1.PathMatch{Match: &configv1.PathMatch_Prefix{Prefix: prefix}},
		Backends: []*configv1.Backend{{Service: fmt.Sprintf("service-%d", i/10)}},
	}
	if i%100 == 0 {
		r.AuthPolicy = fmt.Sprintf("policy-%d", i/100)
	}
	return c.object(resource.KindRoute, fmt.Sprintf("route-%d", i), r)
}

func (c *crowd) service(i int, port uint32) *resource.Object {
	return c.object(resource.KindService, fmt.Sprintf("service-%d", i), &configv1.Service{
		Endpoints: []*configv1.Endpoint{{Host: "192.0.2.1", Port: port}, {Host: "192.0.2.2", Port: port}},
	})
}

func (c *crowd) policy(i int, subject string) *resource.Object {
	return c.object(resource.KindAuthPolicy, fmt.Sprintf("policy-%d", i), &configv1.AuthPolicy{
		Tokens: []*configv1.OpaqueToken{{Sha256: fmt.Sprintf("%064d", i), Subject: subject}},
	})
}

// limit limits packets, which is the kernel's business, and the requests of no gateway of ours.
func (c *crowd) limit(i int, packets, requests uint32) *resource.Object {
	return c.object(resource.KindRateLimit, fmt.Sprintf("limit-%d", i), &configv1.RateLimitPolicy{
		Cidrs:            []string{fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)},
		PacketsPerSecond: packets, RequestsPerSecond: requests, Allow: []string{fmt.Sprintf("172.16.%d.%d", i/256, i%256)},
	})
}

func (c *crowd) apply(objects ...*resource.Object) translate.Delta {
	changes, _ := c.st.Apply(objects)
	d, problems := c.b.Update(c.st, changes, c.b.Policies())
	if len(problems) > 0 {
		c.tb.Fatal(problems)
	}
	return d
}

// cases are changes that concern one thing among many. Each has two versions, so that every turn changes something,
// and each second turn does the same work again.
func (c *crowd) cases() []changeCase {
	gone := func(o *resource.Object) *resource.Object { return resource.Tombstone(o.Ref(), c.revision+1) }
	return []changeCase{
		{"route", 1, [2]*resource.Object{c.route(7, "/a"), c.route(7, "/b")}},
		{"delete", 1, [2]*resource.Object{gone(c.route(8, "/")), c.route(8, "/")}},
		{"host", 2, [2]*resource.Object{c.route(9, "/", "elsewhere.test"), c.route(9, "/")}},
		{"service", 1, [2]*resource.Object{c.service(0, 81), c.service(0, 82)}},
		{"gateway", 1, [2]*resource.Object{c.gateway(7), c.gateway(8)}},
		{"wildcard", 1, [2]*resource.Object{c.route(2, "/a", "*.new.test"), c.route(2, "/b", "*.new.test")}},
		{"limit", 0, [2]*resource.Object{c.limit(1, 5, 0), c.limit(1, 6, 0)}},
	}
}

type changeCase struct {
	name string
	// built is how many resources a change makes or takes away.
	built    int
	versions [2]*resource.Object
}

// TestCostOfAChange: a change costs what it changes, however many other hosts, routes, services and policies there are.
// What is read without being allocated shows in the time; the shortest of many is what the work takes.
func TestCostOfAChange(t *testing.T) {
	few, many := newCrowd(t, 1_000), newCrowd(t, 20_000)
	for i, x := range few.cases() {
		y := many.cases()[i]
		for _, side := range []struct {
			c *crowd
			v [2]*resource.Object
		}{{few, x.versions}, {many, y.versions}} {
			side.c.apply(side.v[1])
			for _, o := range side.v {
				if d := side.c.apply(o); len(d.Upserts)+len(d.Removes) != x.built {
					t.Errorf("%s: %d resources differ, want %d", x.name, len(d.Upserts)+len(d.Removes), x.built)
				}
			}
		}
		measure := func(c *crowd, v [2]*resource.Object) (allocs float64, shortest time.Duration) {
			shortest = time.Hour
			allocs = testing.AllocsPerRun(300, func() {
				began := time.Now()
				c.apply(v[0])
				c.apply(v[1])
				shortest = min(shortest, time.Since(began))
			})
			return allocs, shortest
		}
		fewAllocs, fewTime := measure(few, x.versions)
		manyAllocs, manyTime := measure(many, y.versions)
		t.Logf("%s: %v allocations, %v among 1,000; %v, %v among 20,000", x.name, fewAllocs, fewTime, manyAllocs, manyTime)
		if manyAllocs > 1.2*fewAllocs {
			t.Errorf("%s: %v allocations among 20,000 hosts, %v among 1,000", x.name, manyAllocs, fewAllocs)
		}
		if manyTime > 3*fewTime+10*time.Microsecond {
			t.Errorf("%s: %v among 20,000 hosts, %v among 1,000", x.name, manyTime, fewTime)
		}
	}
}

func BenchmarkChange(b *testing.B) {
	for _, hosts := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(hosts), func(b *testing.B) {
			c := newCrowd(b, hosts)
			for _, x := range append(c.cases(),
				changeCase{"policy", 1, [2]*resource.Object{c.policy(1, "a"), c.policy(1, "b")}}) {
				b.Run(x.name, func(b *testing.B) {
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						c.apply(x.versions[i%2])
					}
				})
				c.apply(x.versions[1])
			}
		})
	}
}

func BenchmarkRebuild(b *testing.B) {
	for _, hosts := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(hosts), func(b *testing.B) {
			c := &crowd{tb: b, st: config.New()}
			c.st.Apply(c.objects(hosts))
			b.ReportAllocs()
			for b.Loop() {
				builder(resource.DefaultGateway).Rebuild(c.st)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(hosts), "µs/host")
		})
	}
}

// TestManyAtOnce: what many hosts come to does not depend on being built together, by several cores, or one by one.
func TestManyAtOnce(t *testing.T) {
	at := newCrowd(t, 3_000)
	one := &crowd{tb: t, st: config.New(), b: builder(resource.DefaultGateway)}
	for _, o := range at.objects(3_000) {
		one.apply(o)
	}
	settle(one.b, one.st)
	same(t, "one by one", one.b, at.b)
}

// TestManyPoliciesAtOnce: cores that build hosts at once, each with a policy that nobody has looked at yet, do not come
// in each other's way. What is wrong with these policies saves the look of the engine, so that they meet often.
func TestManyPoliciesAtOnce(t *testing.T) {
	st := config.New()
	objects := []*resource.Object{gatewayObject(t)}
	for i := range 4_000 {
		name := fmt.Sprint("p", i)
		objects = append(objects,
			object(t, resource.KindAuthPolicy, name, `{"jwt":{"jwks":"none"},"exempt_paths":[{"path":"/free"}]}`),
			object(t, resource.KindRoute, name,
				fmt.Sprintf(`{"hosts":["%s.test"],"auth_policy":%q,"direct_response":{"status":200}}`, name, name)),
		)
	}
	st.Apply(objects)
	b := builder(resource.DefaultGateway)
	if _, problems := b.Rebuild(st); len(problems) != 4_000 {
		t.Errorf("%d policies are closed, want 4000", len(problems))
	}
}
