package server

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// peers are the hosts that the node cannot do without: those that policies and Envoy's configuration come
// from, and the resolvers that find them.
type peers struct {
	nc    *nats.Conn
	hosts []string
	known map[string][]netip.Addr
}

func newPeers(cfg Config, nc *nats.Conn) *peers {
	p := &peers{nc: nc, known: map[string][]netip.Addr{}}
	for server := range strings.SplitSeq(cfg.NatsURL, ",") {
		if u, err := url.Parse(strings.TrimSpace(server)); err == nil && u.Hostname() != "" {
			p.hosts = append(p.hosts, u.Hostname())
		}
	}
	if host, _, err := net.SplitHostPort(cfg.Envoy.XDSServer); err == nil {
		p.hosts = append(p.hosts, host)
	}
	return p
}

// addresses are those of the peers that are not this very host, in order. Names that cannot be resolved
// keep the addresses that they had.
func (p *peers) addresses(ctx context.Context) []netip.Addr {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	hosts := append(resolvers("/etc/resolv.conf"), p.hosts...)
	for _, server := range p.nc.DiscoveredServers() {
		if u, err := url.Parse(server); err == nil {
			hosts = append(hosts, u.Hostname())
		}
	}
	var out []netip.Addr
	for _, h := range hosts {
		if found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", h); err == nil {
			p.known[h] = found
		}
		for _, ip := range p.known[h] {
			if ip = ip.Unmap().WithZone(""); !ip.IsLoopback() {
				out = append(out, ip)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// resolvers are the name servers of this host.
func resolvers(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // read only
	var out []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) >= 2 && words[0] == "nameserver" {
			out = append(out, words[1])
		}
	}
	return out
}
