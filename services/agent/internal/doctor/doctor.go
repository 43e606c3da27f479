// Package doctor asks a running agent how it is, and has it compare the kernel's maps with the policies.
package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// answer is what the agent's /v1/state says, as far as it is read here.
type answer struct {
	Limits *status.AgentStatus
	Envoy  *struct {
		Ready    bool
		Reason   string
		Restarts int
	}
}

// Run prints what it finds; the exit status is 0 where all is well.
func Run(ctx context.Context, lookup func(string) (string, bool), out io.Writer) (int, error) {
	e := process.NewEnv(lookup)
	addr := e.Addr("AGENT_HTTP_ADDR", "127.0.0.1:9902")
	known := identity.Read(e)
	if err := e.Err(); err != nil {
		return 1, err
	}
	base, client := "http://"+addr, http.DefaultClient
	if host, _, err := net.SplitHostPort(addr); err == nil && known.Cert != "" && !identity.Loopback(host) {
		id, err := identity.Open(known.Files)
		if err != nil {
			return 1, err
		}
		base, client = "https://"+addr, &http.Client{Transport: &http.Transport{TLSClientConfig: id.Client("")}}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var a answer
	if err := get(ctx, client, base+"/v1/state", &a); err != nil {
		return 1, fmt.Errorf("the agent does not answer on %s (%w); start it, or set AGENT_HTTP_ADDR as it has it", addr, err)
	}
	r := report{out: out}
	r.limits(a.Limits)
	if a.Limits != nil && a.Limits.Mode != "" {
		var differences []string
		if err := get(ctx, client, base+"/v1/check", &differences); err != nil {
			r.bad("the kernel's maps cannot be compared: %v", err)
		}
		for _, d := range differences {
			r.bad("kernel: %s", d)
		}
		if len(differences) == 0 {
			r.good("the kernel's maps are what the %d policies say", len(a.Limits.Policies))
		}
	}
	if a.Envoy != nil {
		if a.Envoy.Ready {
			r.good("Envoy is ready (%d restarts)", a.Envoy.Restarts)
		} else {
			r.bad("Envoy is not ready: %s", a.Envoy.Reason)
		}
	}
	if r.failed {
		return 1, nil
	}
	return 0, nil
}

type report struct {
	out    io.Writer
	failed bool
}

func (r *report) good(format string, args ...any) { fmt.Fprintf(r.out, "ok    "+format+"\n", args...) }

func (r *report) bad(format string, args ...any) {
	r.failed = true
	fmt.Fprintf(r.out, "FAIL  "+format+"\n", args...)
}

func (r *report) limits(s *status.AgentStatus) {
	switch {
	case s == nil:
		r.good("no packets are limited: NATS_URL is not set")
		return
	case s.Interface == "":
		r.good("no packets are limited: XDP_INTERFACE is not set")
		return
	case s.Reason != "":
		r.bad("%s", s.Reason)
	case s.Mode == "":
		r.bad("%s is not guarded yet: the policies have not been read; does NATS answer?", s.Interface)
	}
	if s.Mode != "" {
		r.good("%s is guarded in %s mode, policies as of revision %d", s.Interface, s.Mode, s.Revision)
	}
	for _, w := range slices.Sorted(slices.Values(s.Warnings)) {
		fmt.Fprintln(r.out, "note  "+w)
	}
}

func get(ctx context.Context, client *http.Client, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024)) // the status says enough without it
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
