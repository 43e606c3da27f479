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
	ts.lent = append(ts.lent, name)
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

// loan is what is to be sent under a leased name, nil where it is not leased any more.
func (s *stream) loan(ts *typeState, name string) *translate.Resource {
	i := ts.leased(name)
	if i < 0 || ts.leases[i].sent || ts.lending[name] {
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
func (s *stream) changedSecret(ts *typeState, e *entry, revision int64) {
	ts.unlend(e.Name)
	for i := len(ts.leases) - 1; i >= 0; i-- {
		if l := ts.leases[i]; l.of == e.Name {
			ts.absent = append(ts.absent, l.name)
			ts.leases = slices.Delete(ts.leases, i, i+1)
		}
	}
	s.bring(e, revision)
}

// bring has an Envoy ask for a secret that every Envoy is to have, where it does not because it was told before that
// there is none.
func (s *stream) bring(e *entry, revision int64) {
	ts := s.types[translate.TypeSecret]
	if e.served == nil || !s.carried(e.served) || !ts.subscribed || ts.wants(e) {
		return
	}
	carrier := s.g.entries[translate.TypeCluster][e.served.Carrier]
	have := s.have(carrier)
	if carrier.served == nil || have == nil || have.Version != s.form(carrier.served).Version {
		return // it will ask
	}
	rec := s.record(carrier)
	if rec.flying {
		return // it will ask
	}
	// It asks when the cluster comes, and only then; one that it has it does not take again.
	s.mark(rec, revision)
	rec.anew = true
}

// carried says whether every Envoy asks for a secret before a client does.
func (s *stream) carried(r *translate.Resource) bool {
	if r.Carrier == "" || !s.types[translate.TypeCluster].subscribed {
		return false
	}
	e := s.g.entries[translate.TypeCluster][r.Carrier]
	return e != nil && e.desired != nil && !e.quarantined()
}
