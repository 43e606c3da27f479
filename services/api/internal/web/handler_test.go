package web_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/live"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/web"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// server is the API's handler on a database of its own, without NATS.
type server struct {
	tb      testing.TB
	url     string
	handler http.Handler
	store   *store.Store
	writer  *writer.Writer
	board   *live.Board
}

// token opens the server's api.
const token = "the token of a test, which is long enough"

func serve(tb testing.TB) *server {
	tb.Helper()
	s := &server{tb: tb, url: pgtest.Database(tb)}
	box, err := seal.New("a secret of the test's own")
	if err != nil {
		tb.Fatal(err)
	}
	st, err := store.Open(tb.Context(), s.url, box)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(st.Close)
	s.store = st
	var committed web.Signal
	s.writer, err = writer.New(tb.Context(), st, box, "", zap.NewNop(), func(store.Committed) { committed.Raise() })
	if err != nil {
		tb.Fatal(err)
	}
	if err := st.SetBootstrap(tb.Context(), auth.Sum(token)); err != nil {
		tb.Fatal(err)
	}
	s.board = live.NewBoard(time.Now)
	s.board.History = s.writer
	s.handler, err = (&web.API{
		Store: st, Writer: s.writer, Board: s.board, Auth: auth.New(st), Published: s.writer.Revision,
		Unpublished: func() (string, time.Time) { return "", time.Time{} }, Committed: &committed, Log: zap.NewNop(),
	}).Handler()
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// fill makes the gateway, a service and routes with a host each.
func (s *server) fill(routes int) {
	s.tb.Helper()
	upsert := func(kind, name string, d writer.Desired) writer.Desired {
		d.Ref, d.Path, d.SpecPath = resource.Ref{Kind: kind, Name: name}, "$", "$"
		return d
	}
	list := []writer.Desired{
		upsert(resource.KindGateway, resource.DefaultGateway,
			writer.Desired{Spec: &configv1.Gateway{Listeners: []*configv1.Listener{{Name: "http", Port: 80}}}}),
		upsert(resource.KindService, "backend",
			writer.Desired{Spec: &configv1.Service{Endpoints: []*configv1.Endpoint{{Host: "192.0.2.1", Port: 80}}}}),
	}
	for i := 0; i < routes || len(list) > 0; {
		for ; i < routes && len(list) < 5000; i++ {
			d := writer.Desired{Spec: &configv1.Route{
				Hosts:    []string{fmt.Sprintf("host-%d.example.com", i)},
				Backends: []*configv1.Backend{{Service: "backend"}},
			}}
			if i%1000 == 0 {
				d.Labels = map[string]string{"team": fmt.Sprint("t", i/1000)}
				d.Owner = new(fmt.Sprint("owner-", i/1000))
			}
			list = append(list, upsert(resource.KindRoute, fmt.Sprintf("route-%d", i), d))
		}
		if _, err := s.writer.Write(s.tb.Context(), writer.Meta{Who: auth.Identity{Name: "fill", Role: auth.Admin}},
			func(*config.State) (writer.Plan, error) { return writer.Plan{Upserts: list}, nil }); err != nil {
			s.tb.Fatal(err)
		}
		list = nil
	}
}

// call asks and reads the answer into out, unless it is nil.
func (s *server) call(method, path, body string, out any) int {
	s.tb.Helper()
	req := httptest.NewRequestWithContext(s.tb.Context(), method, "http://127.0.0.1"+path, strings.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+token)
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, req)
	if out != nil {
		if err := json.Unmarshal(rec.Body.Bytes(), out); err != nil {
			s.tb.Fatalf("%s %s: %d %s", method, path, rec.Code, rec.Body)
		}
	}
	return rec.Code
}

// TestErrorOfNobodysFault: an error that is not the database's is not blamed on it, nor is anything said of what has
// been changed.
func TestErrorOfNobodysFault(t *testing.T) {
	s := serve(t)
	pgtest.Exec(t, s.url, "ALTER TABLE revisions RENAME COLUMN message TO other")
	var p api.Problem
	if status := s.call(http.MethodGet, "/v1/revisions", "", &p); status != http.StatusInternalServerError ||
		!strings.Contains(p.Detail, "this is a defect") {
		t.Errorf("%d %q", status, p.Detail)
	}
}
