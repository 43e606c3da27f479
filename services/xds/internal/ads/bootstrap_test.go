package ads_test

import (
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// TestOlderBootstraps: an Envoy that was started before a place could be empty gets what its listeners take, and one
// whose bootstrap says that it can gets the empty chain; a listener's other form is another matter.
func TestOlderBootstraps(t *testing.T) {
	for name, c := range map[string]struct {
		says             []string
		filter, listener string
	}{
		"nothing":              {nil, "a filter", "with values"},
		"runtime only":         {[]string{bootstrap.MetadataRuntime}, "a filter", "with values"},
		"log file only":        {[]string{bootstrap.MetadataLogFile}, "a filter", "with values"},
		"runtime and log file": {[]string{bootstrap.MetadataRuntime, bootstrap.MetadataLogFile}, "a filter", "with keys"},
		"places only":          {[]string{bootstrap.MetadataPlaces}, "empty", "with values"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGateway()
				unused, http := res(filterConfig, "license", "empty"), res(listener, "http", "with keys")
				unused.Plain, http.Plain = res(filterConfig, "license", "a filter"), res(listener, "http", "with values")
				apply(g, 1, []*translate.Resource{unused, http})
				e := connect(t, g, "old")
				e.hangUp()
				e.filterConfigs = []string{"license"}
				said := map[string]*structpb.Value{}
				for _, is := range c.says {
					said[is] = structpb.NewBoolValue(true)
				}
				e.metadata = &structpb.Struct{Fields: map[string]*structpb.Value{
					bootstrap.MetadataSpace: structpb.NewStructValue(&structpb.Struct{Fields: said}),
				}}
				e.dial(g)
				e.settle()
				e.want(filterConfig, map[string]string{"license": c.filter})
				e.want(listener, map[string]string{"http": c.listener})
				if got := g.Live(); got != 1 {
					t.Errorf("live %d, want 1", got)
				}
			})
		})
	}
}
