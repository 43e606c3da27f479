package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Document is one resource and where it stands.
type Document struct {
	api.Object
	File string
	// Number of the YAML or JSON document in its file, from 1.
	Number int
	// OwnerGiven says that the document has an owner, if only an empty one.
	OwnerGiven bool

	node *yaml.Node
}

// Ref names the resource.
func (d *Document) Ref() resource.Ref { return resource.Ref{Kind: d.Kind, Name: d.Name} }

// stdin is how errors name standard input.
const stdin = "standard input"

// Read reads files, directories and, for "-", standard input, in this order; directories recursively, by
// name. The error holds everything that is wrong, each with file, document and line.
func Read(paths []string, in io.Reader, progress func(files int)) ([]*Document, error) {
	var out []*Document
	var errs []error
	files := 0
	take := func(name string, raw []byte, err error) {
		if err != nil {
			errs = append(errs, err)
			return
		}
		files++
		progress(files)
		docs, wrong := parse(name, raw)
		out = append(out, docs...)
		errs = append(errs, wrong...)
	}
	for _, path := range paths {
		if path == "-" {
			raw, err := io.ReadAll(in)
			take(stdin, raw, err)
			continue
		}
		names, err := expand(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, name := range names {
			raw, err := os.ReadFile(name)
			take(name, raw, err)
		}
	}
	return out, first(append(errs, twice(out)...))
}

// Documents are files as [Read] would read them from what [WriteYAML] writes.
func Documents(files []File) ([]*Document, error) {
	var text bytes.Buffer
	if err := WriteYAML(&text, files); err != nil {
		return nil, err
	}
	return Read([]string{"-"}, &text, func(int) {})
}

// first joins the first errors of many: a wrong directory may hold thousands.
func first(errs []error) error {
	const most = 50
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) > most {
		errs = append(errs[:most], fmt.Errorf("and %d more", len(errs)-most))
	}
	return errors.Join(errs...)
}

// expand lists a path's files in a stable order.
func expand(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var names []string
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		hidden := strings.HasPrefix(d.Name(), ".") && name != path
		switch {
		case err != nil:
			return err
		case d.IsDir() && hidden:
			return filepath.SkipDir
		case d.IsDir() || hidden || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)):
			return nil
		}
		if info, err := os.Stat(name); err != nil || info.IsDir() { // a link
			return err
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: the directory holds no .yaml, .yml or .json file", path)
	}
	return names, nil
}

func twice(docs []*Document) []error {
	var errs []error
	seen := make(map[resource.Ref]*Document, len(docs))
	for _, d := range docs {
		if first, ok := seen[d.Ref()]; ok {
			errs = append(errs, d.errorAt("$.name", fmt.Sprintf("is described twice; it stands in %s as well",
				first.Where("$.name"))))
			continue
		}
		seen[d.Ref()] = d
	}
	return errs
}

// parse reads the documents of one file.
func parse(name string, raw []byte) (out []*Document, errs []error) {
	roots, err := roots(name, raw)
	if err != nil {
		return nil, []error{err}
	}
	for i, root := range roots {
		p := &parser{file: name, number: i + 1}
		p.document(root)
		out = append(out, p.out...)
		errs = append(errs, p.errs...)
	}
	return out, errs
}

// roots are the documents of a file that are not empty or null.
func roots(name string, raw []byte) ([]*yaml.Node, error) {
	trimmed := bytes.TrimSpace(bytes.TrimPrefix(raw, []byte("\ufeff")))
	if filepath.Ext(name) == ".json" || bytes.HasPrefix(trimmed, []byte("{")) || bytes.HasPrefix(trimmed, []byte("[")) {
		// YAML contains JSON but for some of its escapes, so JSON has a reader of its own.
		nodes, err := fromJSON(raw)
		if err == nil {
			return nodes, nil
		}
		if filepath.Ext(name) == ".json" {
			return nil, fmt.Errorf("%s:%w", name, err)
		}
	}
	var out []*yaml.Node
	for dec := yaml.NewDecoder(bytes.NewReader(raw)); ; {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			text := strings.TrimPrefix(err.Error(), "yaml: ")
			if line, rest, ok := strings.Cut(strings.TrimPrefix(text, "line "), ": "); ok && strings.HasPrefix(text, "line ") {
				return nil, fmt.Errorf("%s:%s: document %d: %s", name, line, len(out)+1, rest)
			}
			return nil, fmt.Errorf("%s: document %d: %s", name, len(out)+1, text)
		}
		out = append(out, n.Content...)
	}
}
