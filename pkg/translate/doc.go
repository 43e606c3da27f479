// Package translate turns the configuration into what Envoys are told: listeners, scoped routes,
// clusters, endpoints and secrets. It asks neither clock nor network: what it needs from outside, addresses of DNS
// names and unsealed keys, comes in through [Options]. The same state gives the same bytes, but for what has to outlive
// the state that it belonged to: a service whose names have no address stays what it was, and a policy stays until no
// Envoy has a route that names it.
//
// Resources are made by functions of a view, which is a state as one gateway sees it, and of arguments. A [Builder] keeps
// the resources of one gateway, and decides which of them to make again: [Builder.Update] makes those that a change
// affects and nothing else. Where something depends on what Envoys have from before, that is an argument as well: the
// [Policies] that stay in the slots, and the last form of a service whose names have no address. Each resource is
// marshalled and hashed once for the whole fleet.
package translate
