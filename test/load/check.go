package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// Check waits until all is well again, and then looks for what was lost. Of the history the newest revisions must be
// there, so many at least; 0 is all of it.
func Check(ctx context.Context, s *harness.System, all []*Writer, kept int64) error {
	var res api.ApplyResult
	for t0 := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		status, body, err := s.Call(ctx, http.MethodPut, s.API+"/v1/routes/last?wait=live&timeout=5s",
			fmt.Sprintf(`{"spec":{"hosts":["last.example.com"],"direct_response":{"status":200,"body":"%d"}}}`,
				time.Now().UnixNano()))
		if err == nil && (status == 200 || status == 201) {
			if err := json.Unmarshal(body, &res); err != nil {
				return err
			}
			break
		}
		if time.Since(t0) > 60*time.Second {
			return errors.Join(fmt.Errorf("the system does not recover: %d %s", status, body), err)
		}
	}
	for _, w := range all {
		if err := w.check(ctx, s); err != nil {
			return err
		}
	}
	if err := gapless(ctx, s, res.Revision, kept); err != nil {
		return err
	}
	return s.Doctor(ctx, 20*time.Second)
}

func (w *Writer) check(ctx context.Context, s *harness.System) error {
	p := probe.New(s.Proxy)
	defer p.Close()
	var seen []string
	for _, name := range w.names() {
		stored, err := w.stored(ctx, s, name)
		if err != nil {
			return err
		}
		served, err := w.served(p, name)
		if err != nil {
			return err
		}
		seen = append(seen, stored, served)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	allowed := map[string]bool{}
	for _, m := range append([]int{w.last}, w.maybe...) {
		if w.none(m) {
			allowed[gone] = true
		} else {
			allowed[fmt.Sprint(m)] = true
		}
	}
	for _, x := range seen {
		if x != seen[0] || !allowed[x] {
			n, _ := strconv.Atoi(x) // 0 where it is none of the writer's
			if said := w.refused[n]; said != "" {
				return fmt.Errorf("writer %d: %d is there, though it was refused: %s", w.n, n, said)
			}
			return fmt.Errorf("writer %d: database and Envoy have %v for its parts; acknowledged was %d, unknown %v", w.n,
				different(seen), w.last, w.maybe)
		}
	}
	return nil
}

// gone is what is seen of a route that is deleted.
const gone = "gone"

// stored is the mark that the database has of a route.
func (w *Writer) stored(ctx context.Context, s *harness.System, name string) (string, error) {
	status, body, err := s.Call(ctx, http.MethodGet, s.API+"/v1/routes/"+name, nil)
	if err == nil && status == http.StatusNotFound && w.Many > 0 {
		return gone, nil
	}
	if err != nil || status != 200 {
		return "", errors.Join(fmt.Errorf("%s is lost: %d %s", name, status, body), err)
	}
	var o struct {
		Spec struct {
			DirectResponse struct{ Body string } `json:"direct_response"`
		}
	}
	if err := json.Unmarshal(body, &o); err != nil {
		return "", err
	}
	mark, _, _ := strings.Cut(o.Spec.DirectResponse.Body, " ")
	return mark, nil
}

// served is the mark that Envoy has of it.
func (w *Writer) served(p *probe.Conn, name string) (string, error) {
	a, _, err := p.Get(name+".example.com", "/")
	if err != nil {
		return "", err
	}
	if a.Status == http.StatusNotFound && w.Many > 0 {
		return gone, nil
	}
	mark, _, _ := strings.Cut(a.Body, " ")
	return mark, nil
}

// different is each mark once, with how often it was seen.
func different(seen []string) map[string]int {
	out := map[string]int{}
	for _, x := range seen {
		out[x]++
	}
	return out
}

// gapless looks whether the history has each revision from the newest down to the first, or so many of them where kept is
// not 0. The newest is head or a later one: a write whose client was stopped while it waited may be made after what was
// asked last.
func gapless(ctx context.Context, s *harness.System, head, kept int64) error {
	next, cursor := head, ""
	for {
		status, body, err := s.Call(ctx, http.MethodGet, s.API+"/v1/revisions?limit=1000"+cursor, nil)
		if err != nil || status != 200 {
			return errors.Join(fmt.Errorf("revisions: %d %s", status, body), err)
		}
		var page api.RevisionList
		if err := json.Unmarshal(body, &page); err != nil {
			return err
		}
		if cursor == "" && len(page.Items) > 0 {
			head = max(head, page.Items[0].Revision)
			next = head
		}
		for _, r := range page.Items {
			if r.Revision != next {
				return fmt.Errorf("revision %d is missing: after %d comes %d", next, next+1, r.Revision)
			}
			next--
		}
		if page.NextCursor == "" {
			break
		}
		cursor = "&cursor=" + page.NextCursor
	}
	if next != 0 && (kept == 0 || head-next < kept) {
		return fmt.Errorf("revision %d is missing: the history ends with %d", next, next+1)
	}
	fmt.Printf("%d revisions, the newest %d there without a gap; every acknowledged write is in the database and on "+
		"Envoy; the doctor looks next\n", head, head-next)
	return nil
}
