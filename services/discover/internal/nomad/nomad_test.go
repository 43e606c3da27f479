package nomad

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/services/discover/internal/catalog/catalogtest"
	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

const (
	services = `[{"Namespace":"default","Services":[
		{"ServiceName":"web","Tags":["marchproxy.enable","marchproxy.routes.0.hosts=web.example.com"]},{"ServiceName":"db","Tags":[]}]}]`
	one = `{"ID":"_nomad-task-%[1]d","ServiceName":"web","Namespace":"default","NodeID":"n","Datacenter":"dc1","JobID":"web","AllocID":"a%[1]d",
		"Tags":["marchproxy.enable","marchproxy.routes.0.hosts=web%[1]d.example.com"],"Address":"10.0.0.%[1]d","Port":2%[1]d000,"CreateIndex":%[1]d,"ModifyIndex":%[1]d}`
)

// TestNomad: registrations become endpoints and the newest's tags the labels; a change is seen when it is made, and a
// server that refuses or has no leader takes nothing away.
func TestNomad(t *testing.T) {
	api := catalogtest.Start(t, "X-Nomad", map[string]string{
		"/v1/services": services, "/v1/service/web": "[" + fmt.Sprintf(one, 1) + "]",
	})
	n := New(Options{Address: api.URL, Token: catalogtest.Token, Namespace: "*", Wait: 5 * time.Second, Log: zap.NewNop()})
	found, health := make(chan []source.Workload, 10), make(chan error, 100)
	done := make(chan error, 1)
	go func() {
		done <- n.Run(t.Context(), func(all []source.Workload) { found <- all }, func(err error) { health <- err })
	}()
	next := func(want string) {
		t.Helper()
		select {
		case all := <-found:
			if len(all) != 1 || all[0].Key != "default/web" {
				t.Fatalf("%+v", all)
			}
			got := all[0].Labels["marchproxy.routes.0.hosts"]
			for _, e := range all[0].Endpoints {
				got += fmt.Sprintf(" %s:%d %s", e.Host, e.Port, e.Zone)
			}
			if got != want {
				t.Errorf("%q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing is found, want %q", want)
		}
	}
	next("web1.example.com 10.0.0.1:21000 dc1")
	api.Set("/v1/service/web", "["+fmt.Sprintf(one, 1)+","+fmt.Sprintf(one, 2)+"]")
	next("web2.example.com 10.0.0.1:21000 dc1 10.0.0.2:22000 dc1")
	api.Lead(false)
	api.Set("/v1/service/web", "[]")
	for err := error(nil); err == nil || !strings.Contains(err.Error(), "knows no leader"); {
		select {
		case err = <-health:
		case <-time.After(10 * time.Second):
			t.Fatal("nobody says that there is no leader")
		}
	}
	if len(found) > 0 {
		t.Errorf("without a leader %+v is found", <-found)
	}
	api.Lead(true)
	api.Set("/v1/service/web", "["+fmt.Sprintf(one, 2)+"]")
	next("web2.example.com 10.0.0.2:22000 dc1")
}
