// Package ads serves Envoys by the delta aggregated discovery service (ADS).
//
// # Layers
//
// A [Gateway] serves the resources of one fleet of Envoys. It has three layers, of which each knows only those below
// it:
//
//	┌────────────────────────────────────────────────────────────────────┐
//	│ Transport: Gateway, deltaStream, Server (all other files)          │
//	│ gRPC streams, the lock, who may connect, reports, encoding         │
//	└───────┬───────────────────────────────────────────────▲────────────┘
//	        │ request                                       │ response
//	┌───────▼───────────────────────────────────────────────┴────────────┐
//	│ plan, one for each stream (plan*.go, rules.go)                     │
//	│ what one Envoy has, and what may be sent to it now                 │
//	└───────┬───────────────────────────────────────────────▲────────────┘
//	        │ ACK, NACK                                     │ log of changes
//	┌───────▼───────────────────────────────────────────────┴────────────┐
//	│ table, one for each gateway (table*.go)                            │
//	│ what all Envoys should have, which versions are good, quarantine   │
//	└────────────────────────────────────────────────────────────────────┘
//
// The table and the plans have no lock and do no I/O; they belong to the gateway's lock. The table adds what it
// serves otherwise to a log, which every plan follows at its own pace. What differs between resource types is said in
// rules.go.
//
// # Order
//
// What may be sent when follows from what the Envoy has ACKed:
//
//	Cluster ─► Endpoint ─► (both ACKed) ─► Listener, Scope ─► (ACKed, nothing uses it any more) ─► removal of Cluster
//
// The order is kept for each resource and not for each type: a route waits for the clusters that it sends traffic to
// and for no others, so that a service whose name does not resolve delays nobody else. A cluster stays until the last
// route or listener that an Envoy might still have has left it, and a while longer for the requests in flight.
//
// # A resource in the table
//
//	          new version                    ┌──────────────────┐
//	┌───────────────────────────────────────►│     unproven     │
//	│                                        │ it is served     │
//	│                                        └──┬────────────┬──┘
//	│                           first ACK of it │            │ NACK
//	│  ┌──────────────────┐◄────────────────────┘            │
//	├──┤      proven      │                                  │
//	│  │ it is served     │   NACK by another Envoy          │
//	│  │                  ├───────────────────────────────┐  │
//	│  └────────────▲─────┘                               │  │
//	│               │ ACK, when it is tried again        ┌▼──▼──────────────┐
//	│               └────────────────────────────────────┤     rejected     │
//	│                                                    │ the last good    │
//	├────────────────────────────────────────────────────┤ one is served    │
//	│                                                    └──────────────────┘
//	│  ┌──────────────────┐  a cluster or filter config that it relies on is rejected
//	└──┤    held back     │◄─────────────── unproven
//	   │ the last good    │
//	   │ one is served    ├───────────────► unproven, when that is corrected
//	   └──────────────────┘
//
// A version is identified by a digest of its content. One that an Envoy has ACKed is proven for the whole gateway. A
// NACK names no culprit, or does so in prose: a response with one resource is judged by it, a larger one is sent
// again in parts until the culprits are alone. A rejected version is never sent again among others. Rejected and held
// back versions are quarantined: the last good version of that one resource is served, with all that it relies on
// (which is pinned), and the objects that were changed since are reported with Envoy's text. An ECDS filter config is
// not rejected as a whole where only some of its policies are at fault: see table_bisect.go.
//
// # A resource on one stream
//
// A plan keeps one bit for each resource that its Envoy has as it is served. All others have a [record]:
//
//	┌──────────────────┐  another version is served   ┌───────────────────────────┐
//	│     current      ├─────────────────────────────►│          pending          │
//	│ one bit          │                              │ queued, or waits for:     │
//	└──▲───────────────┘                              │  a cluster's ACK          │
//	   │ ACK of what is served                        │  a filter config's ACK    │
//	   │                                              │  an answer of this type   │
//	┌──┴───────────────┐           it may be sent     │  the end of its lingering │
//	│     in flight    │◄─────────────────────────────┤                           │
//	│                  ├─────────────────────────────►│                           │
//	└──────────────────┘  NACK; or ACK of a version   └───────────────────────────┘
//	                      that is served no longer
//
// A resource that has to wait is listed at what it waits for, and looked at again only when that has come. So a message
// costs what it changes, however many resources wait. One response of a type is in flight at a time; secrets go each
// alone, several at once, and are judged by their content (see plan_secret.go). An Envoy that lacks much, because it
// comes or because much has changed, waits for its turn to catch up: see catchup.go.
//
// # Which variant an Envoy gets
//
// Some resources have variants, which differ in what they ask of an Envoy. [plan.variant] chooses, in this order:
//
//	the Envoy has no seat under the license             ─► the variant for Envoys over the limit
//	it may have routes that set something per route     ─► the variant that reads what routes say
//	its bootstrap is older than what the resource needs ─► the plain variant
//	it says where it is, and that matters to endpoints  ─► the endpoints for that place
//	otherwise                                           ─► the resource itself
//
// # When a revision is applied
//
// An Envoy has applied a revision when it has ACKed every resource that the revision changed, or a later version of
// it. An ACK is sent after the new routes were posted to every worker, and a worker runs what was posted before it
// reads a request that arrived later; so after the ACK no request sees the old behaviour. `make check-live` proves
// it.
package ads
