package stream_test

import (
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
)

// TestBehindSays: a consumer that reads or takes over for long says how far it is, in the log and to who asks for it,
// and says so too when it is done.
func TestBehindSays(t *testing.T) {
	s := natstest.Start(t)
	_, js := s.Connect()
	m := newModel(t, js)
	m.publish(m.change(services(5000, "x")))
	var said []*stream.Progress
	told := make(chan *stream.Progress, 1000)
	slow := func() { time.Sleep(80 * time.Millisecond) } // a slow consumer is the subject
	c := follow(t, s, m, stream.Options{
		Noticed: 15 * time.Millisecond, OnProgress: func(p *stream.Progress) { told <- p },
	}, slow)
	c.until(m.rev)
	for p := range told {
		said = append(said, p)
		if p == nil {
			break
		}
	}
	reads, takes := 0, 0
	for _, p := range said[:len(said)-1] {
		switch {
		case p.Since.IsZero() || p.Done > p.Total:
			t.Errorf("%+v", p)
		case p.What == "reading the configuration's events" && p.Done > 0 && p.Total >= 5000 && p.Total <= 5001:
			reads++
		case p.What == "taking over revision 1" && p.Total == 5000:
			takes++
		default:
			t.Errorf("%+v", p)
		}
	}
	if reads == 0 || takes == 0 {
		t.Errorf("it has told %d times of reading, %d of taking over", reads, takes)
	}
	for _, want := range []string{
		"reading the configuration's events: ", "taking over revision 1: 0 of 5000",
		"up to the configuration's stream again",
	} {
		if !strings.Contains(c.log.String(), want) {
			t.Errorf("the log lacks %q: %s", want, c.log)
		}
	}
	m.put(resource.KindService, "quick", "x")
	c.until(m.rev)
}
