package fleet_test

import (
	"testing"

	"go.uber.org/zap"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/clusterkey"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/xds/internal/fleet"
)

// TestGatewaysWithoutKeys: they are open to nobody, but in development.
func TestGatewaysWithoutKeys(t *testing.T) {
	const key = "the-key-of-the-default"
	for _, dev := range []bool{false, true} {
		f := fleet.New(fleet.Options{ID: "x", Open: dev, Log: zap.NewNop(), Module: func(s string) string { return s }})
		var all []*resource.Object
		for name, keys := range map[string][]*configv1.ClusterApiKey{
			"default": {{Name: "a", Sha256: clusterkey.Sum(key)}}, "bare": nil,
		} {
			o, err := resource.New(resource.Ref{Kind: resource.KindGateway, Name: name}, &configv1.Gateway{ApiKeys: keys})
			if err != nil {
				t.Fatal(err)
			}
			o.Revision = 1
			all = append(all, o)
		}
		f.Apply(resource.Update{Commit: resource.Commit{Epoch: "e", Revision: 1}, Changed: all})
		for gateway, opens := range map[string]bool{"default": true, "bare": dev, "none": false} {
			if got := f.Admit(gateway, clusterkey.Sum(key)); got != opens {
				t.Errorf("in development %v: the key of default opens %s: %v", dev, gateway, got)
			}
		}
		if f.Admit("default", clusterkey.Sum("another-key-altogether")) || f.Admit("default", "") {
			t.Error("default is open without its key")
		}
	}
}
