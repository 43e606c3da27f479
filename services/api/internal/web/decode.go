package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

// document is the body of a PUT.
type document struct {
	Kind   *string           `json:"kind"`
	Name   *string           `json:"name"`
	Spec   json.RawMessage   `json:"spec"`
	Owner  *string           `json:"owner"`
	Labels map[string]string `json:"labels"`
	// Set by the server on reads; taken and ignored, so that what was read can be written.
	UID       string            `json:"uid"`
	Revision  int64             `json:"revision"`
	CreatedAt string            `json:"created_at"`
	UpdatedAt string            `json:"updated_at"`
	Status    *api.ObjectStatus `json:"status"`
	Live      *api.Live         `json:"live"`
	Warnings  []api.Warning     `json:"warnings"`
}

// read reads a request's body, an object's at most, strictly.
func read(c echo.Context, into any) error {
	raw, err := body(c, maxObject)
	if err != nil {
		return err
	}
	return decode(raw, into)
}

// decode reads one JSON document strictly.
func decode(raw []byte, into any) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return violations(
			http.StatusBadRequest,
			"the body is not JSON that can be taken",
			resource.Violations{{Path: "$", Message: "is empty; send a JSON object", Rule: "json.syntax"}},
		)
	}
	if v := resource.CheckJSON(raw); len(v) > 0 {
		return violations(http.StatusBadRequest, "the body is not JSON that can be taken", v)
	}
	if err := members(raw); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return violations(http.StatusBadRequest, "the body does not have the expected form",
			resource.Violations{resource.Misfit(raw, err)})
	}
	return nil
}

// members refuses a document that is no object, and members that are null where they could be left out;
// specs have rules of their own.
func members(raw []byte) error {
	const form = "the body does not have the expected form"
	if trimmed := bytes.TrimSpace(raw); len(trimmed) == 0 || trimmed[0] != '{' {
		return violations(http.StatusBadRequest, form,
			resource.Violations{{Path: "$", Message: "must be an object", Rule: "json.type"}})
	}
	if !bytes.Contains(raw, []byte("null")) {
		return nil
	}
	var top map[string]any
	if err := json.Unmarshal(raw, &top); err != nil {
		return violations(http.StatusBadRequest, form,
			resource.Violations{{Path: "$", Message: "must be an object", Rule: "json.type"}})
	}
	if v := nulls("$", top, nil); len(v) > 0 {
		return violations(http.StatusBadRequest, form, v)
	}
	return nil
}

func nulls(path string, value any, found resource.Violations) resource.Violations {
	switch x := value.(type) {
	case nil:
		return append(found, resource.Violation{Path: path, Message: "is null; leave it out", Rule: "json.type"})
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(x)) {
			if name != "spec" {
				found = nulls(path+"."+name, x[name], found)
			}
		}
	case []any:
		for i, item := range x {
			found = nulls(fmt.Sprintf("%s[%d]", path, i), item, found)
		}
	}
	return found
}

// desired decodes and checks an object's own rules. An owner and labels of nil were not said.
func desired(
	k resource.Kind, ref resource.Ref, spec json.RawMessage, owner *string, labels map[string]string, path string,
) (writer.Desired, resource.Violations) {
	apart := config.KindOf(k.Name).Apart
	d := writer.Desired{
		Ref: ref, Owner: owner, Labels: labels, Path: path, SpecPath: path + ".spec",
		KeepApart: apart != "" && !has(spec, apart),
	}
	if len(spec) == 0 || string(spec) == "null" {
		return d, resource.Violations{{Path: d.SpecPath, Message: "is missing", Rule: "required"}}
	}
	m, v := resource.DecodeSpec(k, spec)
	if len(v) == 0 {
		v = resource.Validate(m)
	}
	d.Spec = m
	v = v.Under(d.SpecPath)
	name := ""
	if owner != nil {
		name = *owner
	}
	v = append(v, resource.CheckEnvelope(name, labels).Under(path)...)
	if len(v) == 0 {
		if err := d.Make(); err != nil {
			v = append(v, resource.Violation{Path: d.SpecPath, Message: err.Error(), Rule: "encode"})
		}
	}
	return d, v
}

// has says whether an object in JSON has a member, if only an empty one.
func has(raw json.RawMessage, member string) bool {
	var members map[string]json.RawMessage
	return json.Unmarshal(raw, &members) == nil && members[member] != nil
}
