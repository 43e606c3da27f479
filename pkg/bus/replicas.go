package bus

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"
)

// copies is how many servers keep a stream where NATS has as many: one of them can be lost, and it goes on.
const copies = 3

// Replicas is how many servers shall keep a stream: three where NATS_URL names three servers or more, otherwise one,
// and never fewer than it has now, so that a part that was told of one server takes nothing away.
func Replicas(ctx context.Context, js jetstream.JetStream, stream string) int {
	n := 1
	if len(js.Conn().Opts.Servers) >= copies {
		n = copies
	}
	if s, err := js.Stream(ctx, stream); err == nil {
		n = max(n, s.CachedInfo().Config.Replicas)
	}
	return n
}
