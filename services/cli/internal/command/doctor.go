package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/bus"
	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
	"github.com/marchproxy/marchproxy/pkg/translate" // and Envoy's messages, for reading its dump
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

// doctorCommand compares what each part believes the configuration to be.
func (c *cli) doctorCommand() *cobra.Command {
	var xds, admin, natsURL, gateway string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Compare database, stream, xDS server and Envoy, say where they differ, and verify the audit",
		Args: cobra.NoArgs,
		Long: "Compare the state in the database (by the api), in the event stream (--nats or NATS_URL), in the xDS " +
			"server (--xds)\n" +
			"and in an Envoy's own dump (--admin). A change under way shows as a difference: run it again. The audit " +
			"is verified as\n" +
			"audit verify does it, where the token is an admin's.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.api()
			if err != nil {
				return err
			}
			settings, id, err := c.identity()
			if err != nil {
				return err
			}
			way := client.Transport(id.Client(""))
			d := &doctor{
				verify: c.verifyAudit, http: &http.Client{Transport: way}, out: io.Discard, api: a,
				report: doctorReport{Parts: []doctorPart{}, Differences: []string{}},
			}
			if d.nats, err = bus.Options(settings, id); err != nil {
				return err
			}
			if c.people() { // who see each part as soon as it has been looked at
				d.out = c.out
			}
			env := process.NewEnv(c.env)
			if err := d.run(
				cmd.Context(),
				or(xds, env.String("MARCHPROXY_XDS", "http://127.0.0.1:19000")),
				or(admin, env.String("MARCHPROXY_ENVOY_ADMIN", "http://127.0.0.1:9901")),
				or(natsURL, env.Secret("NATS_URL")),
				gateway,
			); err != nil {
				return err
			}
			d.report.Agree = len(d.report.Differences) == 0
			if !c.people() {
				if err := c.print(d.report, nil); err != nil {
					return err
				}
			}
			if !d.report.Agree {
				return &codeError{exitDrift, plural(len(d.report.Differences), "difference")}
			}
			fmt.Fprintln(d.out, "all agree")
			return nil
		},
	}
	cmd.Flags().StringVar(&xds, "xds", "", "the xDS server's HTTP address (MARCHPROXY_XDS, otherwise "+
		"http://127.0.0.1:19000)")
	cmd.Flags().StringVar(&admin, "admin", "", "Envoy's admin interface (MARCHPROXY_ENVOY_ADMIN, otherwise "+
		"http://127.0.0.1:9901)")
	cmd.Flags().StringVar(&natsURL, "nats", "", "NATS (NATS_URL); without it the stream is not looked at")
	cmd.Flags().StringVar(&gateway, "gateway", resource.DefaultGateway, "the Envoy's gateway")
	return cmd
}

// doctorReport is the doctor's output for programs.
type doctorReport struct {
	Agree       bool         `json:"agree"`
	Parts       []doctorPart `json:"parts"`
	Differences []string     `json:"differences"`
}

// doctorPart is one part that could be looked at.
type doctorPart struct {
	// Part is database, audit, stream, xds or envoy.
	Part string `json:"part"`
	// Revision that it has; absent for envoy and audit, which know none.
	Revision int64 `json:"revision,omitempty"`
	// Resources are Envoy's: those that xds serves, and the clusters, listeners and scopes of envoy.
	Resources int `json:"resources,omitempty"`
	// Records are the audit's that were verified; absent where the token may not have it verified.
	Records int64 `json:"records,omitempty"`
}

type doctor struct {
	api    *client.Client
	http   *http.Client
	nats   []nats.Option
	out    io.Writer
	report doctorReport
	// patience is how long one part may take to answer.
	patience time.Duration
	// verify is [cli.verifyAudit].
	verify func(ctx context.Context, a *client.Client, head string) (api.AuditVerification, error)
}

func (d *doctor) differ(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	d.report.Differences = append(d.report.Differences, text)
	fmt.Fprintf(d.out, "DIFFERS  %s\n", text)
}

// saw notes a part, in words for people.
func (d *doctor) saw(p doctorPart, format string, args ...any) {
	d.report.Parts = append(d.report.Parts, p)
	fmt.Fprintf(d.out, "%-9s %s\n", p.Part, fmt.Sprintf(format, args...))
}

type served struct {
	Epoch     string                   `json:"epoch"`
	Revision  int64                    `json:"revision"`
	State     map[string]api.KindState `json:"state"`
	Resources []struct{ Type, Name, Version, Plain string }
}

func (d *doctor) run(ctx context.Context, xds, admin, natsURL, gateway string) error {
	var truth api.Status
	if _, err := d.api.Do(ctx, client.Request{Method: http.MethodGet, Path: "/v1/status"}, &truth); err != nil {
		return err
	}
	d.saw(doctorPart{Part: "database", Revision: truth.Revision}, "revision %d", truth.Revision)
	d.patience = patience(truth)
	for _, p := range truth.Progress {
		d.differ("%s is behind: %s%s", p.Who, p, since(p.Since))
	}
	for _, x := range truth.Lagging {
		d.differ("%s", lags(x))
	}
	if more := int(truth.LaggingProxies) - len(truth.Lagging); more > 0 {
		d.differ("%s more lag", plural(more, "Envoy"))
	}
	if err := d.audit(ctx); err != nil {
		d.differ("the audit cannot be verified: %v", err)
	}
	if natsURL != "" {
		d.part(ctx, "the stream", func(ctx context.Context) error { return d.stream(ctx, natsURL, truth) })
	}
	d.part(ctx, "the xDS server", func(ctx context.Context) error { return d.xds(ctx, xds, admin, gateway, truth) })
	return ctx.Err()
}

// audit has the api verify its audit, however long that takes.
func (d *doctor) audit(ctx context.Context) error {
	v, err := d.verify(ctx, d.api, "")
	var p *client.Problem
	switch {
	case errors.As(err, &p) && p.Status == http.StatusForbidden:
		d.saw(doctorPart{Part: "audit"}, "not verified: that wants a token of an admin")
	case err != nil:
		return err
	case v.Broken != nil:
		d.differ("%s", unfit(v.Broken))
	default:
		d.saw(doctorPart{Part: "audit", Records: v.Records}, "%s fit", plural(int(v.Records), "record"))
	}
	return nil
}

// patience is how long one part may take to answer: each shows all that it has, and Envoy's dump of 100,000 hosts takes
// many seconds on a busy machine.
func patience(truth api.Status) time.Duration {
	out := 15 * time.Second
	for _, k := range truth.State {
		out += time.Duration(k.Count) * time.Millisecond
	}
	return out
}

// part looks at one part. One that does not answer is a difference like any other, and the next is looked at.
func (d *doctor) part(ctx context.Context, name string, look func(context.Context) error) {
	limit, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	if err := look(limit); err != nil {
		d.differ("%s cannot be looked at: %v", name, err)
	}
}

func (d *doctor) xds(ctx context.Context, xds, admin, gateway string, truth api.Status) error {
	var s served
	if err := d.getJSON(ctx, xds+"/v1/resources?gateway="+gateway, &s); err != nil {
		return err
	}
	d.saw(doctorPart{Part: "xds", Revision: s.Revision, Resources: len(s.Resources)}, "revision %d, %d resources",
		s.Revision, len(s.Resources))
	if s.Epoch != truth.Epoch || s.Revision != truth.Revision {
		d.differ("xds serves revision %d of epoch %s, the database has %d of %s", s.Revision, s.Epoch, truth.Revision,
			truth.Epoch)
	}
	d.states("xds", s.State, truth.State)
	d.part(ctx, "Envoy", func(ctx context.Context) error { return d.envoy(ctx, admin, s) })
	return nil
}

func (d *doctor) states(who string, got, want map[string]api.KindState) {
	for _, k := range resource.Kinds {
		if got[k.Name] != want[k.Name] {
			d.differ("%s has %d objects of kind %s (hash %.8s), the database %d (%.8s)", who, got[k.Name].Count, k.Name,
				got[k.Name].Hash, want[k.Name].Count, want[k.Name].Hash)
		}
	}
}

func (d *doctor) stream(ctx context.Context, url string, truth api.Status) error {
	nc, err := nats.Connect(url, append(d.nats, nats.Name("marchproxy doctor"))...)
	if err != nil {
		return fmt.Errorf("NATS does not answer: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	c, _, found, err := stream.LastCommit(ctx, js)
	if err != nil {
		return err
	}
	table, err := stream.Table(ctx, js)
	if err != nil {
		return err
	}
	d.saw(doctorPart{Part: "stream", Revision: c.Revision}, "revision %d", c.Revision)
	if !found || c.Revision != truth.Revision || c.Epoch != truth.Epoch {
		d.differ("the stream's last commit is revision %d of epoch %q, the database has %d of %s", c.Revision, c.Epoch,
			truth.Revision, truth.Epoch)
	}
	all := resource.Tally{}
	for _, o := range table {
		if !o.Deleted {
			all.Add(o.Kind, resource.Sum(o))
		}
	}
	state := map[string]api.KindState{}
	for kind, s := range all.State() {
		state[kind] = api.KindState(s)
	}
	d.states("the stream", state, truth.State)
	return nil
}

// envoy compares names and content of clusters, listeners and scopes: a resource's version is the digest
// of its bytes, so what Envoy dumps can be compared with it.
func (d *doctor) envoy(ctx context.Context, admin string, s served) error {
	var dump struct {
		Configs []json.RawMessage `json:"configs"`
	}
	if err := d.getJSON(ctx, admin+"/config_dump", &dump); err != nil {
		return err
	}
	has := map[string]string{}
	for _, raw := range dump.Configs {
		if err := collect(raw, has); err != nil {
			return err
		}
	}
	want, plain := map[string]string{}, map[string]string{}
	for _, r := range s.Resources {
		if r.Type == "cluster" || r.Type == "listener" || r.Type == "scopedrouteconfiguration" {
			want[r.Type+" "+r.Name], plain[r.Type+" "+r.Name] = r.Version, r.Plain
		}
	}
	d.saw(doctorPart{Part: "envoy", Resources: len(has)}, "%d clusters, listeners and scopes", len(has))
	for _, k := range slices.Sorted(maps.Keys(want)) {
		switch v, there := has[k]; {
		case !there:
			d.differ("Envoy lacks %s", k)
		case v != want[k] && v != plain[k]:
			d.differ("Envoy has another version of %s", k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(has)) {
		if _, there := want[k]; !there {
			d.differ("Envoy has %s, which is not served (a cluster lingers for some seconds)", k)
		}
	}
	return nil
}

// collect finds the dynamic resources of one part of a dump.
func collect(raw json.RawMessage, has map[string]string) error {
	var part struct {
		Clusters []struct{ Cluster json.RawMessage } `json:"dynamic_active_clusters"`
		Warming  []struct{ Cluster json.RawMessage } `json:"dynamic_warming_clusters"`
		Scopes   []struct {
			Configs []json.RawMessage `json:"scoped_route_configs"`
		} `json:"dynamic_scoped_route_configs"`
		Listeners []struct {
			Active struct{ Listener json.RawMessage } `json:"active_state"`
		} `json:"dynamic_listeners"`
	}
	if err := json.Unmarshal(raw, &part); err != nil {
		return fmt.Errorf("read Envoy's dump: %w", err)
	}
	var all []json.RawMessage
	for _, x := range append(part.Clusters, part.Warming...) {
		all = append(all, x.Cluster)
	}
	for _, x := range part.Scopes {
		all = append(all, x.Configs...)
	}
	for _, x := range part.Listeners {
		all = append(all, x.Active.Listener)
	}
	for _, x := range all {
		if len(x) == 0 {
			continue
		}
		var a anypb.Any
		if err := protojson.Unmarshal(x, &a); err != nil {
			return fmt.Errorf("read Envoy's dump: %w", err)
		}
		m, err := a.UnmarshalNew()
		if err != nil {
			return fmt.Errorf("read Envoy's dump: %w", err)
		}
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			return err
		}
		named, ok := m.(interface{ GetName() string })
		if !ok {
			return errors.New("read Envoy's dump: a resource without a name")
		}
		kind := strings.ToLower(string(m.ProtoReflect().Descriptor().Name()))
		has[kind+" "+named.GetName()] = translate.VersionOf(b)
	}
	return nil
}

func (d *doctor) getJSON(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
