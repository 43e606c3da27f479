package envoyadmin

import (
	"bufio"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/guard"
)

// passes are what [Door] passes: what tells how an Envoy is, and changes nothing.
var passes = []string{"/stats", "/stats/prometheus", "/ready", "/clusters", "/config_dump"}

// atATime is how many requests are passed at a time: Envoy answers them in the thread that applies its configuration.
const atATime = 8

// How long an answer may take in all, and how long nothing of it may come or be taken: a dump of 300,000 hosts takes
// longer than a minute on a busy machine.
const longest = 10 * time.Minute

var stall = time.Minute // tests have less

// Door passes GET of a few of the admin interface's paths, /config_dump without what is secret in it, and answers 403
// to everything else: the interface itself can stop Envoy, change its runtime, and shows the key that it connects with.
func Door(a Admin) http.Handler {
	passed := guard.AtATime(atATime, time.Second,
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { pass(a, w, r) }))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead || !slices.Contains(passes, r.URL.Path) {
			http.Error(w, "GET of "+strings.Join(passes, ", ")+" is what is passed here; the whole interface is a Unix socket, "+
				"which marchproxy-agent admin PATH asks", http.StatusForbidden)
			return
		}
		passed.ServeHTTP(w, r)
	})
}

func pass(a Admin, w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stalled := time.AfterFunc(stall, cancel)
	defer stalled.Stop()
	//nolint:gosec // the path is one of a list, and only Envoy listens where it goes
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url(r.URL.RequestURI()), nil)
	if err != nil {
		http.Error(w, "the path cannot be read", http.StatusBadRequest)
		return
	}
	if c := r.Header.Get("Accept"); c != "" {
		req.Header.Set("Accept", c)
	}
	long := *a.client // a dump of many hosts takes longer than an answer that is waited for
	long.Timeout = longest
	resp, err := long.Do(req) //nolint:gosec // as above
	if err != nil {
		http.Error(w, "Envoy does not answer: it is starting, or down", http.StatusBadGateway)
		return
	}
	defer func() { _ = resp.Body.Close() }() // read only
	for _, name := range []string{"Content-Type", "Cache-Control", "X-Content-Type-Options"} {
		if v := resp.Header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	var body io.Writer = w
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") && r.Method == http.MethodGet {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer func() { _ = z.Close() }() // the client is gone: nobody is left to tell
		body = z
	}
	w.WriteHeader(resp.StatusCode)
	if r.Method == http.MethodHead {
		return
	}
	from := moving{resp.Body, stalled, http.NewResponseController(w)}
	if r.URL.Path == "/config_dump" && resp.StatusCode == http.StatusOK {
		err = Redact(body, from)
	} else {
		_, err = io.Copy(body, bufio.NewReader(from))
	}
	if err != nil {
		panic(http.ErrAbortHandler) // nobody takes a part for the whole
	}
}

// moving puts off the end of what it reads as long as something comes, and that of the answer as long as it is taken.
type moving struct {
	io.Reader
	stalled *time.Timer
	answer  *http.ResponseController
}

func (m moving) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	if n > 0 {
		m.stalled.Reset(stall)
		_ = m.answer.SetWriteDeadline(time.Now().Add(stall)) // one that is not a connection's has none
	}
	return n, err
}
