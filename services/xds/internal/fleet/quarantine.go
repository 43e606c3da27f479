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

// Quarantine is the quarantine snapshot, to be kept on disk: what every gateway's Envoys have rejected, and what else
// is served in place of the configuration.
func (f *Fleet) Quarantine() []laststate.Quarantined {
	f.build.Lock()
	defer f.build.Unlock()
	var out []laststate.Quarantined
	for _, name := range slices.Sorted(maps.Keys(f.members)) {
		for _, q := range f.members[name].gateway.Snapshot() {
			r := laststate.Quarantined{
				Gateway: name, Type: string(q.Key.Type), Name: q.Key.Name, Version: q.Version, Reason: q.Reason,
				Revision: q.Revision, GoodRevision: q.GoodRevision, Closed: q.Closed,
			}
			if q.Good != nil {
				b := body(q.Good)
				r.Good = &b
			}
			for _, p := range q.Pinned {
				r.Pinned = append(r.Pinned, body(p))
			}
			out = append(out, r)
		}
		if kept := f.members[name].builder.Kept(); len(kept) > 0 {
			r := laststate.Quarantined{Gateway: name, Kind: resource.KindService}
			for _, k := range kept {
				r.Pinned = append(r.Pinned, body(k))
			}
			out = append(out, r)
		}
		stay := f.members[name].gateway.Policies()
		retiring := f.members[name].builder.Policies().Leaving
		for _, policy := range slices.Sorted(maps.Keys(retiring)) {
			if raw, err := (proto.MarshalOptions{Deterministic: true}).Marshal(retiring[policy]); err == nil && stay[policy] {
				out = append(out, laststate.Quarantined{
					Gateway: name, Kind: resource.KindAuthPolicy, Name: policy, Good: &laststate.Body{Bytes: raw},
				})
			}
		}
	}
	return out
}

func body(r *translate.Resource) laststate.Body {
	r = r.Anywhere()
	b := laststate.Body{
		Type: string(r.Type), Name: r.Name, Version: r.Version, Bytes: r.Body.GetValue(),
		Clusters: r.Clusters, Secrets: r.Secrets, Policies: r.Policies,
	}
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
		Key: translate.Key{Type: translate.Type(b.Type), Name: b.Name}, Version: b.Version, Clusters: b.Clusters,
		Secrets: b.Secrets, Policies: b.Policies,
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

// RestoreQuarantine takes the quarantine snapshot of the process before; call it after the last good state has been
// applied.
func (f *Fleet) RestoreQuarantine(all []laststate.Quarantined, now time.Time) {
	f.build.Lock()
	defer f.build.Unlock()
	byGateway := map[string][]ads.Quarantined{}
	policies := map[string]map[string]*configv1.AuthPolicy{}
	for _, r := range all {
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
		q := ads.Quarantined{
			Key: translate.Key{Type: translate.Type(r.Type), Name: r.Name}, Version: r.Version, Revision: r.Revision,
			Reason: r.Reason, GoodRevision: r.GoodRevision, Closed: r.Closed,
		}
		if r.Good != nil {
			q.Good = unpack(*r.Good)
		}
		for _, p := range r.Pinned {
			q.Pinned = append(q.Pinned, unpack(p))
		}
		byGateway[r.Gateway] = append(byGateway[r.Gateway], q)
	}
	for name, p := range policies {
		if m := f.members[name]; m != nil {
			with := m.builder.Policies()
			with.Leaving = maps.Clone(with.Leaving)
			maps.Copy(with.Leaving, p)
			f.buildPolicies(m, with)
		}
	}
	for name, quarantined := range byGateway {
		if m := f.members[name]; m != nil {
			m.gateway.Restore(quarantined, now)
		}
	}
	f.signal()
}
