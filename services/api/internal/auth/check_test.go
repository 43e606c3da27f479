package auth

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

func object(t *testing.T, kind, name, owner string, spec proto.Message) *resource.Object {
	t.Helper()
	o, err := resource.New(resource.Ref{Kind: kind, Name: name}, spec)
	if err != nil {
		t.Fatal(err)
	}
	o.Owner = owner
	return o
}

func route(t *testing.T, name, owner, service, policy string, gateways []string, hosts ...string) *resource.Object {
	t.Helper()
	return object(t, resource.KindRoute, name, owner, &configv1.Route{
		Hosts: hosts, Gateways: gateways, AuthPolicy: policy, Backends: []*configv1.Backend{{Service: service}},
	})
}

// TestBounds: what a bound token may write, by the objects before and after.
func TestBounds(t *testing.T) {
	st := config.New()
	service := func(name, owner string) *resource.Object {
		return object(t, resource.KindService, name, owner,
			&configv1.Service{Endpoints: []*configv1.Endpoint{{Host: "192.0.2.1", Port: 80}}})
	}
	policy := func(name string) *resource.Object {
		return object(t, resource.KindAuthPolicy, name, "",
			&configv1.AuthPolicy{Jwt: &configv1.Jwt{RemoteJwks: &configv1.RemoteJwks{Service: "keys", Path: "/"}}})
	}
	found := func(owner, service string) *resource.Object {
		return object(t, resource.KindEndpointSet, "found", owner, &configv1.EndpointSet{Service: service})
	}
	mine := route(t, "mine", "team-a", "own", "login", nil, "a.example.com", "*.a.example.com")
	theirs := route(t, "theirs", "team-b", "other", "", []string{"edge"}, "b.test")
	st.Apply([]*resource.Object{
		service("own", "team-a"), service("other", "team-b"), service("shared", ""), service("keys", ""), service("idle", ""),
		policy("login"), mine, theirs,
		object(t, resource.KindGateway, "edge", "", &configv1.Gateway{AuthPolicy: "login"}),
		object(t, resource.KindGateway, "default", "", &configv1.Gateway{}),
	})
	get := func(kind, name string) *resource.Object { return st.Get(resource.Ref{Kind: kind, Name: name}) }
	owners, hosts, gateways := Bounds{Owners: []string{"team-a"}}, Bounds{Hosts: []string{"example.com"}},
		Bounds{Gateways: []string{"default"}}
	for name, c := range map[string]struct {
		bounds        Bounds
		before, after *resource.Object
		says          string // "" for allowed
	}{
		"one's own":          {owners, mine, mine, ""},
		"deleting one's own": {owners, mine, nil, ""},
		"another's": {owners, theirs, theirs, `belongs to owner "team-b" before this write,` +
			` outside of the owners`},
		"taking over": {
			owners, theirs, route(t, "theirs", "team-a", "own", "", nil, "b.test"),
			`"team-b" before`,
		},
		"giving away": {
			owners, mine, route(t, "mine", "team-b", "own", "", nil, "a.example.com"),
			`belongs to owner "team-b", outside`,
		},
		"of nobody": {
			owners, nil, route(t, "new", "", "own", "", nil, "x.test"),
			"has no owner, outside",
		},
		"of a part": {owners, nil, route(t, "new", "team-a-web", "own", "", nil, "x.test"), ""},
		"of a like name": {
			owners, nil, route(t, "new", "team-abc", "own", "", nil, "x.test"),
			`"team-abc"`,
		},
		"to another's service": {
			owners, mine, route(t, "mine", "team-a", "other", "", nil, "a.example.com"),
			`refers to Service/other, which belongs to owner "team-b"`,
		},
		"to a shared service": {
			owners, mine, route(t, "mine", "team-a", "shared", "", nil, "a.example.com"),
			"",
		},
		"endpoints of one's service": {owners, nil, found("team-a", "own"), ""},
		"endpoints of another's service": {
			owners, nil, found("team-a", "other"),
			`refers to Service/other, which belongs to owner "team-b"`,
		},
		"endpoints of a shared service": {
			owners, nil, found("team-a", "shared"),
			"refers to Service/shared, which has no owner",
		},
		"endpoints of one's hosts": {hosts, nil, found("", "own"), ""},
		"endpoints of others' hosts": {
			hosts, nil, found("", "other"),
			`is used by Route/theirs, which serves host "b.test"`,
		},
		"endpoints of another gateway": {
			gateways, found("", "other"), nil,
			`is used by Route/theirs, which is on gateway "edge"`,
		},
		"a host below": {hosts, mine, mine, ""},
		"a host outside before": {
			hosts, theirs, route(t, "theirs", "", "own", "", nil, "a.example.com"),
			`serves host "b.test" before`,
		},
		"a host outside after": {hosts, mine, route(t, "mine", "", "own", "", nil, "a.example.com",
			"badexample.com"), `serves host "badexample.com", outside`},
		"every host": {
			hosts, nil, route(t, "new", "", "own", "", nil),
			"serves every host that no other route names",
		},
		"every host by a star": {hosts, nil, route(t, "new", "", "own", "", nil, "*"), "serves every host"},
		"the suffix itself": {
			Bounds{Hosts: []string{".example.com"}},
			nil,
			route(t, "new", "", "own", "", nil, "example.com"), `"example.com"`,
		},
		"what is below a suffix": {
			Bounds{Hosts: []string{".example.com"}},
			nil,
			route(t, "new", "", "own", "", nil, "*.example.com"), "",
		},
		"a service of one's hosts": {hosts, get(resource.KindService, "own"), service("own", ""), ""},
		"a service of others' hosts": {
			hosts, get(resource.KindService, "other"), service("other", ""),
			`is used by Route/theirs, which serves host "b.test"`,
		},
		"a service that nobody uses": {hosts, get(resource.KindService, "idle"), nil, ""},
		"a policy that a gateway uses": {
			hosts, get(resource.KindAuthPolicy, "login"), policy("login"),
			"is used by Gateway/edge, which serves every host",
		},
		"what a policy of others uses": {gateways, get(resource.KindService, "keys"), nil, `is on gateway "edge"`},
		"a gateway, bound to hosts":    {hosts, nil, get(resource.KindGateway, "default"), "serves every host"},
		"one's gateway": {
			gateways, get(resource.KindGateway, "default"),
			get(resource.KindGateway, "default"), "",
		},
		"another gateway": {gateways, get(resource.KindGateway, "edge"), nil, `is on gateway "edge"`},
		"on another gateway": {gateways, mine, route(t, "mine", "", "own", "", []string{"default", "edge"},
			"a.example.com"), `is on gateway "edge", outside of the gateways that token "t" is bound to (default)`},
		"the default gateway": {gateways, mine, mine, ""},
		"a service of another gateway": {
			gateways, get(resource.KindService, "other"), nil,
			`is used by Route/theirs, which is on gateway "edge"`,
		},
		"a rate limit, bound to gateways": {gateways, nil, object(t, resource.KindRateLimit, "r", "",
			&configv1.RateLimitPolicy{Gateways: []string{"default"}}), "holds for nodes"},
		"another kind": {
			Bounds{Kinds: []string{"Service"}},
			mine, nil,
			"is a Route, outside of the kinds",
		},
		"the kind": {Bounds{Kinds: []string{"Service", "Route"}}, mine, nil, ""},
		"all bounds, one of them not met": {
			Bounds{Owners: []string{"team-a"}, Hosts: []string{"b.test"}},
			mine, nil,
			`serves host "a.example.com"`,
		},
		"all bounds, all of them met": {Bounds{
			Owners: []string{"team-"}, Hosts: []string{"example.com"},
			Gateways: []string{"default"}, Kinds: []string{"Route"},
		}, mine, mine, ""},
		"a wildcard that takes in a suffix": {
			Bounds{Hosts: []string{"a.example.com"}},
			nil,
			route(t, "new", "", "own", "", nil, "*.example.com"), `"*.example.com"`,
		},
	} {
		v := Check(Identity{Name: "t", Role: Operator, Bounds: c.bounds}, Operation{Role: Editor}, st, c.before, c.after)
		switch {
		case c.says == "" && len(v) > 0:
			t.Errorf("%s: refused: %v", name, v)
		case c.says != "" && (len(v) == 0 || !strings.Contains(v[0].Message, c.says)):
			t.Errorf("%s: %v; want %q", name, v, c.says)
		}
	}
}

// TestNobody: an identity without a role, and an operation that says none, are allowed nothing.
func TestNobody(t *testing.T) {
	for _, c := range []struct{ has, needs string }{{"", Viewer}, {"", ""}, {Admin, ""}, {Admin, "god"}, {"god", Viewer}} {
		if len(Check(Identity{Role: c.has}, Operation{Role: c.needs}, nil, nil, nil)) == 0 {
			t.Errorf("role %q may do what needs %q", c.has, c.needs)
		}
	}
	for i, has := range Roles {
		for j, needs := range Roles {
			if may := len(Check(Identity{Role: has}, Operation{Role: needs}, nil, nil, nil)) == 0; may != (i >= j) {
				t.Errorf("role %s, needed %s: %v", has, needs, may)
			}
		}
	}
}
