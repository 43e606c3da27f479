package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestManyDeleted: some thousands of routes are deleted in one apply. Others write meanwhile, and what they write is
// live in a moment: a delete costs what a put costs. With a purge for each deleted route it took minutes, and nothing
// else was published before.
func TestManyDeleted(t *testing.T) {
	const (
		many  = 4000
		bound = 10 * time.Second // on a busy machine; an idle one takes a tenth
	)
	s := start(t, "--no-demo")
	type object = map[string]any
	var routes []any
	for i := range many {
		name := fmt.Sprint("bulk", i)
		routes = append(routes, object{"kind": "Route", "name": name, "spec": object{
			"hosts":           []string{name + ".example.com"},
			"direct_response": object{"status": 200},
		}})
	}
	apply := func(what string, resources []any) {
		t.Helper()
		began := time.Now()
		r := call(t, s, "POST", s.API+"/v1/apply?wait=live&timeout=60s", object{
			"owner": "bulk", "prune": true,
			"allow_empty": true, "resources": resources,
		}, 200)
		if live, ok := r["live"].(object); !ok || live["live"] != true {
			t.Fatalf("%s: %v", what, r["live"])
		}
		took := time.Since(began)
		t.Logf("%d %s: live after %v", many, what, took)
		if took > 3*bound {
			t.Errorf("%d %s took %v", many, what, took)
		}
	}
	put(t, s, "beside", "before")
	apply("added", routes)
	if status, _ := proxied(t, s, "bulk7.example.com", "/"); status != 200 {
		t.Fatalf("an added route answers %d", status)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		apply("deleted", []any{})
	}()
	var took []time.Duration
	for n, more := 0, true; more || n < 5; n++ {
		select {
		case <-ended:
			more = false
		default:
		}
		began := time.Now()
		put(t, s, "beside", fmt.Sprint("beside ", n))
		took = append(took, time.Since(began))
	}
	<-ended
	slices.Sort(took)
	worst := took[len(took)-1]
	t.Logf("%d writes beside it: p50 %v, the slowest %v", len(took), took[len(took)/2], worst)
	if worst > bound {
		t.Errorf("a write beside it was live after %v", worst)
	}
	if status, _ := proxied(t, s, "bulk7.example.com", "/"); status != 404 {
		t.Errorf("a deleted route answers %d", status)
	}
	agree(t, s)
}
