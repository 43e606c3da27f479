package fleet

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"
	"github.com/marchproxy/marchproxy/services/xds/internal/laststate"
)

// Verdicts lists what every gateway's Envoys have refused, to be kept on disk.
func (f *Fleet) Verdicts() []laststate.Record {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var out []laststate.Record
	for _, name := range slices.Sorted(maps.Keys(f.members)) {
		for _, v := range f.members[name].gateway.Verdicts() {
			r := laststate.Record{Gateway: name, Type: string(v.Key.Type), Name: v.Key.Name, Version: v.Version, Reason: v.Reason, Revision: v.Revision}
			if v.Good != nil {
				b := body(v.Good)
				r.Good = &b
			}
			for _, p := range v.Pinned {
				r.Pinned = append(r.Pinned, body(p))
			}
			out = append(out, r)
		}
	}
	return out
}

func body(r *translate.Resource) laststate.Body {
	b := laststate.Body{Type: string(r.Type), Name: r.Name, Version: r.Version, Bytes: r.Body.GetValue(), Clusters: r.Clusters}
	for _, o := range r.Objects {
		b.Objects = append(b.Objects, o.Kind, o.Name)
	}
	return b
}

func unpack(b laststate.Body) *translate.Resource {
	r := &translate.Resource{
		Key: translate.Key{Type: translate.Type(b.Type), Name: b.Name}, Version: b.Version, Clusters: b.Clusters,
		Body: &anypb.Any{TypeUrl: b.Type, Value: b.Bytes},
	}
	for i := 0; i+1 < len(b.Objects); i += 2 {
		r.Objects = append(r.Objects, resource.Ref{Kind: b.Objects[i], Name: b.Objects[i+1]})
	}
	return r
}

// Recall takes what was refused before a restart; call it after the last good state has been applied.
func (f *Fleet) Recall(records []laststate.Record, now time.Time) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	byGateway := map[string][]ads.Verdict{}
	for _, r := range records {
		v := ads.Verdict{Key: translate.Key{Type: translate.Type(r.Type), Name: r.Name}, Version: r.Version, Revision: r.Revision, Reason: r.Reason}
		if r.Good != nil {
			v.Good = unpack(*r.Good)
		}
		for _, p := range r.Pinned {
			v.Pinned = append(v.Pinned, unpack(p))
		}
		byGateway[r.Gateway] = append(byGateway[r.Gateway], v)
	}
	for name, verdicts := range byGateway {
		if m := f.members[name]; m != nil {
			m.gateway.Recall(verdicts, now)
		}
	}
}
