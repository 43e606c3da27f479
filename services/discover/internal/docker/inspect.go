package docker

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// inspected is what is read of a container's own answer, and all that [Filter] lets through of it: what the list has as
// well, and how it is stopped. The rest has the container's environment, and so its secrets.
type inspected struct {
	ID      string `json:"Id,omitempty"`
	Name    string `json:",omitempty"`
	Created string `json:",omitempty"`
	State   struct {
		Status string  `json:",omitempty"`
		Health *Health `json:",omitempty"`
	}
	Config struct {
		Labels      map[string]string `json:",omitempty"`
		StopSignal  string            `json:",omitempty"`
		StopTimeout *int              `json:",omitempty"`
	}
	HostConfig struct {
		NetworkMode string `json:",omitempty"`
	}
	NetworkSettings struct {
		// Ports are where 80/tcp is published; nobody's where it is not.
		Ports    map[string][]published `json:",omitempty"`
		Networks map[string]Network     `json:",omitempty"`
	}
}

type published struct{ HostPort string }

// maxInspect is how large the answer about one container may be.
const maxInspect = 4 << 20

// inspect reads one container. It is nil where the answer was cut down to how it is stopped, as a filter of another
// version does.
func (d *Docker) inspect(ctx context.Context, id string) (c *Container, how stop, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.opt.Patience)
	defer cancel()
	var is inspected
	if err := d.engine.JSON(ctx, "/containers/"+id+"/json", nil, maxInspect, &is); err != nil {
		return nil, stop{}, err
	}
	if is.ID == id && is.State.Status != "" {
		if c, err = is.container(); err != nil {
			return nil, stop{}, err
		}
	}
	return c, is.stop(), nil
}

// stop is how it is stopped.
func (is inspected) stop() stop {
	out := stop{known: true, signal: unix.SIGTERM, timeout: engines}
	if s := is.Config.StopSignal; s != "" {
		out.signal = signalOf(s)
	}
	if t := is.Config.StopTimeout; t != nil {
		out.timeout = time.Duration(*t) * time.Second
	}
	return out
}

// container is what a list would have of it.
func (is inspected) container() (*Container, error) {
	created, err := time.Parse(time.RFC3339Nano, is.Created)
	if err != nil {
		return nil, fmt.Errorf("container %s: Created: %w", is.ID, err)
	}
	c := &Container{
		ID: is.ID, Names: []string{is.Name}, Created: created.Unix(), Labels: is.Config.Labels, State: is.State.Status,
		Health: is.State.Health,
	}
	c.HostConfig.NetworkMode = is.HostConfig.NetworkMode
	c.NetworkSettings.Networks = is.NetworkSettings.Networks
	for _, name := range slices.Sorted(maps.Keys(is.NetworkSettings.Ports)) {
		number, kind, _ := strings.Cut(name, "/")
		private, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("container %s: port %q: %w", is.ID, name, err)
		}
		p := Port{PrivatePort: uint16(private), Type: cmp.Or(kind, "tcp")}
		if len(is.NetworkSettings.Ports[name]) == 0 {
			c.Ports = append(c.Ports, p)
		}
		for _, at := range is.NetworkSettings.Ports[name] {
			public, err := strconv.ParseUint(at.HostPort, 10, 16)
			if err != nil {
				return nil, fmt.Errorf("container %s: port %q is published at %q: %w", is.ID, name, at.HostPort, err)
			}
			p.PublicPort = uint16(public)
			c.Ports = append(c.Ports, p)
		}
	}
	return c, nil
}
