package resource

import (
	"cmp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

// Kind is one kind of resource, as the schema declares it; package config has what else there is to say of it.
// CONTRIBUTING.md lists what a new one needs.
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

// Names of the kinds that programs speak of.
const (
	KindGateway     = "Gateway"
	KindService     = "Service"
	KindRoute       = "Route"
	KindCertificate = "Certificate"
	KindRateLimit   = "RateLimitPolicy"
	KindAuthPolicy  = "AuthPolicy"
	KindLicense     = "License"
	KindEndpointSet = "EndpointSet"
	KindIssuer      = "CertificateIssuer"
	KindChallenge   = "CertificateChallenge"

	KindLocalityDrain = "LocalityDrain"
)

// Kinds lists every kind, in the order in which resources are applied: what others refer to first.
var Kinds = declared()

// declared are the messages of the schema that have a path.
func declared() []Kind {
	var out []Kind
	order := map[string]uint32{}
	within := configv1.File_marchproxy_config_v1_options_proto.Package()
	protoregistry.GlobalFiles.RangeFilesByPackage(within, func(f protoreflect.FileDescriptor) bool {
		for i := range f.Messages().Len() {
			d := f.Messages().Get(i)
			path, _ := proto.GetExtension(d.Options(), configv1.E_KindPath).(string)
			if path == "" {
				continue
			}
			t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
			if err != nil {
				panic(err) // the generated code registers both
			}
			k := Kind{Name: string(d.Name()), Path: path, Token: snake(string(d.Name()))}
			k.New = func() proto.Message { return t.New().Interface() }
			order[k.Name], _ = proto.GetExtension(d.Options(), configv1.E_KindOrder).(uint32)
			out = append(out, k)
		}
		return true
	})
	slices.SortFunc(out, func(a, b Kind) int {
		return cmp.Or(cmp.Compare(order[a.Name], order[b.Name]), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// snake writes a message's name as a field's: rate_limit_policy.
func snake(name string) string {
	var b strings.Builder
	for i, c := range name {
		if i > 0 && 'A' <= c && c <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(c)
	}
	return strings.ToLower(b.String())
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
