package wasm

import (
	"maps"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/wasm/host"
)

// routeName is the property in which the filters find what is said of a route.
const routeName = "xds\x00route_name"

// gated is a license that ends in a minute, with two features, of which /multi-cloud needs one.
func gated(changes object) object {
	c := object{
		"per_route": true, "features": []string{"multi-cloud", "f"}, "expires_at": now.Unix() + 60, "grace_seconds": 3600,
		"gates": []object{{"path": "/multi-cloud", "feature": "multi-cloud"}, {"path": "/api/v1/gpu", "feature": "gpu"}},
	}
	maps.Copy(c, changes)
	return c
}

func licensed(t *testing.T, vm *host.VM, h host.Headers, status uint32, reason, feature string) host.Outcome {
	t.Helper()
	o := send(t, vm, h)
	path, _ := h.Get(":path")
	if o.Passed {
		if status != 0 {
			t.Errorf("%s passed, want %d", path, status)
		}
		return o
	}
	want := `"reason":"` + reason + `"`
	if feature != "" {
		want += `,"feature":"` + feature + `"`
	}
	if o.Response.Status != status || o.Response.Details != "marchproxy_license_"+reason ||
		o.Response.Body[len(o.Response.Body)-len(want)-2:] != want+"}\n" {
		t.Errorf("%s: %+v, want %d %s", path, o.Response, status, want)
	}
	return o
}

func TestLicense(t *testing.T) {
	vm := start(t, "license", gated(nil))
	licensed(t, vm, request("/"), 0, "", "")
	licensed(t, vm, request("/multi-cloud/x?y"), 0, "", "")
	for _, path := range []string{
		"/api/v1/gpu", "/api/v1/gpu/x", "/api/v1/gpu?x", "/api/v1/gp%75", "/api//v1/./gpu", "/api/v1/x/../gpu",
		"/api%2fv1/gpu",
		"/api\\v1\\gpu", "/api/v1/gpu;v=1", "/api/v1;a/gpu/", "/%61%70%69/v1/%67pu",
	} {
		licensed(t, vm, request(path), 402, "feature_not_licensed", "gpu")
	}
	for _, path := range []string{"/api/v1/gpus", "/api/v1", "/x/api/v1/gpu", "/api/v1/GPU"} {
		licensed(t, vm, request(path), 0, "", "")
	}
	vm.Properties[routeName] = "shop|open||f,blue"
	licensed(t, vm, request("/"), 402, "feature_not_licensed", "blue")
	vm.Properties[routeName] = "shop|open||f"
	licensed(t, vm, request("/"), 0, "", "")
	vm.Properties[routeName] = `shop|open||a"b`
	licensed(t, vm, request("/"), 503, "unavailable", "")
	delete(vm.Properties, routeName)

	counted := func(decision, reason string) int64 {
		return vm.Metrics["marchproxy_license_decisions_total;decision="+decision+";;reason="+reason+";"]
	}
	before := counted("allow", "grace")
	for after, want := range map[time.Duration]string{
		59 * time.Second: "", 60 * time.Second: "grace",
		3659 * time.Second: "grace", 3660 * time.Second: "expired",
	} {
		vm.Now = now.Add(after).UnixNano()
		licensed(t, vm, request("/"), 0, "", "")
		switch want {
		case "expired":
			licensed(t, vm, request("/multi-cloud"), 402, "license_expired", "multi-cloud")
		default:
			licensed(t, vm, request("/multi-cloud"), 0, "", "")
		}
	}
	if got := counted("allow", "grace") - before; got != 2 {
		t.Errorf("%d requests in the time of grace, want 2", got)
	}

	o := licensed(t, vm, append(request("/"), [2]string{"x-license-key", "PENG"}, [2]string{"X-License-Tier", "x"},
		[2]string{"x_license_key", "x"}, [2]string{"x-licence", "kept"}), 0, "", "")
	for _, kv := range o.Headers {
		if len(kv[0]) > 10 && kv[0][2:9] == "license" {
			t.Errorf("%s passed", kv[0])
		}
	}
	configure(t, vm, gated(object{"surplus": true}))
	licensed(t, vm, request("/"), 429, "proxy_limit", "")
	configure(t, vm, gated(object{"features": []string{}, "expires_at": 0}))
	licensed(t, vm, request("/multi-cloud"), 402, "feature_not_licensed", "multi-cloud")
	licensed(t, vm, request("/"), 0, "", "")
}
