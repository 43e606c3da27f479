package api_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	apiv1 "github.com/marchproxy/marchproxy/proto/marchproxy/api/v1"
	eventsv1 "github.com/marchproxy/marchproxy/proto/marchproxy/events/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// TestGoStructsAreTheSchema: the structs that write and read JSON have the schema's messages' fields, no
// more and no fewer, each of the same JSON type.
func TestGoStructsAreTheSchema(t *testing.T) {
	for _, c := range []struct {
		file    protoreflect.FileDescriptor
		structs map[string]any
	}{
		{apiv1.File_marchproxy_api_v1_api_proto, map[string]any{
			"Object": api.Object{}, "ObjectStatus": api.ObjectStatus{}, "Live": api.Live{}, "AbsentProxy": api.AbsentProxy{},
			"Trouble": api.Trouble{}, "ObjectList": api.ObjectList{},
			"ApplyRequest": api.ApplyRequest{}, "ApplyResult": api.ApplyResult{}, "Warning": api.Warning{},
			"Change": api.Change{}, "Revision": api.Revision{},
			"RevisionList": api.RevisionList{}, "Diff": api.Diff{}, "AuditEntry": api.AuditEntry{}, "AuditList": api.AuditList{},
			"AuditPoint": api.AuditPoint{}, "AuditBroken": api.AuditBroken{}, "AuditVerification": api.AuditVerification{},
			"Status": api.Status{}, "LiveStatus": api.LiveStatus{},
			"AccessLogEntry": api.AccessLogEntry{}, "AccessLogState": api.AccessLogState{},
			"KindState": api.KindState{}, "Rejection": api.Rejection{},
			"XdsServer": api.XdsServer{}, "Proxy": api.Proxy{}, "ProxyList": api.ProxyList{}, "Token": api.Token{},
			"TokenBounds": api.TokenBounds{}, "SignIn": api.SignIn{}, "Session": api.Session{},
			"PasswordSignIn": api.PasswordSignIn{}, "SignInWays": api.SignInWays{}, "User": api.User{},
			"UserList": api.UserList{}, "UserPatch": api.UserPatch{}, "PasswordChange": api.PasswordChange{},
			"BrowserSession": api.BrowserSession{}, "BrowserSessionList": api.BrowserSessionList{},
			"Node": api.Node{}, "NodeList": api.NodeList{},
			"TokenList": api.TokenList{}, "Problem": api.Problem{}, "Violation": api.Violation{},
			"RateLimitStatus": api.RateLimitStatus{}, "RateLimitNode": api.RateLimitNode{}, "LimitedSource": api.LimitedSource{},
			"LicenseStatus": api.LicenseStatus{}, "UnresolvedName": api.UnresolvedName{},
			"CertificateIssuance": api.CertificateIssuance{}, "DrainedLocality": api.DrainedLocality{},
			"Progress": api.Progress{}, "LaggingProxy": api.LaggingProxy{},
			"ServiceHealth": api.ServiceHealth{}, "EndpointHealth": api.EndpointHealth{}, "EndpointView": api.EndpointView{},
			"PlaceOrder": api.PlaceOrder{}, "OrderedPlace": api.OrderedPlace{},
			"HealthReport": api.HealthReport{}, "MetricsSummary": api.MetricsSummary{},
			"GatewayTraffic": api.GatewayTraffic{}, "AnswerClasses": api.AnswerClasses{},
			"LatencyQuantiles": api.LatencyQuantiles{}, "TrafficInterval": api.TrafficInterval{},
			"UnhealthyService": api.UnhealthyService{}, "UnhealthyEndpoint": api.UnhealthyEndpoint{},
			"DroppedPackets": api.DroppedPackets{}, "PacketsInterval": api.PacketsInterval{},
			"ExplainRequest": api.ExplainRequest{}, "HeaderField": api.HeaderField{}, "Explanation": api.Explanation{},
			"ExplainedService": api.ExplainedService{}, "ExplainedLimit": api.ExplainedLimit{},
			"ExplainedStep": api.ExplainedStep{}, "ExplainedRoute": api.ExplainedRoute{},
		}},
		{eventsv1.File_marchproxy_events_v1_events_proto, map[string]any{
			"ResourceEvent": resource.Object{}, "Commit": resource.Commit{}, "KindState": resource.KindState{},
			"ChangedResource": resource.ChangedResource{},
			"XdsPage":         status.XdsPage{}, "Document": status.Document{}, "LaggingEnvoy": status.LaggingEnvoy{},
			"Behind":    status.Behind{},
			"XdsStatus": status.XdsStatus{}, "ProxyStatus": status.ProxyStatus{}, "AbsentProxy": status.AbsentProxy{},
			"RejectedResource": status.RejectedResource{}, "ObjectRef": status.ObjectRef{},
			"NamesStatus": status.NamesStatus{}, "NameStatus": status.NameStatus{}, "AgentStatus": status.AgentStatus{},
			"PolicyStatus": status.PolicyStatus{}, "LimitedSource": status.LimitedSource{},
			"EnvoyReport": status.EnvoyReport{}, "Traffic": status.Traffic{}, "UnhealthyEndpoint": status.UnhealthyEndpoint{},
			"PlaceLatency": status.PlaceLatency{},
		}},
	} {
		messages := c.file.Messages()
		for i := range messages.Len() {
			m := messages.Get(i)
			v, ok := c.structs[string(m.Name())]
			if !ok {
				t.Errorf("%s has no Go struct here", m.FullName())
				continue
			}
			compare(t, m, reflect.TypeOf(v))
		}
		for name := range c.structs {
			if messages.ByName(protoreflect.Name(name)) == nil {
				t.Errorf("%s is no message of %s", name, c.file.Path())
			}
		}
	}
}

func compare(t *testing.T, m protoreflect.MessageDescriptor, s reflect.Type) {
	t.Helper()
	got := map[string]string{}
	for i := range s.NumField() {
		if f := s.Field(i); f.IsExported() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			got[name] = goType(f.Type)
		}
	}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		name, want := f.TextName(), protoType(f)
		switch typ, ok := got[name]; {
		case !ok:
			t.Errorf("%s.%s is not in %s", m.Name(), name, s)
		case typ != want:
			t.Errorf("%s.%s is %s, and in %s %s", m.Name(), name, want, s, typ)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s of %s is not in %s", name, s, m.FullName())
	}
}

// goType is the JSON type of a Go type, numbers with their size; protoType likewise.
func goType(g reflect.Type) string {
	switch {
	case g == reflect.TypeFor[json.RawMessage]():
		return "any object"
	case g.Kind() == reflect.Pointer:
		return goType(g.Elem())
	case g.Kind() == reflect.Slice:
		return "list of " + goType(g.Elem())
	case g.Kind() == reflect.Map:
		return "map to " + goType(g.Elem())
	case g.Kind() == reflect.Struct:
		return g.Name()
	}
	return g.Kind().String()
}

func protoType(f protoreflect.FieldDescriptor) string {
	one := func(f protoreflect.FieldDescriptor) string {
		switch {
		case f.Message() != nil && f.Message().FullName() == "google.protobuf.Struct":
			return "any object"
		case f.Message() != nil:
			return string(f.Message().Name())
		case f.Kind() == protoreflect.DoubleKind:
			return "float64"
		}
		return f.Kind().String()
	}
	switch {
	case f.IsMap():
		return "map to " + one(f.MapValue())
	case f.IsList():
		return "list of " + one(f)
	}
	return one(f)
}
