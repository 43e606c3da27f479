package server

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

// environmentLicense is the License that LICENSE_KEY stands in.
const environmentLicense = "default"

// licenseKey makes the License of LICENSE_KEY, or gives it that key where it has another one. Whatever else it says
// is the operator's and stays. The gateway default uses it from its beginning on, if it uses none; who later
// decides otherwise is not overruled at the next start. Nothing is written where all is as it should be, so
// that any number of apis may start.
func licenseKey(ctx context.Context, key string, w *writer.Writer) error {
	if key == "" {
		return nil
	}
	ref := resource.Ref{Kind: resource.KindLicense, Name: environmentLicense}
	_, err := w.Write(ctx, writer.Meta{
		Who:     auth.System(),
		Message: "LICENSE_KEY",
	}, func(st *config.State) (writer.Plan, error) {
		if o := st.Get(ref); o != nil {
			l := proto.CloneOf(o.Message().(*configv1.License))
			l.Key = key
			return writer.Plan{Upserts: []writer.Desired{{Ref: ref, Spec: l, Path: "$", SpecPath: "$"}}}, nil
		}
		p := writer.Plan{Upserts: []writer.Desired{{Ref: ref, Spec: &configv1.License{Key: key}, Path: "$", SpecPath: "$"}}}
		gw := st.Get(resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway})
		if gw == nil || gw.Message().(*configv1.Gateway).GetLicense() != "" {
			return p, nil
		}
		g := proto.CloneOf(gw.Message().(*configv1.Gateway))
		g.License = ref.Name
		p.Upserts = append(p.Upserts, writer.Desired{Ref: gw.Ref(), Spec: g, Path: "$", SpecPath: "$"})
		return p, nil
	})
	if err != nil {
		return fmt.Errorf("LICENSE_KEY: write the license %s: %w", environmentLicense, err)
	}
	return nil
}
