package fleet_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// TestBackSoon: an Envoy whose xDS server was away for a while comes back within two seconds of its return, however
// long that was.
func TestBackSoon(t *testing.T) {
	w := newRig(t)
	w.apply(map[resource.Ref]proto.Message{gatewayRef: w.gateway()})
	w.start()
	w.live()
	w.down()
	w.until("gone", func() bool { return w.fleet.Proxies() == 0 })
	time.Sleep(8 * time.Second) // how long the server is away is the subject
	w.up()
	if took := w.live(); took > 4*time.Second {
		t.Errorf("back after %v", took)
	}
}
