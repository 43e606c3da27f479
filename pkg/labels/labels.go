// Package labels reads what labels of a container, or tags of a catalog's service, say of Services and Routes.
//
//	marchproxy.enable=true                  nothing is done without it
//	marchproxy.name=web                     the Service's name
//	marchproxy.port=8080                    the container's port
//	marchproxy.network=front                the network to reach it by, where it has several
//	marchproxy.weight=2, .zone=a, .cloud=b, .region=c  of its endpoints
//	marchproxy.service.FIELD=VALUE          a field of the Service, by its JSON path: health_check.http.path
//	marchproxy.routes.NAME.FIELD=VALUE      a field of a Route, by its JSON path: path.prefix
//
// A list of words has commas between them; elements of other lists are numbered: backends.0.service. Common labels of
// Traefik are read as well, see [FromTraefik].
package labels

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Prefix is that of every label of ours.
const Prefix = "marchproxy."

// Basics are what labels say beside the fields of a Service and of Routes.
type Basics struct {
	// Enabled says that it is to be served at all.
	Enabled bool
	// Name, Network, Zone, Cloud and Region are "" and Port and Weight 0 where nothing is said.
	Name, Network, Zone, Cloud, Region string
	Port, Weight                       uint32
}

// ReadBasics reads these alone, which costs little: for each of a workload's endpoints.
func ReadBasics(all map[string]string) (out Basics) {
	for label, value := range all {
		if name, ours := strings.CutPrefix(label, Prefix); ours {
			_, _ = out.set(name, value) // Read says what is wrong with it
		}
	}
	if all[Prefix+"enable"] == "" && all[traefik+"enable"] == "" {
		return out
	}
	for label, value := range all {
		if name, theirs := strings.CutPrefix(strings.ToLower(label), traefik); theirs {
			ours := traefikBasic(strings.Split(name, "."))
			if _, there := all[Prefix+ours]; ours != "" && !there {
				_, _ = out.set(ours, value)
			}
		}
	}
	return out
}

// set sets what a label says, by its name without the prefix; false for one that is not among them.
func (b *Basics) set(name, value string) (known bool, err error) {
	value = strings.TrimSpace(value)
	switch name {
	case "enable":
		if b.Enabled, err = strconv.ParseBool(value); err != nil {
			err = fmt.Errorf("%q is not true or false", value)
		}
	case "name":
		if msg := resource.CheckName(value); msg != "" {
			return true, errors.New(msg)
		}
		b.Name = value
	case "network":
		b.Network = value
	case "zone":
		b.Zone = value
	case "cloud":
		b.Cloud = value
	case "region":
		b.Region = value
	case "port":
		b.Port, err = number(value, 65535)
	case "weight":
		b.Weight, err = number(value, 10000)
	default:
		return false, nil
	}
	return true, err
}

// Settings are what labels say of a workload.
type Settings struct {
	Basics
	// Service and Routes are specs in JSON, without what a service's name is needed for; Routes by their names in the
	// labels.
	Service json.RawMessage
	Routes  map[string]json.RawMessage
	// Bad are the routes that cannot be made of their labels; they stay what they were.
	Bad map[string]bool
	// BadService says the same of the service.
	BadService bool
	// Problems say which label is wrong, and why.
	Problems []string
}

// Read reads labels; those of other programs are no matter.
func Read(all map[string]string) Settings {
	all, notes := FromTraefik(all)
	out := Settings{Routes: map[string]json.RawMessage{}, Bad: map[string]bool{}, Problems: notes}
	service := fields{}
	routes := map[string]fields{}
	fail := func(label, format string, args ...any) {
		out.Problems = append(out.Problems, fmt.Sprintf("label %s: %s", label, fmt.Sprintf(format, args...)))
	}
	for _, label := range slices.Sorted(maps.Keys(all)) {
		name, ours := strings.CutPrefix(label, Prefix)
		if !ours {
			continue
		}
		value := strings.TrimSpace(all[label])
		if known, err := out.set(name, value); known {
			if err != nil {
				fail(label, "%v", err)
			}
			continue
		}
		switch first, rest, _ := strings.Cut(name, "."); first {
		case "service":
			if err := service.set(descriptor(resource.KindService), strings.Split(rest, "."), value); err != nil {
				fail(label, "%v", err)
				out.BadService = true
			}
		case "routes":
			route, field, _ := strings.Cut(rest, ".")
			if msg := resource.CheckName(route); msg != "" || field == "" {
				fail(label, "write marchproxy.routes.NAME.FIELD, where NAME is of a-z, 0-9 and -")
				continue
			}
			if routes[route] == nil {
				routes[route] = fields{}
			}
			err := routes[route].set(descriptor(resource.KindRoute), strings.Split(field, "."), value)
			if field == "auth_policy" && value == config.NoPolicy {
				err = errors.New("a container cannot take the policy off a route; write such a route by hand")
			}
			if err != nil {
				fail(label, "%v", err)
				out.Bad[route] = true
			}
		default:
			fail(label, "is not known; there are marchproxy.enable, name, port, network, weight, zone, cloud, region, "+
				"service.FIELD and routes.NAME.FIELD")
		}
	}
	out.Service = service.json()
	for route, f := range routes {
		if !out.Bad[route] {
			out.Routes[route] = f.json()
		}
	}
	return out
}

func number(value string, most uint64) (uint32, error) {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n == 0 || n > most {
		return 0, fmt.Errorf("%q is not a number from 1 to %d", value, most)
	}
	return uint32(n), nil
}

func descriptor(kind string) protoreflect.MessageDescriptor {
	k, _ := resource.KindByName(kind)
	return k.New().ProtoReflect().Descriptor()
}

// fields is a message in JSON that is being put together; elements of lists are by their numbers.
type fields map[string]any

type elements map[int]any

// set sets the field at a path.
func (f fields) set(d protoreflect.MessageDescriptor, path []string, value string) error {
	fd := d.Fields().ByName(protoreflect.Name(path[0]))
	if fd == nil {
		return fmt.Errorf("%s has no field %q; it has %s", d.Name(), path[0], names(d))
	}
	rest := path[1:]
	switch {
	case fd.IsMap():
		if len(rest) == 0 {
			return fmt.Errorf("%s takes names; write %s.NAME", path[0], path[0])
		}
		v, err := scalar(fd.MapValue(), value)
		if err != nil {
			return err
		}
		at, _ := f[path[0]].(fields)
		if at == nil {
			at = fields{}
			f[path[0]] = at
		}
		at[strings.Join(rest, ".")] = v
		return nil
	case fd.IsList() && len(rest) == 0:
		if strings.HasPrefix(value, "[") {
			return f.raw(path[0], value)
		}
		if isMessage(fd) {
			return fmt.Errorf("%s is a list; write %s.0.FIELD, or JSON in brackets", path[0], path[0])
		}
		var list []any
		for part := range strings.SplitSeq(value, ",") {
			v, err := scalar(fd, strings.TrimSpace(part))
			if err != nil {
				return err
			}
			list = append(list, v)
		}
		f[path[0]] = list
		return nil
	case fd.IsList():
		n, err := strconv.Atoi(rest[0])
		if err != nil || n < 0 || n > 1000 {
			return fmt.Errorf("%s is a list; %q is no number of an element", path[0], rest[0])
		}
		list, _ := f[path[0]].(elements)
		if list == nil {
			list = elements{}
			f[path[0]] = list
		}
		if len(rest) == 1 {
			list[n], err = scalar(fd, value)
			return err
		}
		if !isMessage(fd) {
			return fmt.Errorf("%s.%d has no fields", path[0], n)
		}
		at, _ := list[n].(fields)
		if at == nil {
			at = fields{}
			list[n] = at
		}
		return at.set(fd.Message(), rest[1:], value)
	case len(rest) == 0:
		if isMessage(fd) {
			if strings.HasPrefix(value, "{") {
				return f.raw(path[0], value)
			}
			return fmt.Errorf("%s has fields of its own (%s); write %s.FIELD, or JSON in braces", path[0],
				names(fd.Message()), path[0])
		}
		v, err := scalar(fd, value)
		f[path[0]] = v
		return err
	case !isMessage(fd):
		return fmt.Errorf("%s has no fields", path[0])
	}
	at, _ := f[path[0]].(fields)
	if at == nil {
		at = fields{}
		f[path[0]] = at
	}
	return at.set(fd.Message(), rest, value)
}

// raw is a value in JSON.
func (f fields) raw(name, value string) error {
	if !json.Valid([]byte(value)) {
		return fmt.Errorf("%q is no JSON", value)
	}
	f[name] = json.RawMessage(value)
	return nil
}

// isMessage says whether a field has fields of its own; a duration is a word in JSON.
func isMessage(fd protoreflect.FieldDescriptor) bool {
	return fd.Message() != nil && !fd.IsMap() && fd.Message().FullName() != "google.protobuf.Duration"
}

func scalar(fd protoreflect.FieldDescriptor, value string) (any, error) {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		on, err := strconv.ParseBool(value)
		if err != nil {
			return nil, fmt.Errorf("%q is not true or false", value)
		}
		return on, nil
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Int32Kind, protoreflect.Int64Kind:
		if _, err := strconv.ParseInt(value, 10, 64); err != nil {
			return nil, fmt.Errorf("%q is not a whole number", value)
		}
		return json.Number(value), nil
	case protoreflect.MessageKind:
		if isMessage(fd) {
			return nil, fmt.Errorf("it has fields of its own: %s", names(fd.Message()))
		}
	}
	return value, nil
}

func names(d protoreflect.MessageDescriptor) string {
	var out []string
	for i := range d.Fields().Len() {
		out = append(out, string(d.Fields().Get(i).Name()))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (f fields) json() json.RawMessage {
	raw, err := json.Marshal(plain(f))
	if err != nil {
		panic(err) // of maps, lists and words
	}
	return raw
}

// plain puts the elements of lists in the order of their numbers.
func plain(v any) any {
	switch v := v.(type) {
	case fields:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[k] = plain(x)
		}
		return out
	case elements:
		var out []any
		for _, n := range slices.Sorted(maps.Keys(v)) {
			out = append(out, plain(v[n]))
		}
		return out
	}
	return v
}
