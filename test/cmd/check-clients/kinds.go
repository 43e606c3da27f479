package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/marchproxy/marchproxy/test/harness"
)

// object is the name of every object; the document's examples refer to each other by it.
const object = "web"

// kind is what the document says of one kind of object.
type kind struct {
	// Name is the schema of its objects, Path where one of them is, Collection where all are.
	Name, Path, Collection string
	// Operations' ids.
	Get, List, Put, Patch, Delete string
	// Tag that groups them.
	Tag string
	// Example of an object, as JSON; Changed is the same with another label.
	Example, Changed string
}

func (k kind) path(name string) string { return strings.Replace(k.Path, "{name}", name, 1) }

type documentOperation struct {
	OperationID string
	Tags        []string
	RequestBody struct {
		Content map[string]struct {
			Schema struct {
				Ref string `json:"$ref"`
			}
			Example map[string]any
		}
	}
}

// kindsOf finds the kinds: whatever can be PUT.
func kindsOf(document []byte) ([]kind, error) {
	var doc struct {
		Paths map[string]map[string]documentOperation
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, fmt.Errorf("the document: %w", err)
	}
	var kinds []kind
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[path]
		put, ok := item["put"]
		if !ok {
			continue
		}
		collection, one := strings.CutSuffix(path, "/{name}")
		body := put.RequestBody.Content["application/json"]
		name, ref := strings.CutPrefix(body.Schema.Ref, "#/components/schemas/")
		if !one || !ref || body.Example == nil || len(put.Tags) != 1 {
			return nil, fmt.Errorf("PUT %s: this program cannot tell which kind it writes, or there is no example", path)
		}
		k := kind{
			Name: name, Path: path, Collection: collection, Tag: put.Tags[0], Put: put.OperationID, Get: item["get"].OperationID,
			Patch: item["patch"].OperationID, Delete: item["delete"].OperationID, List: doc.Paths[collection]["get"].OperationID,
		}
		for what, id := range map[string]string{
			"get": k.Get, "put": k.Put, "patch": k.Patch, "delete": k.Delete,
			"list": k.List,
		} {
			if id == "" {
				return nil, fmt.Errorf("%s: there is no operation to %s one", name, what)
			}
		}
		example, err := json.Marshal(body.Example)
		if err != nil {
			return nil, err
		}
		body.Example["labels"] = map[string]string{"client": "changed"}
		changed, err := json.Marshal(body.Example)
		if err != nil {
			return nil, err
		}
		k.Example, k.Changed = string(example), string(changed)
		kinds = append(kinds, k)
	}
	if len(kinds) == 0 {
		return nil, errors.New("the document has nothing that can be PUT")
	}
	return kinds, nil
}

// order finds the order in which the examples can be made, by making them: one that refers to another is
// refused before it. It deletes them again.
func order(ctx context.Context, s *harness.System, kinds []kind) ([]kind, error) {
	var ordered []kind
	var refusals string
	for left := kinds; len(left) > 0; {
		var later []kind
		refusals = ""
		for _, k := range left {
			status, raw, err := s.Call(ctx, http.MethodPut, s.API+k.path(object), k.Example)
			switch {
			case err != nil:
				return nil, err
			case status == http.StatusCreated:
				ordered = append(ordered, k)
			default:
				later = append(later, k)
				refusals += fmt.Sprintf("\n%s: status %d: %s", k.Name, status, raw)
			}
		}
		if len(later) == len(left) {
			return nil, fmt.Errorf("the document's examples cannot be made:%s", refusals)
		}
		left = later
	}
	for _, k := range slices.Backward(ordered) {
		if status, raw, err := s.Call(ctx, http.MethodDelete, s.API+k.path(object), nil); err != nil ||
			status != http.StatusOK {
			return nil, errors.Join(fmt.Errorf("delete the example of %s: status %d: %s", k.Name, status, raw), err)
		}
	}
	return ordered, nil
}
