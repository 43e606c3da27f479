package main

import (
	"context"
	"embed"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed programs
var programs embed.FS

// write makes a program from its template, with what the document says of the kinds.
func (b *bench) write(name, to string) error {
	t, err := template.New(name).Funcs(template.FuncMap{
		"title":  func(s string) string { return strings.ToUpper(s[:1]) + s[1:] },
		"string": func(s string) (string, error) { raw, err := json.Marshal(s); return string(raw), err },
	}).ParseFS(programs, "programs/"+name)
	if err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	if err := t.Execute(f, map[string]any{"Kinds": b.kinds, "Object": object}); err != nil {
		return err
	}
	return f.Close()
}

// python generates with openapi-python-client; a warning of it is a piece that is missing.
func (b *bench) python(ctx context.Context, dir string) (string, error) {
	if _, err := b.command(ctx, b.root, nil, b.script("openapi-python-client"), "generate", "--path", b.document,
		"--output-path", filepath.Join(dir, "marchproxy"), "--overwrite", "--meta", "none", "--fail-on-warning"); err != nil {
		return "", err
	}
	venv, err := b.command(ctx, b.root, nil, b.script("venv"), "openapi-python-client",
		b.script("openapi-python-client.txt"))
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "crud.py")
	if err := b.write("crud.py.tmpl", program); err != nil {
		return "", err
	}
	return b.command(ctx, dir, nil, filepath.Join(strings.TrimSpace(venv), "bin", "python"), program)
}

// typescript generates with openapi-typescript; the compiler then checks every call and example against it.
func (b *bench) typescript(ctx context.Context, dir string) (string, error) {
	packages, err := b.command(ctx, b.root, nil, b.script("npm-ci"), filepath.Join(b.root, "tools", "clients"))
	if err != nil {
		return "", err
	}
	modules := filepath.Join(strings.TrimSpace(packages), "node_modules")
	if err := os.RemoveAll(filepath.Join(dir, "node_modules")); err != nil { // of the run before, with -keep
		return "", err
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		return "", err
	}
	for name, text := range map[string]string{"package.json": `{"type": "module"}`, "tsconfig.json": tsconfig} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	if err := b.write("crud.ts.tmpl", filepath.Join(dir, "crud.ts")); err != nil {
		return "", err
	}
	node := b.script("node")
	if _, err := b.command(ctx, dir, nil, node, filepath.Join(modules, "openapi-typescript", "bin", "cli.js"), b.document,
		"-o", "api.ts"); err != nil {
		return "", err
	}
	if _, err := b.command(ctx, dir, nil, node, filepath.Join(modules, "typescript", "bin", "tsc"), "-p",
		"."); err != nil {
		return "", err
	}
	return b.command(ctx, dir, nil, node, "crud.ts") // Node leaves the types out by itself
}

const tsconfig = `{"compilerOptions": {"strict": true, "noEmit": true, "target": "es2023", "lib": ["es2023", "dom"], "types": [],
 "module": "nodenext", "moduleResolution": "nodenext", "allowImportingTsExtensions": true, "erasableSyntaxOnly": true,
 "exactOptionalPropertyTypes": true, "skipLibCheck": true}, "files": ["crud.ts"]}
`

// golang generates with oapi-codegen, and builds in a module of the same versions as tools/clients.
func (b *bench) golang(ctx context.Context, dir string) (string, error) {
	for _, name := range []string{"go.mod", "go.sum"} {
		raw, err := os.ReadFile(filepath.Join(b.root, "tools", "clients", name))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o644); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "marchproxy"), 0o755); err != nil {
		return "", err
	}
	if _, err := b.command(ctx, b.root, nil, b.script("tool"), "oapi-codegen", "-generate", "types,client", "-package",
		"marchproxy",
		"-o", filepath.Join(dir, "marchproxy", "marchproxy.go"), b.document); err != nil {
		return "", err
	}
	if err := b.write("crud.go.tmpl", filepath.Join(dir, "main.go")); err != nil {
		return "", err
	}
	return b.command(ctx, dir, []string{"GOWORK=off", "GOFLAGS=-buildvcs=false"}, "go", "run", ".")
}
