package openapi

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// examples has one body for each schema that an operation takes; test/cmd/check-clients sends those of the
// kinds to a running system through generated clients. Those of the kinds refer to each other as web.
//
//go:embed examples/*.json
var examples embed.FS

// exampleOf is an example of a request's body, by its schema's name.
func exampleOf(schema string) (any, error) {
	if strings.HasSuffix(schema, "Patch") {
		return object{"labels": object{"team": "web", "tier": nil}}, nil
	}
	raw, err := examples.ReadFile("examples/" + schema + ".json")
	if err != nil {
		return nil, fmt.Errorf("services/api/internal/openapi/examples/%s.json is missing: %w", schema, err)
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, errors.Join(fmt.Errorf("examples/%s.json", schema), err)
	}
	return v, nil
}
