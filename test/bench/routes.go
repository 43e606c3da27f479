package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Routes are those of a benchmark: route i has the host i, and an answer's header that shows its mark.
type Routes struct {
	// PerService is how many routes one service has; 0 for routes that answer by themselves.
	PerService int
	backend    *httptest.Server
	port       int
}

// NewRoutes starts the backend that all services have; [Routes.Close] ends it.
func NewRoutes(perService int) (*Routes, error) {
	r := &Routes{PerService: perService}
	r.backend = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok")
	}))
	port, err := strconv.Atoi(r.backend.URL[strings.LastIndexByte(r.backend.URL, ':')+1:])
	r.port = port
	return r, err
}

// Close ends the backend.
func (r *Routes) Close() { r.backend.Close() }

// Host is that of route i.
func Host(i int) string { return fmt.Sprintf("h%d.example.com", i) }

// Name is that of route i.
func Name(i int) string { return fmt.Sprintf("r%d", i) }

// Spec is that of route i.
func (r *Routes) Spec(i int, mark string) map[string]any {
	spec := map[string]any{
		"hosts":            []string{Host(i)},
		"response_headers": map[string]any{"set": []any{map[string]any{"name": "x-mark", "value": mark}}},
	}
	if r.PerService > 0 {
		spec["backends"] = []any{map[string]any{"service": r.service(i)}}
	} else {
		spec["direct_response"] = map[string]any{"status": http.StatusOK, "body": "ok"}
	}
	return spec
}

func (r *Routes) service(i int) string { return fmt.Sprintf("s%d", i/r.PerService) }

// Documents are the routes from one number up to another, and the services that begin with one of them.
func (r *Routes) Documents(from, to int) []map[string]any {
	var out []map[string]any
	for i := from; i < to && r.PerService > 0; i++ {
		if i%r.PerService == 0 {
			endpoint := map[string]any{"host": "127.0.0.1", "port": r.port}
			out = append(out, map[string]any{
				"kind": resource.KindService, "name": r.service(i),
				"spec": map[string]any{"endpoints": []any{endpoint}},
			})
		}
	}
	for i := from; i < to; i++ {
		out = append(out, map[string]any{"kind": resource.KindRoute, "name": Name(i), "spec": r.Spec(i, "0")})
	}
	return out
}

// Objects are the same as the configuration has them.
func (r *Routes) Objects(from, to int) ([]*resource.Object, error) {
	var out []*resource.Object
	for _, d := range r.Documents(from, to) {
		o, err := object(d["kind"].(string), d["name"].(string), d["spec"])
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

func object(kind, name string, spec any) (*resource.Object, error) {
	k, _ := resource.KindByName(kind)
	raw, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	m, v := resource.DecodeSpec(k, raw)
	if len(v) > 0 {
		return nil, v
	}
	return resource.New(resource.Ref{Kind: kind, Name: name}, m)
}
