package writer_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// api is a writer as an api has one, and what it has handed over.
type api struct {
	*writer.Writer
	store *store.Store
	log   *observer.ObservedLogs

	mu        sync.Mutex
	committed []store.Committed
}

func open(t testing.TB, url string) *api {
	t.Helper()
	a := &api{}
	box, err := seal.New("a secret of the test's own")
	if err != nil {
		t.Fatal(err)
	}
	if a.store, err = store.Open(t.Context(), url, box); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.store.Close)
	core, logs := observer.New(zap.InfoLevel)
	a.log = logs
	a.Writer, err = writer.New(t.Context(), a.store, box, "", zap.New(core), func(c store.Committed) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.committed = append(a.committed, c)
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// published are the revisions that were handed over, in order.
func (a *api) published() (out []int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.committed {
		out = append(out, c.Commit.Revision)
	}
	return out
}

// service is a plan for a service with an endpoint at a port.
func service(name string, port uint32) writer.Planner {
	return func(*config.State) (writer.Plan, error) {
		spec := &configv1.Service{Endpoints: []*configv1.Endpoint{{Host: "192.0.2.1", Port: port}}}
		return writer.Plan{
			Upserts: []writer.Desired{{
				Ref: resource.Ref{Kind: resource.KindService, Name: name}, Spec: spec, Path: "$",
				SpecPath: "$",
			}},
			Answer: func(r writer.Result) ([]byte, error) { return fmt.Appendf(nil, `{"revision":%d}`, r.Revision), nil },
		}, nil
	}
}

// dangling is a plan that is refused.
func dangling(*config.State) (writer.Plan, error) {
	spec := &configv1.Route{Hosts: []string{"a.example.com"}, Backends: []*configv1.Backend{{Service: "nobody"}}}
	return writer.Plan{Upserts: []writer.Desired{{
		Ref:  resource.Ref{Kind: resource.KindRoute, Name: "dangling"},
		Spec: spec, Path: "$", SpecPath: "$",
	}}}, nil
}

func (a *api) write(ctx context.Context, actor string, plan writer.Planner) (writer.Result, error) {
	return a.Write(ctx, writer.Meta{Who: auth.Identity{Name: actor, Role: auth.Admin}}, plan)
}
