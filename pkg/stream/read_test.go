package stream

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/pkg/natstest"
)

// TestPurgedMeanwhile: who reads the stream while it is purged does not wait for messages that will not come. The relay
// repairs nothing before its reading has ended.
func TestPurgedMeanwhile(t *testing.T) {
	_, js := natstest.Start(t).Connect()
	s, err := Ensure(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	const messages = 5000 // more than are fetched ahead
	for i := range messages {
		if _, err := js.PublishAsync(fmt.Sprint(ResourcePrefix, "service.s", i), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	read, began := 0, time.Now()
	err = each(t.Context(), js, func(jetstream.Msg, bool) bool {
		if read++; read == 1 {
			if err := s.Purge(t.Context()); err != nil {
				t.Error(err)
			}
		}
		return false
	})
	if took := time.Since(began); err != nil || took > stalled/2 || read == messages {
		t.Errorf("%d of %d messages were read in %v: %v", read, messages, took, err)
	}
}
