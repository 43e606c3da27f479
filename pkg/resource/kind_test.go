package resource

import "testing"

// TestKinds: the names that clients and consumers know come out of the schema.
func TestKinds(t *testing.T) {
	want := []Kind{
		{Name: KindCertificate, Path: "certificates", Token: "certificate"},
		{Name: KindService, Path: "services", Token: "service"},
		{Name: KindAuthPolicy, Path: "auth-policies", Token: "auth_policy"},
		{Name: KindLicense, Path: "licenses", Token: "license"},
		{Name: KindGateway, Path: "gateways", Token: "gateway"},
		{Name: KindRoute, Path: "routes", Token: "route"},
		{Name: KindRateLimit, Path: "rate-limit-policies", Token: "rate_limit_policy"},
	}
	at := 0
	for _, k := range Kinds {
		if at < len(want) && k.Name == want[at].Name {
			if k.Path != want[at].Path || k.Token != want[at].Token ||
				string(k.New().ProtoReflect().Descriptor().Name()) != k.Name {
				t.Errorf("%s has the path %s and the token %s", k.Name, k.Path, k.Token)
			}
			at++
		}
	}
	if at < len(want) {
		t.Errorf("%s is missing, or in another place", want[at].Name)
	}
}
