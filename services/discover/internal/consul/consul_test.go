package consul

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/services/discover/internal/catalog/catalogtest"
	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

const one = `{"Node":{"Address":"10.1.0.%[1]d","Datacenter":"dc1"},"Service":{"ID":"web-%[1]d","Service":"web","Address":"%[2]s","Port":8080,
	"Tags":["marchproxy.enable=true","marchproxy.routes.0.hosts=web.example.com"],"Weights":{"Passing":%[1]d,"Warning":1},"CreateIndex":%[1]d},
	"Checks":[{"CheckID":"serfHealth","Status":"passing"},{"CheckID":"%[3]s","Status":"%[4]s"}]}`

// TestConsul: instances whose checks pass are endpoints, those in maintenance drain, and what is critical is left out.
func TestConsul(t *testing.T) {
	api := catalogtest.Start(t, "X-Consul", map[string]string{
		"/v1/catalog/services": `{"consul":[],"web":["marchproxy.enable=true",` +
			`"marchproxy.routes.0.hosts=web.example.com"]}`,
		"/v1/health/service/web": "[" + fmt.Sprintf(one, 1, "10.0.0.1", "http", "passing") + "," +
			fmt.Sprintf(one, 2, "", "http", "warning") + "]",
	})
	c := New(Options{Address: api.URL, Token: catalogtest.Token, Wait: 5 * time.Second, Log: zap.NewNop()})
	found := make(chan []source.Workload, 100)
	done := make(chan error, 1)
	go func() { done <- c.Run(t.Context(), func(all []source.Workload) { found <- all }, func(error) {}) }()
	until := func(want string) {
		t.Helper()
		got := "nothing"
		for end := time.After(10 * time.Second); got != want; {
			select {
			case all := <-found:
				got = ""
				for _, w := range all {
					got += w.Key + " " + w.Labels["marchproxy.routes.0.hosts"]
					for _, e := range w.Endpoints {
						got += fmt.Sprintf(" %s:%d*%d %s", e.Host, e.Port, e.Weight, e.State)
					}
				}
			case <-end:
				t.Fatalf("%q is found, want %q", got, want)
			}
		}
	}
	until("web web.example.com 10.0.0.1:8080*1 ready 10.1.0.2:8080*2 ready")
	api.Set("/v1/health/service/web", "["+fmt.Sprintf(one, 1, "10.0.0.1", "http", "critical")+","+fmt.Sprintf(one, 2, "",
		"_node_maintenance", "critical")+"]")
	until("web web.example.com 10.1.0.2:8080*2 draining")
	api.Set("/v1/catalog/services", `{"consul":[]}`)
	until("")
}
