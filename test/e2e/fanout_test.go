package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/test/fanout"
)

// TestFanout: a hundred Envoys have everything, more than may be brought up at once, and each change. Some that hang
// delay none of the others, are waited for by wait=live and by nobody else, and have all that they missed when they go
// on. When all come back at once nobody is sent again what it has.
func TestFanout(t *testing.T) {
	const hosts, clients = 500, 100
	s := start(t, "--no-demo", "--concurrency", "1")
	type object = map[string]any
	spec := func(i int, mark string) object {
		return object{
			"hosts": []string{fmt.Sprintf("h%d.test", i)}, "backends": []any{object{"service": fmt.Sprintf("s%d", i/10)}},
			"response_headers": object{"set": []any{object{"name": "x-mark", "value": mark}}},
		}
	}
	var all []object
	for i := range hosts / 10 {
		all = append(all, object{
			"kind": "Service", "name": fmt.Sprintf("s%d", i),
			"spec": object{"endpoints": []any{object{"host": "127.0.0.1", "port": 9}}},
		})
	}
	for i := range hosts {
		all = append(all, object{"kind": "Route", "name": fmt.Sprintf("r%d", i), "spec": spec(i, "none")})
	}
	call(t, s, "POST", s.API+"/v1/apply?wait=live&timeout=60s", object{"resources": all}, 200)
	key, err := s.ClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	f := fanout.Start(t.Context(), fanout.Options{
		Addr: s.GRPC, Key: key, Clients: clients, Delay: time.Millisecond,
		Slow: 1, Hung: 2,
	})
	t.Cleanup(f.Close)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(f.Await(map[translate.Type]int{
		translate.TypeScope: hosts, translate.TypeEndpoint: hosts / 10, translate.TypeCluster: hosts / 10,
		translate.TypeListener: 1,
	}, false, time.Minute))

	put := func(i int, mark, query string, status int) object {
		t.Helper()
		return call(t, s, "PUT", fmt.Sprintf("%s/v1/routes/r%d?timeout=%s", s.API, i, query),
			object{"spec": spec(i, mark)}, status)
	}
	live := func(mark string) {
		t.Helper()
		if got := put(1, mark, "60s&wait=live", 200); got["live"].(object)["state"] != "live" {
			t.Fatalf("%v", got["live"])
		}
	}
	live("all are there")
	for k := range 20 {
		mark := fmt.Sprintf("change %d.", k)
		w := f.Watch(mark, 1)
		put(k*17, mark, "1s", 200)
		_, err := w.Wait(time.Minute)
		must(err)
	}

	// Two hang: one reads and does not answer, one does not even read.
	f.Hang()
	for k := range 20 {
		mark := fmt.Sprintf("beside %d.", k)
		w := f.Watch(mark, 1)
		put(k*19, mark, "1s", 200)
		_, err := w.Wait(time.Minute)
		must(err)
	}
	w := f.Watch("in one.", hosts)
	for i := range hosts {
		all[hosts/10+i]["spec"] = spec(i, "in one.")
	}
	call(t, s, "POST", s.API+"/v1/apply", object{"resources": all}, 200)
	_, err = w.Wait(time.Minute)
	must(err)
	if got := put(1, "not live", "2s&wait=live", 202); got["live"].(object)["state"] != "timeout" {
		t.Errorf("while two hang: %v", got["live"])
	}
	f.Release()
	live("they go on")

	f.Reconnect()
	must(f.Await(nil, false, time.Minute))
	live("all are back")
	for i := range clients {
		if n := f.Received(i, translate.TypeScope); n > 1 {
			t.Errorf("client %d was sent %d scopes again", i, n-1)
		}
		for _, typ := range []translate.Type{
			translate.TypeCluster, translate.TypeEndpoint, translate.TypeListener,
			translate.TypeExtension,
		} {
			if n := f.Received(i, typ); n > 0 {
				t.Errorf("client %d was sent %d of %s again", i, n, typ)
			}
		}
	}
	must(f.Err())
}
