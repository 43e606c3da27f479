package golden

import (
	"testing"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
)

func TestBootstrap(t *testing.T) {
	for name, c := range map[string]bootstrap.Config{
		"least": {XDSServer: "127.0.0.1:18000", AdminAddr: "127.0.0.1:9901"},
		"everything": {
			NodeID: "edge-1", Gateway: "public", XDSServer: "xds.example.com:18000", AdminAddr: "[::1]:9901",
			APIKey: `key"with\odd characters`, MaxHeap: 1 << 30,
		},
		"a socket": {XDSServer: "127.0.0.1:18000", AdminAddr: "/tmp/marchproxy-golden/admin.sock"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw, err := bootstrap.Render(c)
			if err != nil {
				t.Fatal(err)
			}
			if said, ok := validate(t, raw); !ok {
				t.Errorf("Envoy refuses\n%s\n%s", raw, said)
			}
		})
	}
}

// TestRefusal: a validator that takes everything would prove nothing.
func TestRefusal(t *testing.T) {
	b := base(t)
	b["static_resources"].(object)["clusters"].([]any)[0].(object)["lb_policy"] = "NONSENSE"
	if said, ok := validate(t, encode(t, b)); ok {
		t.Error("Envoy takes nonsense:", said)
	}
}
