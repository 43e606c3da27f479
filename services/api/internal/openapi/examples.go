package openapi

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/config"
)

// examples has one body for each schema that an operation takes but those of the kinds, which package config has;
// test/cmd/check-clients sends those to a running system through generated clients.
//
//go:embed examples/*.json
var examples embed.FS

// exampleOf is an example of a request's body, by its schema's name.
func exampleOf(schema string) (any, error) {
	if kind, patch := strings.CutSuffix(schema, "Patch"); patch && config.KindOf(kind).Example != "" {
		return object{"labels": object{"team": "web", "tier": nil}}, nil
	}
	raw := []byte(config.KindOf(schema).Example)
	if len(raw) == 0 {
		var err error
		if raw, err = examples.ReadFile("examples/" + schema + ".json"); err != nil {
			return nil, fmt.Errorf("there is no example of %s, neither in pkg/config nor in "+
				"services/api/internal/openapi/examples: %w", schema, err)
		}
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, errors.Join(fmt.Errorf("the example of %s", schema), err)
	}
	return v, nil
}
