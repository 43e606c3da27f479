package web_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/api"
)

// TestListFilters: a list's filters follow what is written, by creates, changes and deletes.
func TestListFilters(t *testing.T) {
	s := serve(t)
	s.fill(3) // the first has an owner and a label
	put := func(name, body string) {
		t.Helper()
		if code := s.call(http.MethodPut, "/v1/routes/"+name, body, nil); code != http.StatusOK &&
			code != http.StatusCreated {
			t.Fatal(name, code)
		}
	}
	listed := func(query string, want ...string) {
		t.Helper()
		var got api.ObjectList
		if code := s.call(http.MethodGet, "/v1/routes?"+query, "", &got); code != http.StatusOK {
			t.Fatal(query, code)
		}
		var names []string
		for _, o := range got.Items {
			names = append(names, o.Name)
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s: %v, want %v", query, names, want)
		}
	}
	direct := `"direct_response":{"status":204}`
	put("b", fmt.Sprintf(`{"owner":"o1","labels":{"team":"t0","a/b":"é\"%%"},"spec":{"hosts":["x.example.com",`+
		`"host-0.example.com"],"path":{"prefix":"/b"},%s}}`, direct))
	put("a", fmt.Sprintf(`{"owner":"o1","spec":{"hosts":["x.example.com"],"path":{"prefix":"/a"},%s}}`, direct))
	listed("", "a", "b", "route-0", "route-1", "route-2")
	listed("q=route-", "route-0", "route-1", "route-2")
	listed("q=route-1", "route-1")
	listed("owner=o1", "a", "b")
	listed("owner=owner-0", "route-0")
	listed("label=team=t0", "b", "route-0")
	listed("label=a/b=%C3%A9%22%25", "b")
	listed("host=x.example.com", "a", "b")
	listed("host=host-0.example.com", "b", "route-0")
	listed("service=backend", "route-0", "route-1", "route-2")
	listed("service=backend&q=route-2", "route-2")
	listed("service=backend&owner=o1")
	put("a?take_over=true", fmt.Sprintf(`{"owner":"o2","labels":{"team":"t0"},"spec":{"hosts":["y.example.com"],%s}}`,
		direct))
	put("route-1", fmt.Sprintf(`{"spec":{"hosts":["host-1.example.com"],%s}}`, direct))
	if code := s.call(http.MethodDelete, "/v1/routes/b", "", nil); code != http.StatusOK {
		t.Fatal(code)
	}
	listed("owner=o1")
	listed("owner=o2", "a")
	listed("label=team=t0", "a", "route-0")
	listed("host=x.example.com")
	listed("host=y.example.com", "a")
	listed("service=backend", "route-0", "route-2")
}
