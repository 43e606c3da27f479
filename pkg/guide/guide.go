// Package guide reads the configuration document of the integration guide: services and routes in a few words.
package guide

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Document is what POST /v1/config takes: the whole configuration of this door.
type Document struct {
	Version  string    `json:"version"`
	Services []Service `json:"services"`
	Routes   []Route   `json:"routes"`
	// AllowEmpty says that an empty list means what it says, and TakeOver that what belongs to another owner
	// becomes this door's. Both may stand in the query as well.
	AllowEmpty bool `json:"allow_empty"`
	TakeOver   bool `json:"take_over"`
}

// Service is one of a document's.
type Service struct {
	Name     string   `json:"name"`
	Hosts    []string `json:"hosts"`
	Port     uint32   `json:"port"`
	Protocol string   `json:"protocol"`
}

// Route is one of a document's.
type Route struct {
	Name        string   `json:"name"`
	Prefix      string   `json:"prefix"`
	ClusterName string   `json:"cluster_name"`
	Hosts       []string `json:"hosts"`
	// Timeout in seconds; the route's default where absent.
	Timeout *float64 `json:"timeout"`
}

// Parse reads a document strictly.
func Parse(raw []byte) (doc Document, found resource.Violations) {
	if v := resource.CheckJSON(raw); len(v) > 0 {
		return doc, v
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return doc, resource.Violations{decodeViolation(raw, err)}
	}
	return doc, nil
}

func decodeViolation(raw []byte, err error) resource.Violation {
	if errors.Is(err, io.EOF) {
		return resource.Violation{
			Path: "$", Message: "is empty; a document with services and routes is expected",
			Rule: "json.syntax",
		}
	}
	return resource.Misfit(raw, err)
}

// Check finds what is wrong as far as that can be seen without the rest of the configuration.
func (d *Document) Check() resource.Violations {
	var out resource.Violations
	add := func(rule, path, message string, args ...any) {
		out = append(out, resource.Violation{Path: path, Message: fmt.Sprintf(message, args...), Rule: rule})
	}
	services := map[string]bool{}
	for i, s := range d.Services {
		if msg := resource.CheckName(s.Name); msg != "" {
			add("name", fmt.Sprintf("$.services[%d].name", i), "%s", msg)
		}
		if services[s.Name] {
			add("name.duplicate", fmt.Sprintf("$.services[%d].name", i), "is the name of two services")
		}
		services[s.Name] = true
		if s.Port == 0 {
			add("port", fmt.Sprintf("$.services[%d].port", i), "is missing; give the port that the hosts listen on")
		}
		if s.Port > 65535 {
			add("port", fmt.Sprintf("$.services[%d].port", i), "is %d; a port is 1 to 65535", s.Port)
		}
		if len(s.Hosts) == 0 {
			add("hosts", fmt.Sprintf("$.services[%d].hosts", i), "is empty; name at least one address")
		}
		if _, ok := protocols[s.Protocol]; !ok {
			add("protocol", fmt.Sprintf("$.services[%d].protocol", i), "must be one of http, https, http2, grpc")
		}
	}
	routes := map[string]bool{}
	for i, r := range d.Routes {
		if msg := resource.CheckName(r.Name); msg != "" {
			add("name", fmt.Sprintf("$.routes[%d].name", i), "%s", msg)
		}
		if routes[r.Name] {
			add("name.duplicate", fmt.Sprintf("$.routes[%d].name", i), "is the name of two routes")
		}
		routes[r.Name] = true
		if !services[r.ClusterName] {
			add("reference.dangling", fmt.Sprintf("$.routes[%d].cluster_name", i), "names the service %q, which is not in "+
				"this document", r.ClusterName)
		}
		if r.Timeout != nil && (*r.Timeout < 0 || *r.Timeout > 86400 || math.IsNaN(*r.Timeout)) {
			add("timeout", fmt.Sprintf("$.routes[%d].timeout", i), "must be 0 to 86400 seconds")
		}
	}
	// Everything of this door that the document lacks is deleted, so that a list must not be missing by mistake.
	for _, l := range []struct {
		name    string
		missing bool
		length  int
	}{{"services", d.Services == nil, len(d.Services)}, {"routes", d.Routes == nil, len(d.Routes)}} {
		switch {
		case l.missing:
			add("required", "$."+l.name, "is missing; give a list, if only an empty one with allow_empty=true")
		case l.length == 0 && !d.AllowEmpty:
			add("empty", "$."+l.name, "is empty, which deletes all %s of this door; allow_empty=true, in the document or the "+
				"query, says that this is meant", l.name)
		}
	}
	return out
}

var protocols = map[string]configv1.Service_Protocol{
	"": configv1.Service_PROTOCOL_UNSPECIFIED, "http": configv1.Service_http, "https": configv1.Service_https,
	"http2": configv1.Service_http2, "grpc": configv1.Service_grpc,
}

// Object is a resource as POST /v1/apply takes it.
type Object struct {
	Kind string          `json:"kind"`
	Name string          `json:"name"`
	Spec json.RawMessage `json:"spec"`
}

// Resources translates the document; resource i is service i, or route i less the services.
func (d *Document) Resources() ([]Object, error) {
	out := make([]Object, 0, len(d.Services)+len(d.Routes))
	add := func(kind, name string, spec proto.Message) error {
		raw, err := resource.CanonicalSpec(spec)
		out = append(out, Object{kind, name, raw})
		return err
	}
	for _, s := range d.Services {
		spec := &configv1.Service{Protocol: protocols[s.Protocol]}
		for _, h := range s.Hosts {
			spec.Endpoints = append(spec.Endpoints, &configv1.Endpoint{Host: h, Port: s.Port})
		}
		if err := add(resource.KindService, s.Name, spec); err != nil {
			return nil, err
		}
	}
	for _, r := range d.Routes {
		spec := &configv1.Route{Hosts: r.Hosts, Backends: []*configv1.Backend{{Service: r.ClusterName}}}
		if r.Prefix != "" {
			spec.Path = &configv1.PathMatch{Match: &configv1.PathMatch_Prefix{Prefix: r.Prefix}}
		}
		if r.Timeout != nil {
			whole, part := math.Modf(*r.Timeout)
			spec.Timeout = &durationpb.Duration{Seconds: int64(whole), Nanos: int32(part * 1e9)}
		}
		if err := add(resource.KindRoute, r.Name, spec); err != nil {
			return nil, err
		}
	}
	return out, nil
}

var apiPath = regexp.MustCompile(`^\$\.resources\[(\d+)\](?:\.spec)?(.*)$`)

// words are the document's for the API's, longest first.
var words = []struct{ api, doc string }{
	{".backends[0].service", ".cluster_name"},
	{".path.prefix", ".prefix"},
	{".path", ".prefix"},
}

var endpointHost = regexp.MustCompile(`^\.endpoints\[(\d+)\]\.host$`)

// Back translates the path of one of the API's violations into the document's words.
func (d *Document) Back(path string) string {
	m := apiPath.FindStringSubmatch(path)
	if m == nil {
		return path
	}
	i, err := strconv.Atoi(m[1])
	if err != nil || i >= len(d.Services)+len(d.Routes) {
		return path
	}
	rest := m[2]
	if i < len(d.Services) {
		switch e := endpointHost.FindStringSubmatch(rest); {
		case e != nil:
			rest = ".hosts[" + e[1] + "]"
		case strings.HasPrefix(rest, ".endpoints[") && strings.HasSuffix(rest, ".port"):
			rest = ".port"
		case strings.HasPrefix(rest, ".endpoints"):
			rest = ".hosts"
		}
		return fmt.Sprintf("$.services[%d]%s", i, rest)
	}
	for _, w := range words {
		if r, ok := strings.CutPrefix(rest, w.api); ok {
			rest = w.doc + r
			break
		}
	}
	return fmt.Sprintf("$.routes[%d]%s", i-len(d.Services), rest)
}
