package fleet

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"
	"github.com/marchproxy/marchproxy/services/xds/internal/laststate"
)

// Verdicts lists what every gateway's Envoys have refused, and what else is served in the place of the
// configuration, to be kept on disk.
func (f *Fleet) Verdicts() []laststate.Record {
	f.build.Lock()
	defer f.build.Unlock()
	var out []laststate.Record
	for _, name := range slices.Sorted(maps.Keys(f.members)) {
		for _, v := range f.members[name].gateway.Snapshot() {
			r := laststate.Record{
				Gateway: name, Type: string(v.Key.Type), Name: v.Key.Name, Version: v.Version, Reason: v.Reason,
				Revision: v.Revision, GoodRevision: v.GoodRevision, Closed: v.Closed,
			}
			if v.Good != nil {
				b := body(v.Good)
				r.Good = &b
			}
			for _, p := range v.Pinned {
				r.Pinned = append(r.Pinned, body(p))
			}
			out = append(out, r)
		}
		if kept := f.members[name].builder.Kept(); len(kept) > 0 {
			r := laststate.Record{Gateway: name, Kind: resource.KindService}
			for _, k := range kept {
				r.Pinned = append(r.Pinned, body(k))
			}
			out = append(out, r)
		}
		stay := f.members[name].gateway.Policies()
		retiring := f.members[name].builder.Policies().Leaving
		for _, policy := range slices.Sorted(maps.Keys(retiring)) {
			if raw, err := (proto.MarshalOptions{Deterministic: true}).Marshal(retiring[policy]); err == nil && stay[policy] {
				out = append(out, laststate.Record{
					Gateway: name, Kind: resource.KindAuthPolicy, Name: policy, Good: &laststate.Body{Bytes: raw},
				})
			}
		}
	}
	return out
}

func body(r *translate.Resource) laststate.Body {
	r = r.Anywhere()
	b := laststate.Body{Type: string(r.Type), Name: r.Name, Version: r.Version, Bytes: r.Body.GetValue(), Clusters: r.Clusters, Secrets: r.Secrets, Policies: r.Policies}
	for _, k := range r.Needs {
		b.Needs = append(b.Needs, string(k.Type), k.Name)
	}
	for _, o := range r.Objects {
		b.Objects = append(b.Objects, o.Kind, o.Name)
	}
	return b
}

func unpack(b laststate.Body) *translate.Resource {
	r := &translate.Resource{
		Key: translate.Key{Type: translate.Type(b.Type), Name: b.Name}, Version: b.Version, Clusters: b.Clusters, Secrets: b.Secrets, Policies: b.Policies,
		Body: &anypb.Any{TypeUrl: b.Type, Value: b.Bytes},
	}
	for i := 0; i+1 < len(b.Needs); i += 2 {
		r.Needs = append(r.Needs, translate.Key{Type: translate.Type(b.Needs[i]), Name: b.Needs[i+1]})
	}
	for i := 0; i+1 < len(b.Objects); i += 2 {
		r.Objects = append(r.Objects, resource.Ref{Kind: b.Objects[i], Name: b.Objects[i+1]})
	}
	return r
}

// Recall takes what was refused before a restart; call it after the last good state has been applied.
func (f *Fleet) Recall(records []laststate.Record, now time.Time) {
	f.build.Lock()
	defer f.build.Unlock()
	byGateway := map[string][]ads.Quarantined{}
	policies := map[string]map[string]*configv1.AuthPolicy{}
	for _, r := range records {
		if r.Kind == resource.KindAuthPolicy {
			p := &configv1.AuthPolicy{}
			if r.Good != nil && proto.Unmarshal(r.Good.Bytes, p) == nil {
				if policies[r.Gateway] == nil {
					policies[r.Gateway] = map[string]*configv1.AuthPolicy{}
				}
				policies[r.Gateway][r.Name] = p
			}
			continue
		}
		if r.Kind == resource.KindService {
			if m := f.members[r.Gateway]; m != nil {
				var kept []*translate.Resource
				for _, b := range r.Pinned {
					kept = append(kept, unpack(b))
				}
				m.gateway.Apply(f.commit.Revision, m.builder.Keep(f.state, kept))
			}
			continue
		}
		v := ads.Quarantined{
			Key: translate.Key{Type: translate.Type(r.Type), Name: r.Name}, Version: r.Version, Revision: r.Revision,
			Reason: r.Reason, GoodRevision: r.GoodRevision, Closed: r.Closed,
		}
		if r.Good != nil {
			v.Good = unpack(*r.Good)
		}
		for _, p := range r.Pinned {
			v.Pinned = append(v.Pinned, unpack(p))
		}
		byGateway[r.Gateway] = append(byGateway[r.Gateway], v)
	}
	for name, p := range policies {
		if m := f.members[name]; m != nil {
			held := m.builder.Policies()
			held.Leaving = maps.Clone(held.Leaving)
			maps.Copy(held.Leaving, p)
			f.hold(m, held)
		}
	}
	for name, verdicts := range byGateway {
		if m := f.members[name]; m != nil {
			m.gateway.Restore(verdicts, now)
		}
	}
	f.signal()
}
