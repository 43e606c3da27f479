package stream_test

import (
	"fmt"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/natstest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
)

// BenchmarkPublish is what a transaction costs, server included, in a stream of 20,000 objects: one of one object, one
// that is a batch, and one of more than that, put and deleted.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{1, 100, 10000} {
		for _, deletes := range []bool{false, true} {
			what := map[bool]string{false: "put", true: "deleted"}[deletes]
			b.Run(fmt.Sprint(n, " ", what), func(b *testing.B) {
				s := natstest.Start(b)
				_, js := s.Connect()
				m := newModel(b, js)
				m.publish(m.change(services(20000, "x")))
				objects := make([]*resource.Object, n)
				for i := range objects {
					objects[i] = object(b, resource.KindService, fmt.Sprint("s", i), "y", 2)
					if deletes {
						objects[i] = resource.Tombstone(objects[i].Ref(), 2)
					}
				}
				b.ReportAllocs()
				for b.Loop() {
					m.rev++
					m.publish(objects, resource.Commit{Epoch: m.epoch, Revision: m.rev})
				}
				b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "objects/s")
			})
		}
	}
}

// BenchmarkReplay is what it costs to be handed 20,000 objects.
func BenchmarkReplay(b *testing.B) {
	s := natstest.Start(b)
	_, js := s.Connect()
	m := newModel(b, js)
	m.publish(m.change(services(20000, "x")))
	b.ReportAllocs()
	for b.Loop() {
		c := follow(b, s, m, stream.Options{}, nil)
		c.until(m.rev)
		c.stop()
	}
}
