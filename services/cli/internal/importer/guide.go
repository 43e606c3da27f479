package importer

import (
	"bytes"
	"fmt"

	"github.com/marchproxy/marchproxy/pkg/guide"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

func isGuide(_ string, raw []byte) bool {
	raw = bytes.TrimSpace(raw)
	return bytes.HasPrefix(raw, []byte("{")) && bytes.Contains(raw, []byte(`"services"`)) &&
		!bytes.Contains(raw, []byte(`"static_resources"`)) && !bytes.Contains(raw, []byte(`"http"`+":"))
}

// readGuide reads the document as POST /v1/config does, which refuses one with anything wrong in it as a whole.
func readGuide(b *builder, name string, raw []byte) error {
	roots, err := readYAML(name, raw)
	if err != nil {
		return err
	}
	doc, found := guide.Parse(raw)
	if len(found) == 0 {
		doc.AllowEmpty = true
		found = doc.Check()
	}
	for _, v := range found {
		b.note(Place{File: name, Line: lineOf(roots, v.Path)}, v.Path, v.Message, "correct it: the document is refused whole")
	}
	if len(found) > 0 {
		return nil
	}
	objects, err := doc.Resources()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for i, o := range objects {
		path := fmt.Sprintf("$.services[%d]", i)
		if i >= len(doc.Services) {
			path = fmt.Sprintf("$.routes[%d]", i-len(doc.Services))
		}
		k, _ := resource.KindByName(o.Kind)
		spec, wrong := resource.DecodeSpec(k, o.Spec)
		if len(wrong) > 0 {
			return fmt.Errorf("%s: %s: %w", name, path, wrong)
		}
		b.add(Place{File: name, Line: lineOf(roots, path)}, o.Kind, o.Name, spec)
	}
	return nil
}
