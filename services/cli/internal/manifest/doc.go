// Package manifest reads resources from files and writes them: YAML or JSON, many documents a file, whole
// directories. It keeps where everything stands, so that what the api or the offline check says of
// $.resources[3].spec.hosts[0] can be said of a line in a file.
//
// A document is a resource, a list of them, or an object with items (what `get -o json` prints) or
// resources (what POST /v1/apply takes).
package manifest
