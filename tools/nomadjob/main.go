// Command nomadjob reads a Nomad job file as strictly as can be without a Nomad, and prints the job as JSON. Nomad's fork of
// HCL decodes it into Nomad's own API types, so that an unknown block, argument or type is an error with its place; the
// configuration of a docker task is held against what that driver takes ([docker]).
//
//	nomadjob [-var NAME=VALUE ...] FILE
//
// What Nomad fills in on a client (${node...}, ${attr...}, ${meta...}, ${NOMAD_...}) stays as it is.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/nomad/api"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

func main() {
	given := map[string]string{}
	flag.Func("var", "NAME=VALUE of an input variable; several times", func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("must be NAME=VALUE")
		}
		given[name] = value
		return nil
	})
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: nomadjob [-var NAME=VALUE ...] FILE")
		os.Exit(2)
	}
	p := hclparse.NewParser()
	job, diags := read(p, flag.Arg(0), given)
	if diags.HasErrors() {
		w := hcl.NewDiagnosticTextWriter(os.Stderr, p.Files(), 120, false)
		if err := w.WriteDiagnostics(diags); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(job); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// wrong is one diagnostic.
func wrong(at hcl.Range, summary, detail string) hcl.Diagnostics {
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &at}}
}

func read(p *hclparse.Parser, path string, given map[string]string) (*api.Job, hcl.Diagnostics) {
	file, diags := p.ParseHCLFile(path)
	if diags.HasErrors() {
		return nil, diags
	}
	content, diags := file.Body.Content(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
		{Type: "variable", LabelNames: []string{"name"}}, {Type: "job", LabelNames: []string{"name"}},
	}})
	if diags.HasErrors() {
		return nil, diags
	}
	values := map[string]cty.Value{}
	var jobs []*hcl.Block
	for _, b := range content.Blocks {
		if b.Type == "job" {
			jobs = append(jobs, b)
			continue
		}
		v, d := variable(b, given)
		diags = append(diags, d...)
		values[b.Labels[0]] = v
	}
	for name := range given {
		if _, declared := values[name]; !declared {
			diags = append(diags, wrong(file.Body.MissingItemRange(), "no such variable", name)...)
		}
	}
	if len(jobs) != 1 {
		diags = append(diags, wrong(file.Body.MissingItemRange(), "not one job", fmt.Sprintf("the file has %d", len(jobs)))...)
	}
	if diags.HasErrors() {
		return nil, diags
	}
	ctx := &hcl.EvalContext{Variables: map[string]cty.Value{"var": cty.ObjectVal(values)}, UndefinedVariable: later}
	inner, d := &gohcl.Decoder{}, &gohcl.Decoder{}
	for _, d := range []*gohcl.Decoder{inner, d} {
		d.RegisterExpressionDecoder(reflect.TypeFor[time.Duration](), duration)
		d.RegisterExpressionDecoder(reflect.TypeFor[*time.Duration](), duration)
		d.RegisterBlockDecoder(reflect.TypeFor[api.Constraint](), constraint)
	}
	// A task's config is a map to Nomad's API, and its driver's matter; as a map it could have no blocks.
	d.RegisterBlockDecoder(reflect.TypeFor[api.Task](), func(b hcl.Body, ctx *hcl.EvalContext, into any) hcl.Diagnostics {
		task := into.(*api.Task)
		c, rest, diags := b.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "config"}}})
		diags = append(diags, inner.DecodeBody(rest, ctx, task)...)
		if len(c.Blocks) != 1 {
			return append(diags, wrong(b.MissingItemRange(), "not one config", "a task of the docker driver has one")...)
		}
		config, d := docker.decode(c.Blocks[0].Body, ctx)
		task.Config = config
		return append(diags, d...)
	})
	job := &api.Job{ID: &jobs[0].Labels[0]}
	if diags := d.DecodeBody(jobs[0].Body, ctx, job); diags.HasErrors() {
		return nil, diags
	}
	for _, g := range job.TaskGroups {
		for _, t := range g.Tasks {
			if t.Driver != "docker" {
				return nil, wrong(jobs[0].DefRange, "another driver than docker", t.Name+": "+t.Driver)
			}
		}
	}
	job.Canonicalize()
	return job, nil
}

// variable is the value of an input variable: what is given, or its default.
func variable(b *hcl.Block, given map[string]string) (cty.Value, hcl.Diagnostics) {
	name := b.Labels[0]
	c, diags := b.Body.Content(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{
		{Name: "type", Required: true}, {Name: "default"}, {Name: "description"},
	}})
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	t, diags := typeexpr.TypeConstraint(c.Attributes["type"].Expr)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	var v cty.Value
	if s, here := given[name]; here {
		v = cty.StringVal(s)
	} else if a := c.Attributes["default"]; a != nil {
		if v, diags = a.Expr.Value(nil); diags.HasErrors() {
			return cty.DynamicVal, diags
		}
	} else {
		return cty.DynamicVal, wrong(b.DefRange, "a variable has no value", name+" has no default: -var "+name+"=...")
	}
	v, err := convert.Convert(v, t)
	if err != nil {
		return cty.DynamicVal, wrong(b.DefRange, "a variable has another type", name+": "+err.Error())
	}
	return v, nil
}

// later leaves to Nomad what only a client knows.
func later(t hcl.Traversal) (cty.Value, hcl.Diagnostics) {
	root := t.RootName()
	known := strings.HasPrefix(root, "NOMAD_")
	for _, x := range []string{"node", "attr", "meta", "device", "env"} {
		known = known || root == x
	}
	if !known {
		return cty.DynamicVal, wrong(t.SourceRange(), "unknown reference", root+" is nothing that Nomad fills in")
	}
	name := root
	for _, step := range t[1:] {
		a, ok := step.(hcl.TraverseAttr)
		if !ok {
			return cty.DynamicVal, wrong(t.SourceRange(), "unknown reference", "only names and dots are known here")
		}
		name += "." + a.Name
	}
	return cty.StringVal("${" + name + "}"), nil
}

// duration decodes what has a unit, or is a number of nanoseconds.
func duration(e hcl.Expression, ctx *hcl.EvalContext, into any) hcl.Diagnostics {
	v, diags := e.Value(ctx)
	if diags.HasErrors() {
		return diags
	}
	if v.Type() != cty.String {
		return wrong(e.Range(), "not a duration", `it is written "30s"`)
	}
	x, err := time.ParseDuration(v.AsString())
	if err != nil {
		return wrong(e.Range(), "not a duration", err.Error())
	}
	switch to := into.(type) {
	case *time.Duration:
		*to = x
	case **time.Duration:
		*to = &x
	}
	return nil
}

// operators are those of a constraint.
var operators = map[string]bool{
	"=": true, "==": true, "is": true, "!=": true, "not": true, ">": true, ">=": true, "<": true, "<=": true,
	"distinct_hosts": true, "distinct_property": true, "regexp": true, "set_contains": true, "set_contains_all": true,
	"set_contains_any": true, "version": true, "semver": true, "is_set": true, "is_not_set": true,
}

func constraint(b hcl.Body, ctx *hcl.EvalContext, into any) hcl.Diagnostics {
	c := into.(*api.Constraint)
	attributes, diags := b.JustAttributes()
	for name, a := range attributes {
		v, d := a.Expr.Value(ctx)
		if diags = append(diags, d...); d.HasErrors() {
			continue
		}
		if v.Type() != cty.String {
			diags = append(diags, wrong(a.Range, "not a string", name)...)
			continue
		}
		switch name {
		case "attribute":
			c.LTarget = v.AsString()
		case "value":
			c.RTarget = v.AsString()
		case "operator":
			if c.Operand = v.AsString(); !operators[c.Operand] {
				diags = append(diags, wrong(a.Range, "no such operator", c.Operand)...)
			}
		default:
			diags = append(diags, wrong(a.NameRange, "no such argument of a constraint", name)...)
		}
	}
	return diags
}
