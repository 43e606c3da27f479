package docker

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/labels"
	"github.com/marchproxy/marchproxy/services/discover/internal/source"
)

// Container is what is read of one in the engine's list.
type Container struct {
	ID      string `json:"Id"`
	Names   []string
	Created int64
	Labels  map[string]string
	// State is created, running, paused, restarting, exited or dead; Status the same for people, with the health in it.
	State, Status string
	// Health is in lists since version 1.52 of the API.
	Health          *Health
	Ports           []Port
	HostConfig      struct{ NetworkMode string }
	NetworkSettings struct {
		Networks map[string]Network
	}
}

// Health is what its checks say of a container: healthy, unhealthy, starting, or none.
type Health struct{ Status string }

// Port is one of a container's, and where it is published; PublicPort is 0 where it is not.
type Port struct {
	PrivatePort, PublicPort uint16
	Type                    string
}

// Network is a container's address in one; both are "" while it does not run.
type Network struct{ IPAddress, GlobalIPv6Address string }

// Labels that docker compose sets.
const (
	composeProject = "com.docker.compose.project"
	composeService = "com.docker.compose.service"
	composeOneoff  = "com.docker.compose.oneoff"
)

// health is healthy, unhealthy, starting, or "" for a container without checks.
func (c Container) health() string {
	if c.Health != nil {
		if c.Health.Status == "none" {
			return ""
		}
		return c.Health.Status
	}
	switch {
	case strings.Contains(c.Status, "(healthy)"):
		return "healthy"
	case strings.Contains(c.Status, "(unhealthy)"):
		return "unhealthy"
	case strings.Contains(c.Status, "(health: starting)"):
		return "starting"
	}
	return ""
}

// takes says whether a container takes requests, as far as the engine knows.
func (c Container) takes() bool {
	h := c.health()
	return c.State == "running" && (h == "" || h == "healthy")
}

func (c Container) name() string {
	if len(c.Names) == 0 {
		return c.ID[:min(len(c.ID), 12)]
	}
	return strings.TrimPrefix(c.Names[0], "/")
}

// group is the key of the workload that a container is of; "" for a one-off container of compose, which is of none.
func (c Container) group() string {
	if strings.EqualFold(c.Labels[composeOneoff], "true") {
		return ""
	}
	if p, s := c.Labels[composeProject], c.Labels[composeService]; p != "" && s != "" {
		return p + "/" + s
	}
	return c.name()
}

// endpoint is where a container takes requests; nil where it does not. address is [Options.Address], and ends that the
// container was told to end.
func (c Container) endpoint(address string, ends bool) (*source.Endpoint, error) {
	if !c.takes() && (!ends || c.State != "running") {
		return nil, nil //nolint:nilnil // no endpoint is an answer
	}
	s := labels.ReadBasics(c.Labels)
	port, err := c.port(s.Port)
	if err != nil {
		return nil, err
	}
	e := &source.Endpoint{
		Port: port, Weight: s.Weight, Zone: s.Zone, Cloud: s.Cloud, Region: s.Region, State: source.Ready,
	}
	if ends {
		e.State = source.Draining
	}
	switch {
	case address != "" && c.HostConfig.NetworkMode == "host":
		e.Host = address
	case address != "":
		e.Host, e.Port = address, c.published(port)
		if e.Port == 0 {
			return nil, fmt.Errorf("port %d is not published, and Envoys reach this engine's containers by %s "+
				"(DISCOVER_ADDRESS)", port, address)
		}
	default:
		if e.Host, err = c.address(s.Network); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// port is the one that is asked for, or the only one that there is.
func (c Container) port(wanted uint32) (uint32, error) {
	if wanted > 0 {
		return wanted, nil
	}
	all := map[uint16]bool{}
	for _, p := range c.Ports {
		if p.Type == "tcp" {
			all[p.PrivatePort] = true
		}
	}
	switch len(all) {
	case 0:
		return 0, fmt.Errorf("exposes no port; say %sport", labels.Prefix)
	case 1:
		for p := range all {
			return uint32(p), nil
		}
	}
	return 0, fmt.Errorf("exposes several ports (%s); say %sport", join(slices.Sorted(maps.Keys(all))), labels.Prefix)
}

// published is the port of the host by which one of the container's is reached, the lowest of several, since an engine
// tells them in any order; 0 for none.
func (c Container) published(port uint32) (out uint32) {
	for _, p := range c.Ports {
		if n := uint32(p.PublicPort); p.Type == "tcp" && uint32(p.PrivatePort) == port && n != 0 && (out == 0 || n < out) {
			out = n
		}
	}
	return out
}

// address is the container's in a network, the only one where none is asked for. In compose files a network has a name
// without the project's.
func (c Container) address(wanted string) (string, error) {
	all := map[string]string{}
	for name, n := range c.NetworkSettings.Networks {
		if a := n.IPAddress; a != "" {
			all[name] = a
		} else if n.GlobalIPv6Address != "" {
			all[name] = n.GlobalIPv6Address
		}
	}
	names := slices.Sorted(maps.Keys(all))
	switch {
	case c.HostConfig.NetworkMode == "host":
		return "", errors.New("is in the host's network; say by which address Envoys reach it (DISCOVER_ADDRESS)")
	case wanted != "":
		for _, name := range []string{wanted, c.Labels[composeProject] + "_" + wanted} {
			if a := all[name]; a != "" {
				return a, nil
			}
		}
		return "", fmt.Errorf("has no address in network %q; it has one in %s", wanted, join(names))
	case len(names) == 1:
		return all[names[0]], nil
	case len(names) == 0:
		return "", errors.New("has no address in any network")
	}
	return "", fmt.Errorf("is in several networks (%s); say %snetwork", join(names), labels.Prefix)
}

func join[T any](list []T) string {
	words := make([]string, len(list))
	for i, x := range list {
		words[i] = fmt.Sprint(x)
	}
	return strings.Join(words, ", ")
}
