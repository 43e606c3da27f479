// Package ads serves Envoys by the delta aggregated discovery service.
//
// A [Gateway] holds the resources of one fleet; each Envoy of it is a stream. Changes are a log that
// every stream follows at its own pace: it marks dirty what its Envoy now lacks, with the revision that changed it,
// and sends what it may as soon as it may:
//
//	Cluster ─► Endpoint ─► (both ACKed) ─► Listener, Scope ─► (ACKed, nobody left that uses it) ─► removal of Cluster
//
// The order is kept per resource, not per type: a route waits for the clusters that it sends traffic
// to and for no others, so that a service whose name does not resolve delays nobody else. A cluster
// stays until the last route or listener that an Envoy might still hold has left it, and a while longer
// for the requests in flight.
//
// One response of a type is in flight at a time. Its ACK makes every resource in it known good for the
// whole gateway. Its NACK names no culprit, or does so in prose: a response with one resource is judged
// by it, a larger one is sent again in halves until the culprits stand alone. A refused version is
// never sent again among others; the last good version of that one resource stays, with all
// that it relies on, what relies on the refused version waits, and the objects that were changed since are
// reported with Envoy's text.
//
// Secrets go each alone, several at once, and are judged by their content: see secret.go.
//
// What a stream keeps of its Envoy is what differs: that it has what is served is one bit for each resource, and
// a [record] says what else it has, what is on its way and what waits for what. What has to wait is not looked at again
// before that for which it waits has come, so that a message costs what it changes, whatever there is. An Envoy that
// lacks much, because it comes or because much has changed, gets its turn: see intake.go.
//
// An Envoy has applied a revision when it has ACKed every resource that the revision changed, or a
// later version of it. An ACK is sent after the new routes were posted to every worker, and a worker
// runs what was posted before it reads a request that arrived later; so after the ACK no request sees
// the old behaviour. `make check-live` proves it.
package ads
