// Package jsonschema holds the JSON Schema of every message, as `make generate` makes it from the schema:
// one file a message, MESSAGE.schema.bundle.json, with what it refers to beside it under $defs.
package jsonschema

import "embed"

// Files are the schemas, by file name.
//
//go:embed *.json
var Files embed.FS
