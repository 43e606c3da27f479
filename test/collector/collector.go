// Package collector receives access logs as collectors do: by OTLP, and by Envoy's access log service (ALS).
package collector

import (
	"context"
	"net"
	"strconv"
	"sync"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	logscollectorv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Entry is a request as it was logged.
type Entry struct {
	// Path of the request, and Fields what else was said of it: the attributes of OTLP, the custom tags of ALS.
	Path   string
	Fields map[string]string
	// Gateway is what the sender says of the gateway that it belongs to.
	Gateway string
}

// Collector is a server of both.
type Collector struct {
	logscollectorv1.UnimplementedLogsServiceServer
	accesslogv3.UnimplementedAccessLogServiceServer
	// Port on 127.0.0.1.
	Port int

	server *grpc.Server

	mu         sync.Mutex
	otlp, grpc []Entry
	hangs      chan struct{} // closed when it goes on; nil while it takes what comes
}

// Start begins to receive; in plain text where the credentials are nil.
func Start(ctx context.Context, tls credentials.TransportCredentials) (*Collector, error) {
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	var options []grpc.ServerOption
	if tls != nil {
		options = append(options, grpc.Creds(tls))
	}
	c := &Collector{Port: lis.Addr().(*net.TCPAddr).Port, server: grpc.NewServer(options...)}
	logscollectorv1.RegisterLogsServiceServer(c.server, c)
	accesslogv3.RegisterAccessLogServiceServer(c.server, c)
	go func() { _ = c.server.Serve(lis) }() // until it is stopped
	return c, nil
}

// Stop ends all that is under way.
func (c *Collector) Stop() { c.server.Stop() }

// Endpoint is where it is, as an endpoint of a Service.
func (c *Collector) Endpoint() map[string]any {
	return map[string]any{"host": "127.0.0.1", "port": c.Port}
}

// Hang has it accept connections and answer nothing, until it is to go on.
func (c *Collector) Hang(hangs bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case hangs && c.hangs == nil:
		c.hangs = make(chan struct{})
	case !hangs && c.hangs != nil:
		close(c.hangs)
		c.hangs = nil
	}
}

// wait returns when it does not hang, or when the sender has gone.
func (c *Collector) wait(ctx context.Context) error {
	c.mu.Lock()
	hangs := c.hangs
	c.mu.Unlock()
	if hangs == nil {
		return nil
	}
	select {
	case <-hangs:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Export implements [logscollectorv1.LogsServiceServer].
func (c *Collector) Export(
	ctx context.Context, r *logscollectorv1.ExportLogsServiceRequest,
) (*logscollectorv1.ExportLogsServiceResponse, error) {
	if err := c.wait(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range r.GetResourceLogs() {
		gateway := ""
		for _, a := range of.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				gateway = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range of.GetScopeLogs() {
			for _, l := range scope.GetLogRecords() {
				e := Entry{Fields: map[string]string{}, Gateway: gateway}
				for _, a := range l.GetAttributes() {
					e.Fields[a.GetKey()] = a.GetValue().GetStringValue()
				}
				e.Path = e.Fields["path"]
				c.otlp = append(c.otlp, e)
			}
		}
	}
	return &logscollectorv1.ExportLogsServiceResponse{}, nil
}

// StreamAccessLogs implements [accesslogv3.AccessLogServiceServer].
func (c *Collector) StreamAccessLogs(s accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	gateway := ""
	for {
		if err := c.wait(s.Context()); err != nil {
			return err
		}
		m, err := s.Recv()
		if err != nil {
			return err
		}
		if n := m.GetIdentifier().GetNode(); n != nil { // of a stream the first message alone has it
			gateway = n.GetCluster()
		}
		c.mu.Lock()
		for _, l := range m.GetHttpLogs().GetLogEntry() {
			e := Entry{Path: l.GetRequest().GetPath(), Fields: map[string]string{}, Gateway: gateway}
			for k, v := range l.GetCommonProperties().GetCustomTags() {
				e.Fields[k] = v
			}
			e.Fields["response_code"] = strconv.Itoa(int(l.GetResponse().GetResponseCode().GetValue()))
			c.grpc = append(c.grpc, e)
		}
		c.mu.Unlock()
	}
}

// OTLP are the entries that have come by OTLP for a path; all where it is "".
func (c *Collector) OTLP(path string) []Entry { return c.of(&c.otlp, path) }

// GRPC are those that have come by ALS.
func (c *Collector) GRPC(path string) []Entry { return c.of(&c.grpc, path) }

func (c *Collector) of(list *[]Entry, path string) (out []Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range *list {
		if path == "" || e.Path == path {
			out = append(out, e)
		}
	}
	return out
}
