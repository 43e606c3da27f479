package ads

import (
	"slices"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// An Envoy asks for a secret by the name that a client sends, whatever that is. A name that no certificate has is an
// alias of [translate.AnyName], and one in capitals or with a final dot of the same name without. Clients can make up
// such names without end: with more than [maxAliases] the oldest is taken back, so that neither the Envoy nor this
// server keeps more. Connections that were made under it stay.

// maxAliases is how many aliases an Envoy has at most.
const maxAliases = 64

// alias is a name that another secret's content is served under; sent says that it was.
type alias struct {
	name, of string
	sent     bool
}

// addAlias answers a request for a name that has no secret of its own.
func (p *plan) addAlias(tp *typePlan, name string) {
	r := p.t.standIn(name)
	tp.dropAlias(name)
	if r == nil {
		tp.absent = append(tp.absent, name)
		return
	}
	tp.aliases = append(tp.aliases, alias{name: name, of: r.Name})
	tp.aliasesDue = append(tp.aliasesDue, name)
	for len(tp.aliases) > maxAliases {
		tp.absent = append(tp.absent, tp.aliases[0].name)
		tp.aliases = tp.aliases[1:]
	}
}

// dropAlias forgets an alias.
func (tp *typePlan) dropAlias(name string) {
	if i := tp.aliased(name); i >= 0 {
		tp.aliases = slices.Delete(tp.aliases, i, i+1)
	}
}

// aliased is where a name is among the aliases, -1 where it is not.
func (tp *typePlan) aliased(name string) int {
	return slices.IndexFunc(tp.aliases, func(a alias) bool { return a.name == name })
}

// sendAlias is what is to be sent under an alias, and notes that it was; nil where there is nothing to send.
func (p *plan) sendAlias(tp *typePlan, name string) *translate.Resource {
	i := tp.aliased(name)
	if i < 0 || tp.aliases[i].sent || tp.aliasesSent[name] {
		return nil
	}
	tp.aliases[i].sent = true
	of := p.t.served(translate.Key{Type: tp.typ, Name: tp.aliases[i].of})
	var secret tlsv3.Secret
	if of == nil || of.Body.UnmarshalTo(&secret) != nil {
		tp.dropAlias(name)
		tp.absent = append(tp.absent, name)
		return nil
	}
	secret.Name = name
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(&secret)
	if err != nil {
		tp.absent = append(tp.absent, name) // a name that no message can hold
		return nil
	}
	out := *of
	out.Name, out.Body = name, &anypb.Any{TypeUrl: of.Body.GetTypeUrl(), Value: raw}
	return &out
}
