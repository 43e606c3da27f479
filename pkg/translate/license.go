package translate

import (
	"slices"
	"time"

	httpwasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/license"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// The filter's configuration; wasm-filters/license/src/gate.rs reads it. The key is not in it: the
// control plane has checked it.
type (
	licenseConfig struct {
		OverLimit    bool          `json:"surplus,omitempty"`
		PerRoute     bool          `json:"per_route,omitempty"`
		Features     []string      `json:"features,omitempty"`
		ExpiresAt    int64         `json:"expires_at,omitempty"`
		GraceSeconds int64         `json:"grace_seconds,omitempty"`
		Gates        []licenseGate `json:"gates,omitempty"`
	}
	licenseGate struct {
		Path    string `json:"path"`
		Feature string `json:"feature"`
	}
)

const nameLicense = "marchproxy.license"

// filterLicense is ours: in use where the gateway has a license or a route needs a feature.
var filterLicense = &filter{
	name: nameLicense, holds: []proto.Message{&httpwasmv3.Wasm{}, passThrough(), asleep()}, before: unavailable(),
	on:      onLicense | onRoutes,
	content: licenseContent,
	asks:    func(_ *view, r *configv1.Route) bool { return len(r.GetFeatures()) > 0 },
}

func licenseContent(c *chain) *Resource {
	name := c.gw.GetLicense()
	if name == "" && !c.asked(nameLicense) {
		return unused(nameLicense, c.ref())
	}
	ref := resource.Ref{Kind: resource.KindLicense, Name: name}
	objects := []resource.Ref{c.ref()}
	var l *configv1.License
	if o := c.st.Get(ref); o != nil {
		l = o.Message().(*configv1.License)
		objects = []resource.Ref{ref, c.ref()}
	}
	config := licensed(l)
	config.PerRoute = c.asked(nameLicense)
	build := func(config licenseConfig) *Resource {
		return extension(nameLicense, Wasm("license", c.module("license"), encode(config)), nil, objects...)
	}
	r := build(config)
	if l.GetMaxProxies() > 0 {
		r.OverLimit = build(licenseConfig{OverLimit: true})
	}
	if !config.PerRoute {
		config.PerRoute = true
		r.PerRoute = build(config)
	}
	return r
}

// licensed is a license as the filter reads it; nil is none.
func licensed(l *configv1.License) licenseConfig {
	var c licenseConfig
	if l.GetFacts().GetHasKey() {
		c.Features = l.GetFeatures()
	}
	if end, grace, ends := license.Ends(l); ends {
		// The filter reads 0 as no end at all: what ended then has ended. Beyond the year 9999 it does not read.
		c.ExpiresAt, c.GraceSeconds = min(max(end.Unix(), 1), endOf9999), int64(grace/time.Second)
	}
	for _, g := range l.GetGates() {
		for _, p := range g.GetPaths() {
			c.Gates = append(c.Gates, licenseGate{p, g.GetFeature()})
		}
	}
	slices.SortFunc(c.Gates, func(a, b licenseGate) int {
		return compareAll(compare(a.Path, b.Path),
			compare(a.Feature, b.Feature))
	})
	return c
}

// endOf9999 is the last second of a date with a year of four digits.
const endOf9999 = 253_402_300_799
