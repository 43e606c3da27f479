package guide

import "testing"

// TestDocument: the guide's document becomes resources, and what is wrong in it is named by its own path.
func TestDocument(t *testing.T) {
	d, found := Parse([]byte(`{"version":"1","services":[{"name":"a","hosts":["10.0.0.1"],"port":80,"protocol":"http"}],` +
		`"routes":[{"name":"r","prefix":"/api","cluster_name":"a","hosts":["*"],"timeout":1.5}]}`))
	if len(found) > 0 || len(d.Check()) > 0 {
		t.Fatal(found, d.Check())
	}
	all, err := d.Resources()
	if err != nil || len(all) != 2 || string(all[1].Spec) !=
		`{"hosts":["*"],"path":{"prefix":"/api"},"backends":[{"service":"a"}],"timeout":"1.500s"}` {
		t.Errorf("%v %v", all, err)
	}
	for api, own := range map[string]string{
		"$.resources[0].spec.endpoints[0].host": "$.services[0].hosts[0]", "$.resources[1].spec.path.prefix": "$.routes[0].prefix",
		"$.resources[1].spec.backends[0].service": "$.routes[0].cluster_name", "$.other": "$.other",
	} {
		if got := d.Back(api); got != own {
			t.Errorf("%s is %s, want %s", api, got, own)
		}
	}
	d.Routes[0].ClusterName = "b"
	if found := d.Check(); len(found) != 1 || found[0].Path != "$.routes[0].cluster_name" {
		t.Errorf("a service that is not there: %v", found)
	}
	if _, found := Parse([]byte(`{"servces":[]}`)); len(found) != 1 {
		t.Errorf("a field that is not known: %v", found)
	}
}
