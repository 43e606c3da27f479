package config_test

import (
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// TestNoRouteByWhatAPolicyChanges: a route of a gateway cannot match by a header that a policy of it takes off or
// sets, whichever of the objects comes last and makes it so; on another gateway it can.
func TestNoRouteByWhatAPolicyChanges(t *testing.T) {
	policy := func(spec string) *resource.Object { return object(t, "AuthPolicy", "p", spec) }
	gateway := func(name, rest string) *resource.Object {
		return object(t, "Gateway", name, `{"listeners":[{"name":"http","port":1}]`+rest+`}`)
	}
	route := func(name, spec string) *resource.Object {
		return object(t, "Route", name, `{"hosts":["`+name+`.test"],"direct_response":{"status":200},`+spec+`}`)
	}
	const (
		keys     = `"keys":[{"kid":"k","algorithm":"HS256","secret":"x"}]`
		forwards = `{"jwt":{` + keys + `,"forward_claims":[{"claim":["sub"],"header":"x-user"}]}}`
		strips   = `{"jwt":{` + keys + `},"strip":true}`
		silent   = `{"jwt":{` + keys + `}}`
		asks     = `"auth_policy":"p"`
		byUser   = `"headers":[{"name":"x-user","value":{"exact":"a"}}]`
	)
	for name, c := range map[string]struct {
		before []*resource.Object
		last   *resource.Object
		path   string // of the problem at the last one; "" for none
	}{
		"the route": {
			[]*resource.Object{policy(forwards), route("secret", asks)}, route("pub", byUser), "$.headers[0].name",
		},
		"the route that has the policy": {
			[]*resource.Object{policy(forwards)}, route("own", asks+","+byUser), "$.headers[0].name",
		},
		"another spelling": {
			[]*resource.Object{policy(forwards), route("secret", asks)},
			route("pub", `"headers":[{"name":"a","value":{"present":true}},{"name":"X_User","value":{"present":false}}]`),
			"$.headers[1].name",
		},
		"the policy of the gateway": {
			[]*resource.Object{policy(forwards), gateway("default", `,"auth_policy":"p"`)},
			route("pub", byUser),
			"$.headers[0].name",
		},
		"what it strips": {
			[]*resource.Object{policy(strips), route("secret", asks)},
			route("pub", `"headers":[{"name":"Authorization","value":{"prefix":"Basic "}}]`), "$.headers[0].name",
		},
		"what no policy strips": {
			[]*resource.Object{policy(silent), route("secret", asks)},
			route("pub", `"headers":[{"name":"Authorization","value":{"prefix":"Basic "}}]`), "",
		},
		"a license's header": {
			nil, route("pub", `"headers":[{"name":"X_License_Key","value":{"present":true}}]`), "$.headers[0].name",
		},
		"another header": {
			[]*resource.Object{policy(forwards), route("secret", asks)},
			route("pub", strings.ReplaceAll(byUser, "user", "users")), "",
		},
		"another gateway": {
			[]*resource.Object{policy(forwards), gateway("inside", ""), route("secret", asks)},
			route("pub", `"gateways":["inside"],`+byUser), "",
		},
		"a policy that nothing has": {[]*resource.Object{policy(forwards)}, route("pub", byUser), ""},
		"the policy": {
			[]*resource.Object{policy(silent), route("secret", asks), route("pub", byUser)},
			policy(forwards),
			"$.jwt.forward_claims[0].header",
		},
		"the policy's strip": {
			[]*resource.Object{
				policy(silent), route("secret", asks),
				route("pub", `"headers":[{"name":"authorization","value":{"present":false}}]`),
			}, policy(strips), "$.strip",
		},
		"a route that has the policy": {
			[]*resource.Object{policy(forwards), route("pub", byUser)}, route("secret", asks), "$.auth_policy",
		},
		"the gateway": {
			[]*resource.Object{policy(forwards), gateway("default", ""), route("pub", byUser)},
			gateway("default", `,"auth_policy":"p"`), "$.auth_policy",
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := config.New()
			st.Apply([]*resource.Object{gateway("default", "")})
			st.Apply(c.before)
			changes, undo := st.Apply([]*resource.Object{c.last})
			found := st.Check(changes)
			if c.path == "" && len(found) > 0 || c.path != "" && (len(found) != 1 || found[0].Path != c.path ||
				found[0].Rule != "route.header") {
				t.Errorf("found %v, want a problem at %q", found, c.path)
			}
			undo()
			if changes, _ := st.Apply([]*resource.Object{route("after", `"timeout":"1s"`)}); len(st.Check(changes)) > 0 {
				t.Errorf("taken back, it is still refused: %v", st.Check(changes))
			}
		})
	}

	// What stood in the way goes with the same write.
	st := config.New()
	st.Apply([]*resource.Object{gateway("default", ""), policy(forwards), route("secret", asks)})
	changes, _ := st.Apply([]*resource.Object{
		resource.Tombstone(resource.Ref{Kind: "Route", Name: "secret"}, 1), route("pub", byUser),
	})
	if found := st.Check(changes); len(found) > 0 {
		t.Errorf("the only route that had the policy is gone: %v", found)
	}
}
