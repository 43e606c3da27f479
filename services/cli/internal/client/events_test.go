package client

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// TestReadEvents: the format, comments and heartbeats included, whatever the last event was.
func TestReadEvents(t *testing.T) {
	in := "retry: 1000\n\nevent: revision\nid: 7\ndata: {\"a\":\ndata: 1}\n\n:\n\nevent: status\ndata: {}\n\nid: 8\n" +
		"event: revision\ndata:{}\n\nevent: revision\nid: 9\ndata: cut o"
	var got []string
	last, err := readEvents(strings.NewReader(in), "6", func(e Event) error {
		got = append(got, e.Type+"/"+e.ID+"/"+string(e.Data))
		return nil
	})
	if want := "revision/7/{\"a\":\n1} status//{} revision/8/{}"; strings.Join(got, " ") != want || last != "8" ||
		!errors.Is(err, io.EOF) {
		t.Errorf("%q, last %q, %v", got, last, err)
	}
	stop := errors.New("enough")
	var e *stopError
	if last, err := readEvents(strings.NewReader(in), "6", func(Event) error { return stop }); !errors.As(err, &e) ||
		last != "6" {
		t.Error(last, err)
	}
}
