package translate_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// evil is what reads Envoy's environment where it is taken for a format.
const evil = "%ENVIRONMENT(NATS_URL)%"

// formatFields are the fields of Envoy's configuration that are formats.
var formatFields = map[protoreflect.FullName]bool{
	"envoy.config.core.v3.HeaderValue.value":                                 true,
	"envoy.type.tracing.v3.CustomTag.value":                                  true,
	"opentelemetry.proto.common.v1.AnyValue.string_value":                    true,
	"envoy.extensions.access_loggers.stats.v3.Config.Tag.value_format":       true,
	"envoy.extensions.access_loggers.stats.v3.Config.Counter.value_format":   true,
	"envoy.extensions.access_loggers.stats.v3.Config.Histogram.value_format": true,
}

// formatMessage is the one in which every string is a format, or a part of one.
const formatMessage = "envoy.config.core.v3.SubstitutionFormatString"

// TestFormatsAreWalked puts a format that reads Envoy's environment into every string of the schema, without any check
// of what is written, and finds it in no field of Envoy's configuration that is a format, unless as plain text. A field
// of Envoy's where it comes for the first time has to be looked up in Envoy's documentation, and noted here.
func TestFormatsAreWalked(t *testing.T) {
	files, err := filepath.Glob("testdata/in/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	seen := map[protoreflect.FullName]bool{}     // of the schema
	literals := map[protoreflect.FullName]bool{} // of Envoy
	escaped := 0
	try := func(objects []*resource.Object) {
		t.Helper()
		st := config.New()
		st.Apply([]*resource.Object{gatewayObject(t)})
		st.Apply(objects)
		b := translate.NewBuilder(resource.DefaultGateway, translate.Options{Resolve: resolve})
		b.Rebuild(st) // what is no configuration is a problem of its object alone
		for r := range b.All() {
			found(r.Body, false, func(field protoreflect.FieldDescriptor, in bool, s string) {
				if !in && !formatFields[field.FullName()] {
					literals[field.FullName()] = true
					return
				}
				escaped++
				if strings.Contains(strings.ReplaceAll(s, "%%", ""), "%ENV") {
					t.Errorf("%s of Envoy's expands what somebody wrote: %q", field.FullName(), s)
				}
			})
		}
	}
	for _, file := range files {
		objects := read(t, file)
		for i, o := range objects {
			for n := 0; ; n++ {
				spec := proto.Clone(o.Message())
				field := replaceString(spec.ProtoReflect(), &n, evil)
				if field == "" {
					break
				}
				seen[field] = true
				changed, err := resource.New(o.Ref(), spec)
				if err != nil {
					t.Fatal(err)
				}
				all := slices.Clone(objects)
				all[i] = changed
				try(all)
			}
		}
	}
	// What no case has is tried alone.
	for _, k := range resource.Kinds {
		for _, path := range stringsOf(k.New().ProtoReflect().Descriptor(), nil) {
			if seen[path[len(path)-1].FullName()] {
				continue
			}
			spec := k.New()
			fill(spec.ProtoReflect(), path)
			o, err := resource.New(resource.Ref{Kind: k.Name, Name: "default"}, spec)
			if err != nil {
				t.Fatal(err)
			}
			try([]*resource.Object{o})
		}
	}
	if len(seen) < 50 || escaped < 5 {
		t.Errorf("only %d fields of the schema are tried, and %d come into formats", len(seen), escaped)
	}
	for _, name := range slices.Sorted(maps.Keys(literals)) {
		if !slices.Contains(plainFields, name) {
			t.Errorf("%s: does Envoy expand operators in it? Note it in formatFields or in plainFields", name)
		}
	}
}

// found goes through all strings that have evil in them.
func found(m proto.Message, in bool, f func(protoreflect.FieldDescriptor, bool, string)) {
	if a, ok := m.(*anypb.Any); ok {
		inner, err := a.UnmarshalNew()
		if err != nil {
			panic(err) // a type that this program does not have
		}
		found(inner, in, f)
		return
	}
	r := m.ProtoReflect()
	in = in || r.Descriptor().FullName() == formatMessage
	one := func(d protoreflect.FieldDescriptor, v protoreflect.Value) {
		switch x := v.Interface().(type) {
		case protoreflect.Message:
			found(x.Interface(), in, f)
		case string:
			if strings.Contains(x, "ENVIRONMENT(") {
				f(d, in, x)
			}
		}
	}
	r.Range(func(d protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case d.IsMap():
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { one(d, v); return true })
		case d.IsList():
			for i := range v.List().Len() {
				one(d, v.List().Get(i))
			}
		default:
			one(d, v)
		}
		return true
	})
}

// replaceString puts a value into the nth string of a message, and says in which field; "" where there are fewer.
func replaceString(m protoreflect.Message, n *int, value string) (field protoreflect.FullName) {
	left := *n
	var walk func(m protoreflect.Message)
	one := func(d protoreflect.FieldDescriptor, v protoreflect.Value, set func(protoreflect.Value)) {
		if d.Kind() == protoreflect.MessageKind {
			if inner, ok := v.Interface().(protoreflect.Message); ok &&
				inner.Descriptor().ParentFile().Package() != "google.protobuf" {
				walk(inner)
			}
			return
		}
		if d.Kind() == protoreflect.StringKind {
			if left == 0 {
				set(protoreflect.ValueOfString(value))
				field = d.FullName()
			}
			left--
		}
	}
	walk = func(m protoreflect.Message) {
		fields := m.Descriptor().Fields()
		for i := range fields.Len() {
			d := fields.Get(i)
			if !m.Has(d) {
				continue
			}
			v := m.Get(d)
			switch {
			case d.IsMap():
				var keys []protoreflect.MapKey
				v.Map().Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool { keys = append(keys, k); return true })
				slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return strings.Compare(a.String(), b.String()) })
				for _, k := range keys {
					one(d.MapValue(), v.Map().Get(k), func(x protoreflect.Value) { v.Map().Set(k, x) })
				}
			case d.IsList():
				for j := range v.List().Len() {
					one(d, v.List().Get(j), func(x protoreflect.Value) { v.List().Set(j, x) })
				}
			default:
				one(d, v, func(x protoreflect.Value) { m.Set(d, x) })
			}
		}
	}
	walk(m)
	return field
}

// stringsOf are the ways to all strings of a message.
func stringsOf(
	d protoreflect.MessageDescriptor, above []protoreflect.FieldDescriptor,
) (out [][]protoreflect.FieldDescriptor) {
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		path := append(slices.Clone(above), f)
		leaf := f
		if f.IsMap() {
			leaf = f.MapValue()
		}
		switch {
		case leaf.Kind() == protoreflect.StringKind:
			out = append(out, path)
		case leaf.Kind() == protoreflect.MessageKind && leaf.Message().ParentFile().Package() != "google.protobuf" &&
			len(path) < 12:
			out = append(out, stringsOf(leaf.Message(), path)...)
		}
	}
	return out
}

// fill makes what is on the way to a string, and sets it.
func fill(m protoreflect.Message, path []protoreflect.FieldDescriptor) {
	f := path[0]
	value := func(fresh func() protoreflect.Value) protoreflect.Value {
		if len(path) == 1 {
			return protoreflect.ValueOfString(evil)
		}
		v := fresh()
		fill(v.Message(), path[1:])
		return v
	}
	switch {
	case f.IsMap():
		v := m.Mutable(f).Map()
		v.Set(protoreflect.ValueOfString("key").MapKey(), value(v.NewValue))
	case f.IsList():
		v := m.Mutable(f).List()
		v.Append(value(v.NewElement))
	default:
		m.Set(f, value(func() protoreflect.Value { return m.NewField(f) }))
	}
}

// TestFormatsHaveOnePlace: nothing but format.go fills the fields of Envoy's configuration that are formats, so that
// whatever comes into them is of its type.
func TestFormatsHaveOnePlace(t *testing.T) {
	set := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			wrong := ""
			switch x := n.(type) {
			case *ast.CompositeLit:
				if s, ok := x.Type.(*ast.SelectorExpr); ok && (s.Sel.Name == "HeaderValue" || s.Sel.Name == "HeaderValueOption" ||
					s.Sel.Name == "SubstitutionFormatString") {
					wrong = s.Sel.Name
				}
				for _, e := range x.Elts { // those of a list have the type of the list
					if kv, ok := e.(*ast.KeyValueExpr); ok {
						if key, ok := kv.Key.(*ast.Ident); ok && slices.Contains([]string{
							"ValueFormat", "TextFormat", "TextFormatSource",
							"JsonFormat",
						}, key.Name) {
							wrong = key.Name
						}
					}
				}
			case *ast.AssignStmt:
				for _, l := range x.Lhs {
					if s, ok := l.(*ast.SelectorExpr); ok && (s.Sel.Name == "ValueFormat" || s.Sel.Name == "BodyFormat") {
						wrong = s.Sel.Name
					}
				}
			}
			switch {
			case wrong == "":
			case name == "format.go":
				made++
			default:
				t.Errorf("%s makes a %s of its own; the functions in format.go make them of what is a format",
					set.Position(n.Pos()), wrong)
			}
			return true
		})
	}
	if made == 0 {
		t.Error("format.go makes none")
	}
}

// plainFields are the fields of Envoy's configuration that what people write comes into, and in which Envoy expands
// nothing.
var plainFields = []protoreflect.FullName{
	"envoy.config.core.v3.DataSource.inline_string",
	"envoy.config.core.v3.GrpcService.EnvoyGrpc.cluster_name",
	"envoy.config.core.v3.HeaderValue.key",
	"envoy.config.core.v3.HealthCheck.GrpcHealthCheck.service_name",
	"envoy.config.core.v3.HealthCheck.HttpHealthCheck.host",
	"envoy.config.core.v3.HealthCheck.HttpHealthCheck.path",
	"envoy.config.core.v3.HttpUri.cluster",
	"envoy.config.core.v3.HttpUri.uri",
	"envoy.config.core.v3.Locality.region",
	"envoy.config.core.v3.Locality.zone",
	"envoy.config.core.v3.SocketAddress.address",
	"envoy.config.listener.v3.FilterChain.name",
	"envoy.config.listener.v3.Listener.name",
	"envoy.config.listener.v3.Listener.stat_prefix",
	"envoy.config.route.v3.QueryParameterMatcher.name",
	"envoy.config.route.v3.RedirectAction.host_redirect",
	"envoy.config.route.v3.RedirectAction.path_redirect",
	"envoy.config.route.v3.RedirectAction.prefix_rewrite",
	"envoy.config.route.v3.RedirectAction.scheme_redirect",
	"envoy.config.route.v3.RetryPolicy.retry_on",
	"envoy.config.route.v3.Route.name",
	"envoy.config.route.v3.Route.request_headers_to_remove",
	"envoy.config.route.v3.Route.response_headers_to_remove",
	"envoy.config.route.v3.RouteAction.HashPolicy.Cookie.name",
	"envoy.config.route.v3.RouteAction.HashPolicy.Cookie.path",
	"envoy.config.route.v3.RouteAction.HashPolicy.Header.header_name",
	"envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter.name",
	"envoy.config.route.v3.RouteAction.RequestMirrorPolicy.cluster",
	"envoy.config.route.v3.RouteAction.cluster",
	"envoy.config.route.v3.RouteAction.host_rewrite_literal",
	"envoy.config.route.v3.RouteAction.prefix_rewrite",
	"envoy.config.route.v3.RouteConfiguration.name",
	"envoy.config.route.v3.RouteMatch.path",
	"envoy.config.route.v3.RouteMatch.path_separated_prefix",
	"envoy.config.route.v3.ScopedRouteConfiguration.Key.Fragment.string_key",
	"envoy.config.route.v3.ScopedRouteConfiguration.name",
	"envoy.config.route.v3.VirtualHost.name",
	"envoy.config.route.v3.WeightedCluster.ClusterWeight.name",
	"envoy.extensions.filters.http.cors.v3.CorsPolicy.allow_headers",
	"envoy.extensions.filters.http.cors.v3.CorsPolicy.allow_methods",
	"envoy.extensions.filters.http.cors.v3.CorsPolicy.expose_headers",
	"envoy.extensions.filters.http.jwt_authn.v3.JwtClaimToHeader.claim_name",
	"envoy.extensions.filters.http.jwt_authn.v3.JwtClaimToHeader.header_name",
	"envoy.extensions.filters.http.jwt_authn.v3.JwtProvider.audiences",
	"envoy.extensions.filters.http.jwt_authn.v3.JwtProvider.issuer",
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.stat_prefix",
	"envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig.name",
	"envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext.sni",
	"envoy.type.matcher.v3.MetadataMatcher.PathSegment.key",
	"envoy.type.matcher.v3.RegexMatchAndSubstitute.substitution",
	"envoy.type.matcher.v3.RegexMatcher.regex",
	"envoy.type.matcher.v3.StringMatcher.exact",
	"envoy.type.matcher.v3.StringMatcher.prefix",
	"envoy.type.matcher.v3.StringMatcher.suffix",
	"google.protobuf.StringValue.value",
	"google.protobuf.Value.string_value",
}
