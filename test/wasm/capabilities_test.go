package wasm

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// TestCapabilities: what the control plane lets Envoy permit is what each module imports and exports. One too few is a
// call that silently does not happen.
func TestCapabilities(t *testing.T) {
	for _, name := range append(slices.Clone(filters), "connections") {
		want := program(t, name).Imports()
		for _, export := range program(t, name).Exports() {
			if strings.HasPrefix(export, "proxy_on_") {
				want = append(want, export)
			}
		}
		slices.Sort(want)
		restriction := translate.Wasm(name, "x", nil).GetConfig().GetVmConfig().GetCapabilityRestrictionConfig()
		if got := slices.Sorted(maps.Keys(restriction.GetAllowedCapabilities())); !slices.Equal(got, want) {
			t.Errorf("%s is permitted %q, and uses %q", name, got, want)
		}
	}
}
