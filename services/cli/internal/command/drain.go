package command

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/locality"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
	"github.com/marchproxy/marchproxy/services/cli/internal/manifest"
)

// drained is the spec of a LocalityDrain.
type drained struct {
	Cloud  string `json:"cloud,omitempty"`
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
	Reason string `json:"reason,omitempty"`
}

func (d drained) place() locality.Place {
	return locality.Place{Cloud: d.Cloud, Region: d.Region, Zone: d.Zone}
}

// notName is what no resource's name has.
var notName = regexp.MustCompile(`[^a-z0-9]+`)

// name is what a drain of the place is called: the same for the same place, and another for any other one.
func (d drained) name() string {
	words := notName.ReplaceAllString(strings.ToLower(d.place().String()), "-")
	exact := strings.ReplaceAll(strings.ReplaceAll(d.place().String(), ", ", "-"), " ", "-")
	if words == exact && len(words) <= resource.MaxNameLength {
		return words
	}
	sum := sha256.Sum256([]byte(fmt.Sprintf("%q", d.place())))
	const short = 8
	return strings.Trim(words[:min(len(words), resource.MaxNameLength-1-short)], "-") + "-" +
		hex.EncodeToString(sum[:short/2])
}

func (d *drained) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&d.Cloud, "cloud", "", "the cloud or site, as endpoints name it; any where it is left out")
	cmd.Flags().StringVar(&d.Region, "region", "", "the region; any where it is left out")
	cmd.Flags().StringVar(&d.Zone, "zone", "", "the zone; any where it is left out")
}

func (c *cli) drainCommand() *cobra.Command {
	var d drained
	var w waiting
	var message string
	cmd := &cobra.Command{
		Use: "drain [--cloud CLOUD] [--region REGION] [--zone ZONE]", Args: cobra.NoArgs,
		Short: "Send no new requests to a cloud, region or zone, until undrain",
		Long: "The endpoints there, of every service, finish the requests that they have. A service that has none " +
			"elsewhere keeps its\nendpoints, and the answer says so. It is one revision, a LocalityDrain that is " +
			"created; status shows it.",
		Example: "  marchproxy drain --cloud aws --zone eu-west-1a --reason 'power works' --wait\n  marchproxy status\n" +
			"  marchproxy undrain --cloud aws --zone eu-west-1a --wait",
		RunE: c.use(func(ctx context.Context, a *client.Client, _ []string) error {
			if d.place() == (locality.Place{}) {
				return errNoPlace
			}
			q, err := w.query()
			if err != nil {
				return err
			}
			spec, err := json.Marshal(d)
			if err != nil {
				return err
			}
			there, err := drains(ctx, a)
			if err != nil {
				return err
			}
			name := d.name()
			for was, x := range there {
				if x.place() == d.place() { // by whatever name somebody has drained it
					name = was
				}
			}
			body := transaction{api.ApplyRequest{Message: message}, []manifest.File{{
				Kind: resource.KindLocalityDrain, Name: name, Spec: spec,
			}}}
			var res api.ApplyResult
			r := client.Request{Method: http.MethodPost, Path: "/v1/apply", Query: q, Body: body}
			if err := c.write(ctx, a, c.progress(), w, r, &res); err != nil {
				return err
			}
			return c.result(res)
		}),
	}
	d.flags(cmd)
	cmd.Flags().StringVar(&d.Reason, "reason", "", "why, for whoever sees it in the status")
	cmd.Flags().StringVarP(&message, "message", "m", "", "why, for the history")
	w.flags(cmd.Flags())
	return cmd
}

var errNoPlace = errors.New("name a place: --cloud, --region or --zone")

func (c *cli) undrainCommand() *cobra.Command {
	var d drained
	var w waiting
	cmd := &cobra.Command{
		Use: "undrain [--cloud CLOUD] [--region REGION] [--zone ZONE]", Args: cobra.NoArgs,
		Short: "Send requests again to what was drained, by the same words",
		RunE: c.use(func(ctx context.Context, a *client.Client, _ []string) error {
			if d.place() == (locality.Place{}) {
				return errNoPlace
			}
			q, err := w.query()
			if err != nil {
				return err
			}
			there, err := drains(ctx, a)
			if err != nil {
				return err
			}
			k, _ := resource.KindByName(resource.KindLocalityDrain)
			all := api.ApplyResult{Changes: []api.Change{}}
			for name, x := range there { // one, unless somebody has drained it by several names
				if x.place() != d.place() {
					continue
				}
				res, err := c.delete(ctx, a, c.progress(), w, q, target{k, name, ""})
				if err != nil {
					return notFound(err, k, name)
				}
				all.Revision, all.Live = res.Revision, res.Live
				all.Changes = append(all.Changes, res.Changes...)
			}
			if len(all.Changes) == 0 {
				return fmt.Errorf("%s is not drained; marchproxy status shows what is", d.place())
			}
			if err := c.deleted(all); err != nil {
				return err
			}
			return notLive(all.Live)
		}),
	}
	d.flags(cmd)
	w.flags(cmd.Flags())
	return cmd
}

// drains are those that there are, by name.
func drains(ctx context.Context, a *client.Client) (map[string]drained, error) {
	k, _ := resource.KindByName(resource.KindLocalityDrain)
	objects, _, _, err := a.List(ctx, k.Path, url.Values{})
	if err != nil {
		return nil, err
	}
	out := map[string]drained{}
	for _, o := range objects {
		var d drained
		if err := json.Unmarshal(o.Spec, &d); err != nil {
			return nil, fmt.Errorf("LocalityDrain/%s: %w", o.Name, err)
		}
		out[o.Name] = d
	}
	return out, nil
}
