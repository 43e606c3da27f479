package resource

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

// Kind is one kind of resource. Adding one is a message in proto/, an entry in [Kinds], its
// references (package config) and its translation (package translate).
type Kind struct {
	// Name as users write it: Route.
	Name string
	// Path in the HTTP API: routes.
	Path string
	// Token of the NATS subject: route.
	Token string
	// New returns an empty spec.
	New func() proto.Message
}

// Names of the kinds.
const (
	KindGateway     = "Gateway"
	KindService     = "Service"
	KindRoute       = "Route"
	KindCertificate = "Certificate"
	KindRateLimit   = "RateLimitPolicy"
	KindAuthPolicy  = "AuthPolicy"
	KindLicense     = "License"
)

// Kinds lists every kind, in the order in which resources are applied: what others refer to first.
var Kinds = []Kind{
	{Name: KindCertificate, Path: "certificates", Token: "certificate", New: func() proto.Message { return new(configv1.Certificate) }},
	{Name: KindService, Path: "services", Token: "service", New: func() proto.Message { return new(configv1.Service) }},
	{Name: KindAuthPolicy, Path: "auth-policies", Token: "auth_policy", New: func() proto.Message { return new(configv1.AuthPolicy) }},
	{Name: KindLicense, Path: "licenses", Token: "license", New: func() proto.Message { return new(configv1.License) }},
	{Name: KindGateway, Path: "gateways", Token: "gateway", New: func() proto.Message { return new(configv1.Gateway) }},
	{Name: KindRoute, Path: "routes", Token: "route", New: func() proto.Message { return new(configv1.Route) }},
	{Name: KindRateLimit, Path: "rate-limit-policies", Token: "rate_limit_policy", New: func() proto.Message { return new(configv1.RateLimitPolicy) }},
}

// KindByName finds a kind by its name, KindByPath by its path and KindByToken by its subject token.
func KindByName(name string) (Kind, bool) { return find(func(k Kind) bool { return k.Name == name }) }

// KindByPath finds a kind by its path in the HTTP API.
func KindByPath(path string) (Kind, bool) { return find(func(k Kind) bool { return k.Path == path }) }

// KindByToken finds a kind by its token in NATS subjects.
func KindByToken(token string) (Kind, bool) {
	return find(func(k Kind) bool { return k.Token == token })
}

// KindNames lists the kinds' names, for sentences.
func KindNames() string {
	names := make([]string, len(Kinds))
	for i, k := range Kinds {
		names[i] = k.Name
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func find(is func(Kind) bool) (Kind, bool) {
	for _, k := range Kinds {
		if is(k) {
			return k, true
		}
	}
	return Kind{}, false
}
