package ads

import (
	"slices"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// An Envoy asks for a secret by the name that a client sends, whatever that is. A name that no certificate has is
// given what [translate.AnyName] has, and one in capitals or with a final dot what the same name has without: by
// lease, for clients can make up such names without end. With more than [leases] of them the oldest is taken
// back, so that neither the Envoy nor this server keeps more. Connections that were made under it stay.

// leases is how many such names an Envoy has at most.
const leases = 64

// lease is a name that another secret's content is served under; sent says that it was.
type lease struct {
	name, of string
	sent     bool
}

// standIn is the secret that is served for a name that has none, nil where there is none.
func (g *Gateway) standIn(name string) *translate.Resource {
	plain := strings.ToLower(strings.TrimSuffix(name, "."))
	if r := g.effective(translate.Key{Type: translate.TypeSecret, Name: plain}); r != nil && r.ByName && plain != name {
		return r
	}
	return g.effective(translate.Key{Type: translate.TypeSecret, Name: translate.AnyName})
}

// lend answers a request for a name that has no secret.
func (s *stream) lend(ts *typeState, name string) {
	r := s.g.standIn(name)
	ts.unlend(name)
	if r == nil {
		ts.absent = append(ts.absent, name)
		return
	}
	ts.leases = append(ts.leases, lease{name: name, of: r.Name})
	ts.enqueue(name)
	for len(ts.leases) > leases {
		ts.absent = append(ts.absent, ts.leases[0].name)
		ts.leases = ts.leases[1:]
	}
}

// unlend forgets a lease.
func (ts *typeState) unlend(name string) {
	if i := ts.leased(name); i >= 0 {
		ts.leases = slices.Delete(ts.leases, i, i+1)
	}
}

func (ts *typeState) leased(name string) int {
	return slices.IndexFunc(ts.leases, func(l lease) bool { return l.name == name })
}

// lent is what is to be sent under a leased name, nil where it is not leased any more.
func (s *stream) lent(ts *typeState, name string) *translate.Resource {
	i := ts.leased(name)
	if i < 0 || ts.leases[i].sent || ts.flying[name] {
		return nil
	}
	ts.leases[i].sent = true
	of := s.g.effective(translate.Key{Type: translate.TypeSecret, Name: ts.leases[i].of})
	var secret tlsv3.Secret
	if of == nil || of.Body.UnmarshalTo(&secret) != nil {
		ts.leases = slices.Delete(ts.leases, i, i+1)
		ts.absent = append(ts.absent, name)
		return nil
	}
	secret.Name = name
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(&secret)
	if err != nil {
		ts.absent = append(ts.absent, name) // a name that no message can hold
		return nil
	}
	out := *of
	out.Name, out.Body = name, &anypb.Any{TypeUrl: of.Body.GetTypeUrl(), Value: raw}
	return &out
}

// changedSecret takes leases back that stand for what has changed, and those of a name that has its own secret
// now.
func (s *stream) changedSecret(ts *typeState, name string, revision int64) {
	ts.unlend(name)
	for i := len(ts.leases) - 1; i >= 0; i-- {
		if l := ts.leases[i]; l.of == name {
			ts.absent = append(ts.absent, l.name)
			ts.leases = slices.Delete(ts.leases, i, i+1)
		}
	}
	s.bring(ts, name, revision)
}

// bring has an Envoy ask for a secret that every Envoy is to have, where it does not because it was told before that
// there is none.
func (s *stream) bring(ts *typeState, name string, revision int64) {
	eff := s.effective(translate.Key{Type: translate.TypeSecret, Name: name})
	if eff == nil || !s.carried(eff) || !ts.subscribed || ts.wants(name) {
		return
	}
	clusters := s.types[translate.TypeCluster]
	carrier := translate.Key{Type: translate.TypeCluster, Name: eff.Carrier}
	if want := s.effective(carrier); want == nil || clusters.known[carrier.Name].version != want.Version || clusters.flying[carrier.Name] {
		return // it will ask
	}
	// It asks when the cluster comes, and only then; one that it has it does not take again.
	s.touch(carrier, revision)
	clusters.dirty[carrier.Name].anew = true
}

// carried says whether every Envoy asks for a secret before a client does.
func (s *stream) carried(r *translate.Resource) bool {
	if r.Carrier == "" || !s.types[translate.TypeCluster].subscribed {
		return false
	}
	e := s.g.entries[translate.TypeCluster][r.Carrier]
	return e != nil && e.desired != nil && !e.quarantined()
}
