package resource

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// TestMisfit: what does not fit is named by its path, in words without Go's types.
func TestMisfit(t *testing.T) {
	type inner struct {
		N    *int64  `json:"n"`
		Port uint32  `json:"port"`
		F    float64 `json:"f"`
	}
	type doc struct {
		Name   *string           `json:"name"`
		Labels map[string]string `json:"labels"`
		List   []inner           `json:"list"`
		On     bool              `json:"on"`
		Raw    json.RawMessage   `json:"raw"`
	}
	for in, want := range map[string]string{
		`{"name":7}`: "$.name must be a string, in quotes",
		"{ \"labels\" : { \"a\" : \"x\" ,\n \"tier\" : 1 } }": "$.labels.tier must be a string, in quotes",
		`{"labels":{"a.b":true}}`:                             `$.labels["a.b"] must be a string, in quotes`,
		`{"labels":["x"]}`:                                    "$.labels must be an object, in braces",
		`{"raw":{"deep":[1,{"x":2}]},"labels":{"v":1.10}}`:    "$.labels.v must be a string, in quotes",
		`{"list":[{"n":1},{"n":"2"}]}`:                        "$.list[1].n must be a whole number, without quotes",
		`{"list":[{"port":-1}]}`:                              "$.list[0].port must be a whole number from 0 to 4294967295",
		`{"list":[{"f":"1"}]}`:                                "$.list[0].f must be a number, without quotes",
		`{"list":[{},7]}`:                                     "$.list[1] must be an object, in braces",
		`{"list":{}}`:                                         "$.list must be a list, in brackets",
		`{"on":"yes"}`:                                        "$.on must be true or false",
		`{"name":["x"]}`:                                      "$.name must be a string, in quotes",
		`{"name":{"x":1}}`:                                    "$.name must be a string, in quotes",
		`[]`:                                                  "$ must be an object, in braces",
		`{"nam":"x"}`:                                         `$ "nam" is unknown; remove it`,
	} {
		dec := json.NewDecoder(bytes.NewReader([]byte(in)))
		dec.DisallowUnknownFields()
		err := dec.Decode(&doc{})
		if err == nil {
			t.Fatalf("%s is taken", in)
		}
		v := Misfit([]byte(in), err)
		if got := v.Path + " " + v.Message; got != want || strings.Contains(got, "Go ") {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
