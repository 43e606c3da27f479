package docker

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// container is one of a compose service, as engines list it.
func container(t *testing.T, id, more string) Container {
	t.Helper()
	var c Container
	if err := json.Unmarshal([]byte(`{"Id":"`+id+`","Names":["/shop-web-`+id+`"],"State":"running","Status":"Up 5 seconds",
		"Ports":[{"PrivatePort":80,"Type":"tcp"}],"NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.18.0.2"}}},
		"Labels":{"marchproxy.enable":"true","com.docker.compose.project":"shop","com.docker.compose.service":"web"}}`),
		&c); err != nil {
		t.Fatal(err)
	}
	if more != "" {
		if strings.Contains(more, `"Labels"`) { // what is given replaces it
			c.Labels = nil
		}
		if err := json.Unmarshal([]byte(more), &c); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// TestEndpoints: which containers take requests, and where.
func TestEndpoints(t *testing.T) {
	const networks = `{"NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.18.0.2"},` +
		`"front":{"IPAddress":"172.19.0.2"}}}`
	for name, c := range map[string]struct{ more, address, want string }{
		"an ordinary one":           {"", "", "172.18.0.2:80 ready"},
		"one that has ended":        {`{"State":"exited"}`, "", ""},
		"a paused one":              {`{"State":"paused"}`, "", ""},
		"one that is not healthy":   {`{"Status":"Up 1 minute (unhealthy)"}`, "", ""},
		"one that starts":           {`{"Status":"Up 1 second (health: starting)"}`, "", ""},
		"a healthy one":             {`{"Status":"Up 1 minute (healthy)"}`, "", "172.18.0.2:80 ready"},
		"the same from 1.52 on":     {`{"Status":"Up 1 minute","Health":{"Status":"unhealthy"}}`, "", ""},
		"without checks, from 1.52": {`{"Health":{"Status":"none"}}`, "", "172.18.0.2:80 ready"},
		"two ports": {
			`{"Ports":[{"PrivatePort":80,"Type":"tcp"},{"PrivatePort":81,"Type":"tcp"}]}`, "",
			"exposes several ports (80, 81); say marchproxy.port",
		},
		"a port twice": {`{"Ports":[{"PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":80,` +
			`"PublicPort":8080,"Type":"tcp"}]}`, "", "172.18.0.2:80 ready"},
		"no port": {
			`{"Ports":[{"PrivatePort":53,"Type":"udp"}]}`, "",
			"exposes no port; say marchproxy.port",
		},
		"a port by a label": {
			`{"Ports":[],"Labels":{"marchproxy.enable":"true","marchproxy.port":"9000"}}`, "",
			"172.18.0.2:9000 ready",
		},
		"two networks": {networks + `}`, "", "is in several networks (front, shop_default); say " +
			"marchproxy.network"},
		"a network by a label": {
			networks + `,"Labels":{"marchproxy.enable":"true","com.docker.compose.project":"shop",` +
				`"marchproxy.network":"default"}}`, "", "172.18.0.2:80 ready",
		},
		"another network": {
			networks + `,"Labels":{"marchproxy.enable":"true","marchproxy.network":"back"}}`, "",
			`has no address in network "back"; it has one in front, shop_default`,
		},
		"the host's network": {
			`{"HostConfig":{"NetworkMode":"host"}}`, "",
			"say by which address Envoys reach it (DISCOVER_ADDRESS)",
		},
		"the host's network and an address": {`{"HostConfig":{"NetworkMode":"host"}}`, "192.0.2.1", "192.0.2.1:80 ready"},
		"a published port": {
			`{"Ports":[{"PrivatePort":80,"PublicPort":32768,"Type":"tcp"}]}`, "192.0.2.1",
			"192.0.2.1:32768 ready",
		},
		"a port that is published twice": {
			`{"Ports":[{"PrivatePort":80,"PublicPort":32769,"Type":"tcp"},{"PrivatePort":80,"PublicPort":32768,"Type":"tcp"}]}`,
			"192.0.2.1", "192.0.2.1:32768 ready",
		},
		"one that is not published": {"", "192.0.2.1", "port 80 is not published"},
	} {
		e, err := container(t, "1", c.more).endpoint(c.address, false)
		got := ""
		if err != nil {
			got = err.Error()
		} else if e != nil {
			got = fmt.Sprintf("%s:%d %s", e.Host, e.Port, e.State)
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestFilterReduces: of a container's own answer nothing is passed on but what the list has, and how it is stopped.
func TestFilterReduces(t *testing.T) {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"Id":"x","Args":["--password=secret"],"State":{"Status":"running","Pid":7,"Health":`+
			`{"Status":"healthy","Log":[{"Output":"secret"}]}},"Config":{"Env":["PASSWORD=secret"],"Labels":{"a":"b"},"StopTimeout":20},`+
			`"HostConfig":{"NetworkMode":"host","Binds":["/etc:/etc"]},"Mounts":[{"Source":"/etc"}]}`)
	}))
	defer engine.Close()
	h, err := Filter(strings.Replace(engine.URL, "http://", "tcp://", 1))
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1.47/containers/"+strings.Repeat("0a", 32)+"/json?size=1", http.NoBody))
	if got := w.Body.String(); w.Code != 200 || got != `{"Id":"x","State":{"Status":"running","Health":{"Status":"healthy"}},`+
		`"Config":{"Labels":{"a":"b"},"StopTimeout":20},"HostConfig":{"NetworkMode":"host"},"NetworkSettings":{}}` {
		t.Errorf("%d %s", w.Code, got)
	}
}

// TestFilter: what is passed on are exact paths, read only.
func TestFilter(t *testing.T) {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Path)
	}))
	defer engine.Close()
	h, err := Filter(strings.Replace(engine.URL, "http://", "tcp://", 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path string
		passes       bool
	}{
		{"GET", "/_ping", true},
		{"HEAD", "/_ping", true},
		{"GET", "/v1.47/containers/json?all=1", true},
		{"GET", "/events?filters=%7B%7D", true},
		{"GET", "/networks", true},
		{"GET", "/version", true},
		{"POST", "/containers/json", false},
		{"GET", "/containers/x/json", false},
		{"GET", "/containers/" + strings.Repeat("a", 64) + "/archive", false},
		{"GET", "/containers/x/archive?path=/etc/shadow", false},
		{"GET", "/containers/json/../x/archive", false},
		{"GET", "/containers/json%2f..%2fx/archive", false},
		{"GET", "//containers/json", false},
		{"GET", "/v1.47/v1.47/containers/json", false},
		{"GET", "/containers/json/", false},
		{"GET", "/info", false},
		{"DELETE", "/networks", false},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, http.NoBody))
		if passed := w.Code == 200; passed != c.passes || !c.passes && w.Code != 403 {
			t.Errorf("%s %s: %d", c.method, c.path, w.Code)
		}
	}
}
