// Package translate turns the configuration into what Envoys are told: listeners, scoped routes,
// clusters, endpoints and secrets. It asks neither clock nor network: what it needs from outside, addresses of DNS
// names and unsealed keys, comes in through [Options]. The same state gives the same bytes, but for what has to outlive
// the state that it belonged to: a service whose names have no address stays what it was, and a policy stays until no
// Envoy has a route that names it.
//
// Resources are made by functions of a view, which is a state as one gateway sees it, and of arguments. A [Builder]
// keeps the resources of one gateway, and decides which of them to make again: [Builder.Update] makes those that a
// change affects and nothing else. Where something depends on what Envoys have from before, that is an argument as
// well: the [Policies] that stay in the filter configs, and the last form of a service whose names have no address.
// Each resource is marshalled and hashed once for the whole fleet.
//
// # A policy in the ECDS filter configs of a gateway
//
//	                 a route of the gateway, or      ┌───────────────────────────┐
//	not there ──────────────────────────────────────►│           named           │
//	    ▲            the gateway, names it           │ as the configuration has  │
//	    │                                            │ it                        │
//	    │                                            └──┬─────────────────────▲──┘
//	    │                                no name of it, │                     │ it is named
//	    │                                or it is       │                     │ again, and of the
//	    │                                deleted        │                     │ same engine
//	    │ Update without it, a while later,          ┌──▼─────────────────────┴──┐
//	    │ unless a route that is served in           │          leaving          │
//	    └────────────────────────────────────────────┤ as it was last            │
//	      place of a rejected one names it           └───────────────────────────┘
//
// Envoys get the new routes and the new filter configs at different moments. A policy that went with its last route
// would be missing for the requests of an Envoy that still has this route, and they would be refused. So it leaves in
// two steps: [Builder.Policies] says what is leaving, and who calls [Builder.Update] says what stays. Of two engines, a
// policy that moves from one to the other leaves the first one.
package translate
