// Package reconcile makes the configuration say what sources have found: a Service, its Routes and an EndpointSet a
// workload, each by one apply of its own, so that one that is refused holds up no other.
package reconcile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"

	"github.com/marchproxy/marchproxy/pkg/labels"
	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// SiteLabel is on every object that is written, with the site's name, but on those that sites share: these have
// SharedLabel, with their owner's name. ProblemLabel says what is wrong with a workload.
const (
	SiteLabel    = "discover.site"
	SharedLabel  = "discover.shared"
	ProblemLabel = "discover.problem"
)

// Naming is how what is written is called.
type Naming struct {
	// Site tells this program's sets from those of others.
	Site string
	// Owner of Services and Routes, before the workload's key. Sites that share services have the same one.
	Owner string
	// Zone, Cloud and Region of endpoints whose labels say none.
	Zone, Cloud, Region string
}

// setOwner is the owner of EndpointSets, before the workload's key.
func (n Naming) setOwner() string { return "discover/" + n.Site }

// shares says whether Services and Routes are of several sites.
func (n Naming) shares() bool { return n.Owner != n.setOwner() }

// shared is the value of [SharedLabel].
func (n Naming) shared() string { return slug(n.Owner) }

// wanted is what should be there of one workload.
type wanted struct {
	key string
	// set is the EndpointSet, others the Service and its Routes.
	set    *api.Object
	others []api.Object
	// kept are the routes that stay as they are, because their labels cannot be read.
	kept     []string
	problems []string
}

// of makes the objects of a workload.
func (n Naming) of(w source.Workload) wanted {
	s := labels.Read(w.Labels)
	out := wanted{key: w.Key, problems: slices.Concat(s.Problems, w.Problems)}
	name := s.Name
	if name == "" {
		name = short(slug(w.Name), resource.MaxNameLength)
	}
	check := func(kind string, spec json.RawMessage, what string) (good bool) {
		k, _ := resource.KindByName(kind)
		_, v := resource.DecodeSpec(k, spec)
		for _, x := range v {
			out.problems = append(out.problems, fmt.Sprintf("labels %s%s%s: %s", labels.Prefix, what,
				strings.TrimPrefix(x.Path, "$"), x.Message))
		}
		return len(v) == 0
	}
	if !s.BadService && check(resource.KindService, s.Service, "service") {
		out.others = append(out.others, api.Object{Kind: resource.KindService, Name: name, Spec: s.Service})
	} else {
		out.kept = append(out.kept, resource.KindService+"/"+name)
	}
	for _, route := range slices.Sorted(maps.Keys(s.Routes)) {
		o := api.Object{
			Kind: resource.KindRoute, Name: short(name+"-"+route, resource.MaxNameLength),
			Spec: backed(s.Routes[route], name),
		}
		if check(resource.KindRoute, o.Spec, "routes."+route) {
			out.others = append(out.others, o)
		} else {
			out.kept = append(out.kept, resource.KindRoute+"/"+o.Name)
		}
	}
	for route := range s.Bad {
		out.kept = append(out.kept, resource.KindRoute+"/"+short(name+"-"+route, resource.MaxNameLength))
	}
	spec := struct {
		Service   string            `json:"service"`
		Endpoints []source.Endpoint `json:"endpoints"`
	}{name, []source.Endpoint{}}
	seen := map[string]bool{}
	for _, e := range w.Endpoints {
		at := fmt.Sprint(e.Host, " ", e.Port)
		if seen[at] { // the api takes an address once
			continue
		}
		seen[at] = true
		if e.Zone == "" {
			e.Zone = n.Zone
		}
		if e.Cloud == "" {
			e.Cloud = n.Cloud
		}
		if e.Region == "" {
			e.Region = n.Region
		}
		spec.Endpoints = append(spec.Endpoints, e)
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		panic(err) // of words and numbers
	}
	out.set = &api.Object{
		Kind: resource.KindEndpointSet, Name: short(name+"-"+slug(n.Site), resource.MaxNameLength),
		Spec: raw,
	}
	mark := func(o *api.Object, owner string) {
		o.Owner, o.Labels = n.owner(owner, w.Key), map[string]string{SiteLabel: n.Site}
	}
	for i := range out.others {
		mark(&out.others[i], n.Owner)
		if n.shares() {
			out.others[i].Labels = map[string]string{SharedLabel: n.shared()}
		}
	}
	mark(out.set, n.setOwner())
	if len(out.problems) > 0 {
		out.set.Labels[ProblemLabel] = cut(strings.Join(out.problems, "; "), 256)
	}
	return out
}

// backed gives a route the service as its backend, where it says nothing of what becomes of its requests.
func backed(spec json.RawMessage, service string) json.RawMessage {
	var m map[string]json.RawMessage
	if json.Unmarshal(spec, &m) != nil || m["backends"] != nil || m["redirect"] != nil || m["direct_response"] != nil {
		return spec
	}
	if m == nil {
		m = map[string]json.RawMessage{}
	}
	m["backends"] = json.RawMessage(fmt.Sprintf(`[{"service":%q}]`, service))
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err) // it was read
	}
	return raw
}

// owner of what belongs to a workload.
func (n Naming) owner(of, key string) string {
	return of + "/" + short(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._:/-", r) {
			return r
		}
		return '-'
	}, key), 63-len(of)-1)
}

// slug makes a name of a text: a-z, 0-9 and -.
func slug(text string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(text)), "-")
}

// short cuts a name to a length, and ends it with a digest of the whole then.
func short(name string, most int) string {
	if len(name) <= most {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	digest := hex.EncodeToString(sum[:4])
	return strings.TrimRight(name[:max(0, most-len(digest)-1)], "-./") + "-" + digest
}

// cut cuts a text to a number of characters.
func cut(text string, most int) string {
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}
