package stream_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/marchproxy/marchproxy/pkg/disktest"
	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/stream"
)

func TestMain(m *testing.M) { os.Exit(disktest.Main(m.Run)) }

// TestFullDisk: a stream on a full disk is told from a NATS that is away, in the disk's words; when there is room it
// goes on refusing, which is told too, until it is made anew. What was acknowledged is readable throughout.
func TestFullDisk(t *testing.T) {
	disk := disktest.New(t, 8<<20)
	s := natstest.StartIn(t, disk.Dir)
	_, js := s.Connect()
	m := newModel(t, js)
	m.publish(m.change(services(3, "before")))
	diagnose := func(stuck, room bool, want string) {
		t.Helper()
		f := stream.Diagnose(t.Context(), js)
		switch {
		case f == nil && want != "":
			t.Errorf("nothing is wrong, instead of %q", want)
		case f != nil && (want == "" || f.Stuck != stuck || f.Room != room || !strings.Contains(f.Reason, want) ||
			strings.Contains(f.Reason, disk.Dir)):
			t.Errorf("%+v, want stuck %v, room %v, %q", f, stuck, room, want)
		}
	}
	diagnose(false, false, "")
	if err := disk.Fill(); err != nil {
		t.Fatal(err)
	}
	refused := false
	for k := 0; k < 100 && !refused; k++ {
		limit, cancel := context.WithTimeout(t.Context(), time.Second)
		objects, c := m.change(services(1, strings.Repeat("x", 60)))
		seq, err := stream.NewPublisher(js).Publish(limit, objects, c, m.seq)
		cancel()
		if refused = err != nil; !refused {
			m.seq = seq
		}
	}
	if !refused {
		t.Fatal("a stream on a full disk takes a hundred messages")
	}
	diagnose(true, false, "NATS cannot write to its disk: no space left on device")
	if table, err := stream.Table(t.Context(), js); err != nil || len(table) < 3 {
		t.Errorf("the stream cannot be read: %d objects, %v", len(table), err)
	}
	if err := disk.Empty(); err != nil {
		t.Fatal(err)
	}
	diagnose(true, true, "no space left on device")

	st, err := js.Stream(t.Context(), stream.Name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "somebody"}); err != nil {
		t.Fatal(err)
	}
	if err := stream.Remake(t.Context(), js); !errors.Is(err, stream.ErrConsumers) ||
		!strings.Contains(err.Error(), "somebody") {
		t.Errorf("with a durable consumer: %v", err)
	}
	if err := st.DeleteConsumer(t.Context(), "somebody"); err != nil {
		t.Fatal(err)
	}
	if err := stream.Remake(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	diagnose(false, false, "")
	m.seq = 0
	m.publish(m.change(services(3, "after")))
	s.Stop()
	diagnose(false, false, "NATS does not answer")
}
