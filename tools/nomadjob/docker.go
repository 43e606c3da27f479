package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// block is what a block of configuration may have: arguments with their types, and blocks.
type block struct {
	attributes map[string]cty.Type
	required   []string
	blocks     map[string]block
	// once says of which blocks there may be one alone.
	once []string
}

var (
	list  = cty.List(cty.String)
	table = cty.Map(cty.String)
)

// docker is what the docker driver of Nomad 1.10 takes of a task, as its documentation has it
// (https://developer.hashicorp.com/nomad/docs/drivers/docker). What it does not list is refused, so that a word that is
// misspelt is found before a client finds it.
var docker = block{
	attributes: map[string]cty.Type{
		"image": cty.String, "image_pull_timeout": cty.String, "args": list, "auth_soft_fail": cty.Bool, "cap_add": list,
		"cap_drop": list, "cgroupns": cty.String, "command": cty.String, "container_exists_attempts": cty.Number,
		"cpu_cfs_period": cty.Number, "cpu_hard_limit": cty.Bool, "cpuset_cpus": cty.String, "dns_options": list,
		"dns_search_domains": list, "dns_servers": list, "entrypoint": list, "extra_hosts": list,
		"force_pull": cty.Bool, "group_add": list, "hostname": cty.String, "init": cty.Bool, "interactive": cty.Bool,
		"ipc_mode": cty.String, "ipv4_address": cty.String, "ipv6_address": cty.String, "isolation": cty.String, "labels": table,
		"load": cty.String, "mac_address": cty.String, "memory_hard_limit": cty.Number, "network_aliases": list,
		"network_mode": cty.String, "oom_score_adj": cty.Number, "pid_mode": cty.String, "pids_limit": cty.Number, "ports": list,
		"privileged": cty.Bool, "readonly_rootfs": cty.Bool, "runtime": cty.String, "security_opt": list,
		"shm_size": cty.Number, "storage_opt": table, "sysctl": table, "tty": cty.Bool, "ulimit": table,
		"advertise_ipv6_address": cty.Bool, "userns_mode": cty.String, "uts_mode": cty.String, "volume_driver": cty.String,
		"volumes": list, "work_dir": cty.String,
	},
	required: []string{"image"},
	once:     []string{"auth", "healthchecks", "logging"},
	blocks: map[string]block{
		"auth": {attributes: map[string]cty.Type{
			"username": cty.String, "password": cty.String, "email": cty.String, "server_address": cty.String,
		}},
		"devices": {attributes: map[string]cty.Type{
			"host_path": cty.String, "container_path": cty.String, "cgroup_permissions": cty.String,
		}},
		"healthchecks": {attributes: map[string]cty.Type{"disable": cty.Bool}},
		"logging":      {attributes: map[string]cty.Type{"type": cty.String, "driver": cty.String, "config": table}},
		"mount": {
			attributes: map[string]cty.Type{
				"type": cty.String, "target": cty.String, "source": cty.String, "readonly": cty.Bool,
			},
			required: []string{"type", "target"},
			once:     []string{"bind_options", "tmpfs_options", "volume_options"},
			blocks: map[string]block{
				"bind_options":  {attributes: map[string]cty.Type{"propagation": cty.String}},
				"tmpfs_options": {attributes: map[string]cty.Type{"size": cty.Number, "mode": cty.Number}},
				"volume_options": {
					attributes: map[string]cty.Type{"no_copy": cty.Bool, "labels": table, "subpath": cty.String},
					blocks: map[string]block{"driver_config": {attributes: map[string]cty.Type{
						"name": cty.String, "options": table,
					}}},
				},
			},
		},
	},
}

// decode reads a block strictly; the result is what JSON has for it, blocks as lists.
func (s block) decode(b hcl.Body, ctx *hcl.EvalContext) (map[string]any, hcl.Diagnostics) {
	schema := &hcl.BodySchema{}
	for name := range s.attributes {
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: name, Required: slices.Contains(s.required, name)})
	}
	for name := range s.blocks {
		schema.Blocks = append(schema.Blocks, hcl.BlockHeaderSchema{Type: name})
	}
	c, diags := b.Content(schema)
	if diags.HasErrors() {
		return nil, diags
	}
	out := map[string]any{}
	for name, a := range c.Attributes {
		v, d := a.Expr.Value(ctx)
		if diags = append(diags, d...); d.HasErrors() {
			continue
		}
		raw, err := asJSON(v, s.attributes[name])
		if err != nil {
			diags = append(diags, wrong(a.Range, "another type", fmt.Sprintf("%s: %v", name, err))...)
		}
		out[name] = raw
	}
	for _, x := range c.Blocks {
		inner, d := s.blocks[x.Type].decode(x.Body, ctx)
		diags = append(diags, d...)
		list, _ := out[x.Type].([]any)
		if len(list) > 0 && slices.Contains(s.once, x.Type) {
			diags = append(diags, wrong(x.DefRange, "there may be one of these alone", x.Type)...)
		}
		out[x.Type] = append(list, inner)
	}
	return out, diags
}

func asJSON(v cty.Value, t cty.Type) (json.RawMessage, error) {
	if v.Type() != cty.DynamicPseudoType && t.IsPrimitiveType() && v.Type() != t {
		return nil, fmt.Errorf("is a %s, and must be a %s", v.Type().FriendlyName(), t.FriendlyName())
	}
	v, err := convert.Convert(v, t)
	if err != nil {
		return nil, err
	}
	return ctyjson.Marshal(v, t)
}
