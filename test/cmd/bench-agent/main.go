// Command bench-agent measures how long a rate limit policy takes until the kernel enforces it: from the
// PUT with wait=live to its answer, with networks loaded by other policies, on a veth made for it. After each
// answer the first packet is sent: it must meet the new policy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

func main() {
	changes := flag.Int("changes", 500, "changes measured")
	cidrs := flag.String("cidrs", "0,10000,100000", "networks loaded, one run each")
	flag.Parse()
	for n := range strings.SplitSeq(*cidrs, ",") {
		var loaded int
		if _, err := fmt.Sscan(n, &loaded); err != nil {
			fmt.Fprintln(os.Stderr, "bench-agent: -cidrs:", err)
			os.Exit(1)
		}
		if err := run(context.Background(), *changes, loaded); err != nil {
			fmt.Fprintln(os.Stderr, "bench-agent:", err)
			os.Exit(1)
		}
	}
}

type bench struct {
	*harness.System
	*harness.Wire
	sink           net.PacketConn
	client, marker net.Conn
	selector       map[string]string
}

func run(ctx context.Context, changes, loaded int) (err error) {
	b := &bench{}
	if b.System, err = harness.Start(ctx, "--no-demo"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.System.Close()) }()
	if b.Wire, err = harness.NewWire(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Wire.Close()) }()
	b.selector = map[string]string{"wire": b.Namespace}
	nats, err := b.NATS()
	if err != nil {
		return err
	}
	agent, err := harness.StartAgent([]string{
		"NATS_URL=" + nats, "XDP_INTERFACE=" + b.Interface, "XDP_PIN_DIR=" + b.Pins, "MARCHPROXY_STATE_DIR=" +
			b.Dir + "/agent",
		"AGENT_ID=bench", "NODE_LABELS=wire=" + b.Namespace,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, agent.Stop(syscall.SIGTERM)) }()
	if err := agent.Says(ctx, "is guarded"); err != nil {
		return err
	}
	if b.sink, err = (&net.ListenConfig{}).ListenPacket(ctx, "udp4", netip.AddrPortFrom(b.Node, 0).String()); err != nil {
		return err
	}
	for i, c := range []*net.Conn{&b.client, &b.marker} {
		if *c, err = b.Dial(ctx, "udp4", b.Clients[i], b.sink.LocalAddr().String()); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := b.load(ctx, loaded); err != nil {
		return err
	}
	took := time.Since(began)
	var all []time.Duration
	late := 0
	for i := range changes {
		d, enforced, err := b.change(ctx, i%2 == 0)
		if err != nil {
			return fmt.Errorf("change %d: %w\n%s", i, err, agent.Log())
		}
		if !enforced {
			late++
		}
		all = append(all, d)
	}
	slices.Sort(all)
	at := func(q float64) time.Duration {
		return all[min(len(all)-1, int(q*float64(len(all))))].Round(10 * time.Microsecond)
	}
	fmt.Printf("%d networks (loaded in %s): %d changes, p50 %s, p90 %s, p99 %s, max %s; %d met the old policy\n",
		loaded, took.Round(time.Millisecond), changes, at(0.5), at(0.9), at(0.99), at(1), late)
	if late > 0 {
		return errors.New("wait=live returned before the kernel enforced the policy")
	}
	return nil
}

// perPolicy is how many networks one policy holds here.
const perPolicy = 10000

// load writes policies with networks that are nobody's on this wire.
func (b *bench) load(ctx context.Context, n int) error {
	for i := 0; i < n; i += perPolicy {
		var list []string
		for j := i; j < min(n, i+perPolicy); j++ {
			list = append(list, fmt.Sprintf("10.%d.%d.%d/30", j>>14&0xff, j>>6&0xff, j<<2&0xff))
		}
		if err := b.put(ctx, fmt.Sprintf("load-%d", i/perPolicy),
			map[string]any{"cidrs": list, "packets_per_second": 1000}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) put(ctx context.Context, name string, spec map[string]any) error {
	spec["node_selector"] = b.selector
	status, raw, err := b.Call(ctx, http.MethodPut, b.API+"/v1/rate-limit-policies/"+name+"?wait=live&timeout=60s",
		map[string]any{"spec": spec})
	if err != nil {
		return err
	}
	if status != http.StatusOK && status != http.StatusCreated || !strings.Contains(string(raw), `"state":"live"`) {
		return fmt.Errorf("%s: %d %s", name, status, raw[max(0, len(raw)-400):])
	}
	return nil
}

// change denies the client, or lets it in, and then looks whether the first packet meets that.
func (b *bench) change(ctx context.Context, deny bool) (took time.Duration, enforced bool, err error) {
	spec := map[string]any{"cidrs": []string{b.Clients[0].String()}, "packets_per_second": 1000000}
	if deny {
		spec["deny"] = []string{b.Clients[0].String()}
	}
	began := time.Now()
	if err := b.put(ctx, "client", spec); err != nil {
		return 0, false, err
	}
	took = time.Since(began)
	for _, c := range []net.Conn{b.client, b.marker} {
		if _, err := c.Write([]byte("x")); err != nil {
			return 0, false, err
		}
	}
	arrived := false
	buf := make([]byte, 64)
	for {
		if err := b.sink.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return 0, false, err
		}
		_, from, err := b.sink.ReadFrom(buf)
		if err != nil {
			return 0, false, fmt.Errorf("the packet that nobody denies: %w", err)
		}
		if from.String() == b.marker.LocalAddr().String() {
			return took, arrived != deny, nil
		}
		arrived = true
	}
}
