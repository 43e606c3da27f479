// Package catalogtest answers for tests as a catalog with blocking queries does, with answers in the forms of its API's
// documentation: no server of Nomad or Consul can be had where these tests run.
package catalogtest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Token is what a question has to show.
const Token = "secret"

// Catalog is such a server. A question with its index waits for the next one.
type Catalog struct {
	URL string

	prefix  string
	mu      sync.Mutex
	index   int
	changed chan struct{}
	answers map[string]string // by path
	leader  bool
}

// Start starts one, with answers by path. Its headers begin with prefix: X-Consul.
func Start(t testing.TB, prefix string, answers map[string]string) *Catalog {
	c := &Catalog{prefix: prefix, index: 3, changed: make(chan struct{}), answers: answers, leader: true}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close) // when the context of the test has ended, and with it the questions that wait
	c.URL = s.URL
	return c
}

// Set changes an answer, which is the next index.
func (c *Catalog) Set(path, answer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[path] = answer
	c.index++
	close(c.changed)
	c.changed = make(chan struct{})
}

// Lead says whether the server knows a leader; it does at first.
func (c *Catalog) Lead(leader bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader = leader
}

// ServeHTTP implements [http.Handler].
func (c *Catalog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	index, changed := c.index, c.changed
	c.mu.Unlock()
	if r.URL.Query().Get("index") == fmt.Sprint(index) {
		select {
		case <-changed:
		case <-r.Context().Done():
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	answer, there := c.answers[r.URL.Path]
	if !there || r.Header.Get(c.prefix+"-Token") != Token {
		http.Error(w, "Permission denied", http.StatusForbidden)
		return
	}
	w.Header().Set(c.prefix+"-Index", fmt.Sprint(c.index))
	w.Header().Set(c.prefix+"-KnownLeader", fmt.Sprint(c.leader))
	_, _ = fmt.Fprint(w, answer) // who asked is gone otherwise
}
