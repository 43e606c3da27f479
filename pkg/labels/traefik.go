package labels

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const traefik = "traefik."

// FromTraefik adds our labels for those of Traefik that say something which we have, too. Ours count where both are
// there.
//
//	traefik.enable, traefik.docker.network
//	traefik.http.routers.NAME.rule          Host, Path, PathPrefix, Method, Header and Query, with && and ||
//	traefik.http.services.NAME.loadbalancer.server.port, .server.scheme, .healthcheck.path, .interval, .timeout
//
// notes are about labels that say something else, which is not done: middlewares, priorities, entry points.
func FromTraefik(all map[string]string) (out map[string]string, notes []string) {
	out = maps.Clone(all)
	add := func(name, value string) {
		if _, there := all[Prefix+name]; !there {
			out[Prefix+name] = value
		}
	}
	if _, own := all[Prefix+"enable"]; !own && all[traefik+"enable"] == "" {
		return out, nil
	}
	for _, label := range slices.Sorted(maps.Keys(all)) {
		// Traefik's labels are in any case.
		name, theirs := strings.CutPrefix(strings.ToLower(label), traefik)
		if !theirs {
			continue
		}
		value := strings.TrimSpace(all[label])
		parts := strings.Split(name, ".")
		if ours := traefikBasic(parts); ours != "" {
			add(ours, value)
			continue
		}
		switch {
		case len(parts) == 4 && parts[0] == "http" && parts[1] == "routers" && parts[3] == "rule":
			if err := routes(parts[2], value, add); err != nil {
				notes = append(notes, fmt.Sprintf("label %s: %v", label, err))
			}
		case len(parts) > 4 && parts[0] == "http" && parts[1] == "services" && parts[3] == "loadbalancer":
			switch strings.Join(parts[4:], ".") {
			case "server.scheme":
				if p := map[string]string{"https": "https", "h2c": "http2"}[value]; p != "" {
					add("service.protocol", p)
				}
			case "healthcheck.path":
				add("service.health_check.http.path", value)
			case "healthcheck.interval":
				add("service.health_check.interval", value)
			case "healthcheck.timeout":
				add("service.health_check.timeout", value)
			default:
				notes = append(notes, fmt.Sprintf("label %s: has no equal here, and is not done", label))
			}
		case len(parts) == 4 && parts[0] == "http" && parts[1] == "routers" && parts[3] == "service":
			// A container has one service here.
		default:
			notes = append(notes, fmt.Sprintf("label %s: has no equal here, and is not done", label))
		}
	}
	return out, notes
}

// traefikBasic is which of [Basics] a label of theirs is, by its parts in small letters; "" for none.
func traefikBasic(parts []string) string {
	switch {
	case len(parts) == 1 && parts[0] == "enable":
		return "enable"
	case len(parts) == 2 && parts[0] == "docker" && parts[1] == "network":
		return "network"
	case len(parts) == 6 && parts[0] == "http" && parts[1] == "services" &&
		strings.Join(parts[3:], ".") == "loadbalancer.server.port":
		return "port"
	}
	return ""
}

// routes adds the labels of a rule's routes: one for each of its alternatives that differ in more than the host.
func routes(name, rule string, add func(name, value string)) error {
	merged, err := alternatives(rule)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(merged, func(c conjunction) bool { return c.fields["path.regex"] != "" }) {
		return errors.New("PathRegexp is not read here; there are Host, Path, PathPrefix, Method, Header and Query")
	}
	name = strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name), "-")
	for i, c := range merged {
		route := name
		if i > 0 {
			route = fmt.Sprintf("%s-%d", name, i+1)
		}
		if len(c.hosts) > 0 {
			add("routes."+route+".hosts", strings.Join(c.hosts, ","))
		}
		for field, value := range c.fields {
			add("routes."+route+"."+field, value)
		}
		for list, matches := range map[string][]match{"headers": c.headers, "query": c.query} {
			for n, m := range matches {
				add(fmt.Sprintf("routes.%s.%s.%d.name", route, list, n), m.name)
				add(fmt.Sprintf("routes.%s.%s.%d.value.exact", route, list, n), m.value)
			}
		}
	}
	return nil
}

// alternatives reads a rule; those that differ in the host alone are one.
func alternatives(rule string) ([]conjunction, error) {
	p := ruleParser{rest: rule}
	all, err := p.or()
	if err == nil && strings.TrimSpace(p.rest) != "" {
		err = fmt.Errorf("cannot be read from %q on", strings.TrimSpace(p.rest))
	}
	if err != nil {
		return nil, err
	}
	var merged []conjunction
	for _, c := range all {
		i := slices.IndexFunc(merged, func(m conjunction) bool {
			return maps.Equal(m.fields, c.fields) && slices.Equal(m.headers, c.headers) && slices.Equal(m.query, c.query)
		})
		if i >= 0 && len(merged[i].hosts) > 0 && len(c.hosts) > 0 {
			merged[i].hosts = append(merged[i].hosts, c.hosts...)
		} else {
			merged = append(merged, c)
		}
	}
	for i := range merged {
		slices.Sort(merged[i].hosts)
		merged[i].hosts = slices.Compact(merged[i].hosts)
	}
	return merged, nil
}

// Match is what one alternative of a rule asks of a request, all of it.
type Match struct {
	// Hosts are in small letters; any where empty.
	Hosts []string
	// At most one of Exact, Prefix (in the middle of a segment too) and Regex (found anywhere in the path) is there.
	Exact, Prefix, Regex string
	Methods              []string
	Headers, Query       []NameValue
}

// NameValue is a header or a query parameter with its value.
type NameValue struct{ Name, Value string }

// Rule reads a rule of a router of Traefik's: its alternatives, those that differ in the host alone as one.
func Rule(rule string) (out []Match, err error) {
	all, err := alternatives(rule)
	for _, c := range all {
		m := Match{
			Hosts: c.hosts, Exact: c.fields["path.exact"], Prefix: c.fields["path.prefix"], Regex: c.fields["path.regex"],
		}
		if methods := c.fields["methods"]; methods != "" {
			m.Methods = strings.Split(methods, ",")
		}
		for _, h := range c.headers {
			m.Headers = append(m.Headers, NameValue{h.name, h.value})
		}
		for _, q := range c.query {
			m.Query = append(m.Query, NameValue{q.name, q.value})
		}
		out = append(out, m)
	}
	return out, err
}

// conjunction is what a request has to be, all of it.
type conjunction struct {
	hosts          []string
	fields         map[string]string // of a Route, by their paths
	headers, query []match
}

type match struct{ name, value string }

// and is what both ask for.
func (c conjunction) and(d conjunction) (conjunction, error) {
	out := conjunction{
		hosts: slices.Concat(c.hosts, d.hosts), fields: maps.Clone(c.fields),
		headers: slices.Concat(c.headers, d.headers), query: slices.Concat(c.query, d.query),
	}
	if out.fields == nil {
		out.fields = map[string]string{}
	}
	for field, value := range d.fields {
		if was := out.fields[field]; was != "" && was != value {
			return out, fmt.Errorf("asks for two values of %s at once", field)
		}
		out.fields[field] = value
	}
	if paths := []string{out.fields["path.exact"], out.fields["path.prefix"], out.fields["path.regex"]}; len(
		slices.DeleteFunc(paths, func(p string) bool { return p == "" })) > 1 {
		return out, errors.New("asks for two paths at once")
	}
	if len(c.hosts) > 0 && len(d.hosts) > 0 {
		return out, errors.New("asks for two hosts at once")
	}
	return out, nil
}

// ruleParser reads Traefik's rules: alternatives of what all has to be so.
type ruleParser struct{ rest string }

func (p *ruleParser) take(token string) bool {
	p.rest = strings.TrimSpace(p.rest)
	rest, ok := strings.CutPrefix(p.rest, token)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *ruleParser) or() ([]conjunction, error) {
	out, err := p.and()
	for err == nil && p.take("||") {
		var more []conjunction
		more, err = p.and()
		out = append(out, more...)
	}
	return out, err
}

func (p *ruleParser) and() ([]conjunction, error) {
	out, err := p.one()
	for err == nil && p.take("&&") {
		more, failed := p.one()
		if failed != nil {
			return nil, failed
		}
		var both []conjunction
		for _, a := range out {
			for _, b := range more {
				c, failed := a.and(b)
				if failed != nil {
					return nil, failed
				}
				both = append(both, c)
			}
		}
		if out = both; len(out) > 64 {
			return nil, errors.New("has more than 64 alternatives")
		}
	}
	return out, err
}

func (p *ruleParser) one() ([]conjunction, error) {
	if p.take("(") {
		out, err := p.or()
		if err == nil && !p.take(")") {
			err = errors.New("lacks a closing parenthesis")
		}
		return out, err
	}
	p.rest = strings.TrimSpace(p.rest)
	name, _, found := strings.Cut(p.rest, "(")
	if !found {
		return nil, fmt.Errorf("cannot be read from %q on", p.rest)
	}
	p.rest = p.rest[len(name)+1:]
	var args []string
	for !p.take(")") {
		if len(args) > 0 && !p.take(",") {
			return nil, fmt.Errorf("lacks a comma or a closing parenthesis before %q", p.rest)
		}
		p.rest = strings.TrimSpace(p.rest)
		if p.rest == "" || !strings.ContainsRune("`\"'", rune(p.rest[0])) {
			return nil, fmt.Errorf("lacks a value in backticks before %q", p.rest)
		}
		value, rest, closed := strings.Cut(p.rest[1:], p.rest[:1])
		if !closed {
			return nil, fmt.Errorf("has no end of the value that begins at %q", p.rest)
		}
		args, p.rest = append(args, value), rest
	}
	return matcher(strings.TrimSpace(name), args)
}

// matcher is what one function of a rule says.
func matcher(name string, args []string) ([]conjunction, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("%s has no value", name)
	}
	field := func(fields map[string]string) conjunction { return conjunction{fields: fields} }
	var out []conjunction
	switch name {
	case "Host":
		var hosts []string
		for _, h := range args {
			hosts = append(hosts, strings.ToLower(h))
		}
		return []conjunction{{hosts: hosts}}, nil
	case "Path":
		for _, a := range args {
			out = append(out, field(map[string]string{"path.exact": a}))
		}
	case "PathPrefix":
		for _, a := range args {
			out = append(out, field(map[string]string{"path.prefix": a}))
		}
	case "PathRegexp":
		for _, a := range args {
			out = append(out, field(map[string]string{"path.regex": a}))
		}
	case "Method":
		return []conjunction{field(map[string]string{"methods": strings.ToUpper(strings.Join(args, ","))})}, nil
	case "Header", "Headers", "Query":
		if len(args) != 2 {
			return nil, fmt.Errorf("%s takes a name and a value", name)
		}
		m := []match{{args[0], args[1]}}
		if name == "Query" {
			return []conjunction{{query: m}}, nil
		}
		return []conjunction{{headers: m}}, nil
	default:
		return nil, fmt.Errorf("%s is not read here; there are Host, Path, PathPrefix, Method, Header and Query", name)
	}
	return out, nil
}
