// Package translate turns the configuration into what Envoys are told: listeners, scoped routes,
// clusters, endpoints and secrets. It is pure: the same state gives the same bytes, and neither clock
// nor network is asked. What it needs from outside, addresses of DNS names and unsealed keys, comes in
// through [Options].
//
// A [Builder] keeps the resources of one gateway. [Builder.Update] rebuilds what a change affects and
// nothing else; each resource is marshalled and hashed once for the whole fleet.
package translate
