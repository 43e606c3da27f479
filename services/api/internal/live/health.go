package live

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// States of what an Envoy says, and of endpoints.
const (
	stateCurrent   = "current"
	stateOld       = "old"
	stateMissing   = "missing"
	stateHealthy   = "healthy"
	stateUnhealthy = "unhealthy"
	stateMixed     = "mixed"
	stateUnchecked = "unchecked"
	stateUnknown   = "unknown"
)

type envoyKey struct{ gateway, proxy string }

// seen is what is known of an Envoy by who runs it.
type seen struct {
	proxy, gateway, node, state, reason string
	at                                  string
	age                                 time.Duration
	unhealthy                           []status.UnhealthyEndpoint
	more                                bool
	place                               locality.Place
	latencies                           []status.PlaceLatency
}

func (s seen) report() api.HealthReport {
	return api.HealthReport{
		Proxy: s.proxy, Gateway: s.gateway, Node: s.node, State: s.state, Reason: s.reason, At: s.at,
		AgeSeconds: s.age.Round(time.Millisecond).Seconds(),
	}
}

// reports are those of all who run an Envoy and have told of it, in the order of Envoys and nodes.
func (b *Board) reports() []seen {
	now := b.now()
	fresh, gone := b.reporters()
	var out []seen
	for i, a := range slices.Concat(fresh, gone) {
		if a.Envoy == "" {
			continue
		}
		s := seen{proxy: a.Envoy, gateway: a.EnvoyGateway, node: a.ID, state: stateMissing}
		if a.NoNode {
			s.node = ""
		}
		if r := a.EnvoyReport; r == nil {
			s.reason = "its agent has not heard of it yet"
		} else if at := a.looked(); !at.IsZero() {
			s.state, s.at, s.age = stateCurrent, r.At, max(0, now.Sub(at))
			s.unhealthy, s.more = r.Unhealthy, r.UnhealthyMore > 0
			s.place, s.latencies = r.Place(), r.Latencies[:min(len(r.Latencies), status.MaxLatencies)]
		}
		switch {
		case i >= len(fresh):
			s.state, s.reason = stateOld, "its agent reports no more"
		case s.state == stateCurrent && s.age > current:
			s.state, s.reason = stateOld, "it does not answer its agent"
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(x, y seen) int {
		return cmp.Or(cmp.Compare(x.proxy, y.proxy), cmp.Compare(x.node, y.node))
	})
	return out
}

// unheard are the connected Envoys of which there is no current report.
func unheard(connected []listed, reports []seen) (out []listed) {
	heard := map[envoyKey]bool{}
	for _, r := range reports {
		if r.state == stateCurrent {
			heard[envoyKey{r.gateway, r.proxy}] = true
		}
	}
	for _, p := range connected {
		if !heard[envoyKey{p.Gateway, p.ID}] {
			out = append(out, p)
		}
	}
	return out
}

// silent says why there is no current report of a connected Envoy.
func silent(p status.ProxyStatus, reports []seen) api.HealthReport {
	i := slices.IndexFunc(reports, func(s seen) bool { return s.proxy == p.ID && s.gateway == p.Gateway })
	if i >= 0 {
		return reports[i].report()
	}
	return api.HealthReport{
		Proxy: p.ID, Gateway: p.Gateway, State: stateMissing,
		Reason: "no agent speaks of it: none runs it, or the agent has no NATS_URL, or is of an older version",
	}
}

// unhealthy are the services with endpoints that fail.
func unhealthy(reports []seen) (out []api.UnhealthyService, total int32) {
	by := map[string]map[string]*api.UnhealthyEndpoint{}
	proxies := map[string]int32{}
	for _, r := range reports {
		if r.state != stateCurrent {
			continue
		}
		here := map[string]bool{}
		for _, e := range r.unhealthy {
			if by[e.Service] == nil {
				by[e.Service] = map[string]*api.UnhealthyEndpoint{}
			}
			x := by[e.Service][e.Address]
			if x == nil {
				x = &api.UnhealthyEndpoint{Address: e.Address, Host: e.Host, Reason: e.Reason}
				by[e.Service][e.Address] = x
			}
			x.Proxies++
			if !here[e.Service] {
				here[e.Service] = true
				proxies[e.Service]++
			}
		}
	}
	out = []api.UnhealthyService{}
	for _, service := range slices.Sorted(maps.Keys(by)) {
		if total++; len(out) == maxUnhealthy {
			continue
		}
		x := api.UnhealthyService{Service: service, Proxies: proxies[service]}
		for _, address := range slices.Sorted(maps.Keys(by[service])) {
			if len(x.Endpoints) < maxEndpoints {
				x.Endpoints = append(x.Endpoints, *by[service][address])
			}
		}
		out = append(out, x)
	}
	return out, total
}

// Endpoint is one that is stored.
type Endpoint struct {
	Host string
	Port int32
	// Set is the endpoint set that it comes from; "" where the service has it.
	Set string
}

// Health is how the Envoys of some gateways see the endpoints of a service.
func (b *Board) Health(service string, checked bool, gateways map[string]bool, stored []Endpoint) (
	endpoints []api.EndpointHealth, proxies []api.HealthReport,
) {
	b.mu.Lock()
	defer b.mu.Unlock()
	reports := b.reports()
	known := map[envoyKey]bool{}
	for _, r := range reports {
		known[envoyKey{r.gateway, r.proxy}] = true
	}
	for _, p := range b.connected() {
		if k := (envoyKey{p.Gateway, p.ID}); !known[k] {
			known[k] = true
			s := silent(p.ProxyStatus, nil)
			reports = append(reports, seen{proxy: p.ID, gateway: p.Gateway, state: s.State, reason: s.Reason})
		}
	}
	reports = slices.DeleteFunc(reports, func(s seen) bool { return !gateways[s.gateway] })
	slices.SortStableFunc(reports, func(x, y seen) int { return cmp.Compare(x.proxy, y.proxy) })
	proxies = []api.HealthReport{}
	for _, r := range reports {
		proxies = append(proxies, r.report())
	}
	// Each failing endpoint by its address, and where that was found by a name, beside the name's.
	type place struct {
		host    string
		port    int32
		address string
	}
	at := map[place]int{}
	endpoints = []api.EndpointHealth{}
	for _, e := range stored {
		p := place{host: e.Host, port: e.Port}
		if _, twice := at[p]; twice {
			continue
		}
		at[p] = len(endpoints)
		endpoints = append(endpoints, api.EndpointHealth{Host: e.Host, Port: e.Port, EndpointSet: e.Set})
	}
	fails := make([]map[int]string, len(reports)) // by report and endpoint: the reason
	for i, r := range reports {
		fails[i] = map[int]string{}
		if r.state != stateCurrent {
			continue
		}
		for _, u := range r.unhealthy {
			if u.Service != service {
				continue
			}
			host, text, err := net.SplitHostPort(u.Address)
			port, convErr := strconv.ParseInt(text, 10, 32)
			if err != nil || convErr != nil {
				continue
			}
			p := place{host: host, port: int32(port)}
			if u.Host != "" {
				p = place{u.Host, int32(port), host}
			}
			n, there := at[p]
			if !there {
				n = len(endpoints)
				at[p] = n
				endpoints = append(endpoints, api.EndpointHealth{Host: p.host, Port: p.port, Address: p.address})
			}
			fails[i][n] = u.Reason
		}
	}
	for n := range endpoints {
		e := &endpoints[n]
		e.Views = []api.EndpointView{}
		states := map[string]bool{}
		for i, r := range reports {
			v := api.EndpointView{Proxy: r.proxy, Node: r.node, State: stateHealthy}
			reason, fails := fails[i][n]
			switch {
			case !checked:
				v.State = stateUnchecked
			case r.state != stateCurrent:
				v.State = stateUnknown
			case fails:
				v.State, v.Reason = stateUnhealthy, reason
			case r.more: // it may be one of those that there was no room for
				v.State = stateUnknown
			}
			if v.State != stateUnknown {
				states[v.State] = true
			}
			e.Views = append(e.Views, v)
		}
		switch {
		case !checked:
			e.State = stateUnchecked
		case len(states) == 0:
			e.State = stateUnknown
		case len(states) > 1:
			e.State = stateMixed
		case states[stateUnhealthy]:
			e.State = stateUnhealthy
		default:
			e.State = stateHealthy
		}
	}
	return endpoints, proxies
}

// Measured is what the Envoys at a place have measured of a service.
type Measured struct {
	From locality.Place
	// Proxies counts the Envoys.
	Proxies int32
	// Now is what they measure, and Steady what places are ordered by, in milliseconds.
	Now, Steady locality.Latencies
}

// Latencies is what the Envoys with a current report have measured of a service, by where they are.
func (b *Board) Latencies(service string) (out []Measured) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, steady := map[locality.Place][]locality.Latencies{}, map[locality.Place][]locality.Latencies{}
	for _, r := range b.reports() {
		if r.state != stateCurrent {
			continue
		}
		is, was := locality.Latencies{}, locality.Latencies{}
		for _, l := range r.latencies {
			if l.Service == service {
				is[l.Place()], was[l.Place()] = l.Milliseconds, l.Steady
			}
		}
		if len(is) > 0 {
			now[r.place], steady[r.place] = append(now[r.place], is), append(steady[r.place], was)
		}
	}
	for _, from := range slices.SortedFunc(maps.Keys(now), locality.Place.Compare) {
		out = append(out, Measured{
			From: from, Proxies: int32(len(now[from])), Now: locality.Median(now[from]), Steady: locality.Median(steady[from]),
		})
	}
	return out
}
