package envoyadmin

import (
	"context"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// cluster is a service as the admin interface shows it, with its endpoints.
type cluster struct {
	Name  string     `json:"name"`
	Hosts []endpoint `json:"host_statuses"`
}

// endpoint is one of a cluster's.
type endpoint struct {
	Hostname string `json:"hostname"`
	Address  struct {
		Socket struct {
			Address string `json:"address"`
			Port    int    `json:"port_value"`
		} `json:"socket_address"`
	} `json:"address"`
	Health struct {
		Failed  bool   `json:"failed_active_health_check"`
		Timeout bool   `json:"active_hc_timeout"`
		Pending bool   `json:"pending_active_hc"`
		Ejected bool   `json:"failed_outlier_check"`
		EDS     string `json:"eds_health_status"`
	} `json:"health_status"`
	Locality envoyLocality `json:"locality"`
}

// address is the endpoint's, HOST:PORT.
func (e endpoint) address() string {
	return net.JoinHostPort(e.Address.Socket.Address, strconv.Itoa(e.Address.Socket.Port))
}

// envoyLocality is a locality as the admin interface has it.
type envoyLocality struct {
	Region string `json:"region"`
	Zone   string `json:"zone"`
}

// GetRegion is the region.
func (l envoyLocality) GetRegion() string { return l.Region }

// GetZone is the zone.
func (l envoyLocality) GetZone() string { return l.Zone }

// clusters are those of some services.
func (a Admin) clusters(ctx context.Context, services []string) ([]cluster, error) {
	var doc struct {
		Clusters []cluster `json:"cluster_statuses"`
	}
	// The names are of letters, digits and hyphens, none of which means something in an expression.
	err := a.read(ctx, "/clusters?format=json&filter="+url.QueryEscape("^("+strings.Join(services, "|")+")$"), &doc)
	return doc.Clusters, err
}
