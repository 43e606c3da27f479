package translate

import (
	"testing"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// TestKinds: nobody meets a kind that the translator does not know.
func TestKinds(t *testing.T) {
	for _, k := range resource.Kinds {
		if kinds[k.Name].changed == nil || kinds[k.Name].alone == nil {
			t.Errorf("pkg/translate/kinds.go has to say what a change of a %s affects, and what is checked in one", k.Name)
		}
	}
}
