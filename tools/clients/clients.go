// Package clients pins what programs that use the API are generated with and built from: the Go generator
// and its run time here, TypeScript's in package.json, Python's in scripts/openapi-python-client.txt.
package clients

import _ "github.com/oapi-codegen/runtime" // what generated Go clients import
