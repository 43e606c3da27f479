package ads

import (
	"time"

	"github.com/marchproxy/marchproxy/pkg/translate"
)

// rules says what is special about one resource type. Whatever differs between types is said here and nowhere else:
// the table and the plans follow these fields and call these functions, and never compare a type themselves.
type rules struct {
	tableRules

	// wildcard types are always subscribed to as a whole. Resources of other types are asked for by name.
	wildcard bool
	// onDemand types are planned for an Envoy only once it has asked for a name: it may never ask for most of them.
	onDemand bool
	// window is how many responses may be in flight at once.
	window int
	// single has every resource travel in a response of its own. Envoy keeps the content of such a resource even where
	// it rejects it, and ACKs the same content when it comes again, without using it. The resource at fault can
	// therefore not be found by sending parts of a rejected response again.
	single bool
	// removal is how a resource that is no longer served leaves an Envoy.
	removal removal
	// absence is what an Envoy is answered that asks for a name without a resource.
	absence absence

	// usesClusters types name clusters: a version whose content is not known may use any of them.
	usesClusters bool
	// hasVariants types have variants that depend on what else the Envoy has, or on its seat.
	hasVariants bool

	// latest says whether an Envoy's bootstrap is such that it can be sent the resources as they are, and not their
	// variants for older bootstraps.
	latest func(p *plan) bool
	// waitedFor says whether the Envoy counts as behind while it lacks this version, which is nil for a removal.
	waitedFor func(p *plan, tp *typePlan, rec *record, version *translate.Resource) bool
	// mustWait keeps a changed resource back for now; nil where there is no reason to.
	mustWait func(p *plan, name string) bool
	// pick chooses the resources of the next response.
	pick func(p *plan, tp *typePlan, now time.Time) []item

	// The others are events; nil where nothing else has to be done.

	// changed: another version of a resource is served.
	changed func(p *plan, tp *typePlan, c *change)
	// firstRequest: the Envoy has sent its first request of the type; empty says that it has none of its resources.
	firstRequest func(p *plan, empty bool)
	// unsubscribed: the Envoy no longer asks for a resource.
	unsubscribed func(p *plan, tp *typePlan, e *entry)
	// sent: a resource is on its way; removalSent: the removal of one is.
	sent        func(p *plan, it item)
	removalSent func(p *plan, name string)
	// acked: the Envoy has ACKed a resource; adopted: it has said in initial_resource_versions that it has one.
	acked   func(p *plan, tp *typePlan, it item)
	adopted func(p *plan, name string)
	// removalRejected: the response with a removal was NACKed.
	removalRejected func(p *plan, name string)
	// rejected: the only resource of a response was NACKed.
	rejected func(p *plan, tp *typePlan, it item, reason string, now time.Time)
}

// removal is how a resource leaves an Envoy.
type removal int

const (
	// removedAtOnce: it is removed as soon as it is no longer served.
	removedAtOnce removal = iota
	// removedUnused: it is removed a while after nothing uses it any more, for the requests in flight.
	removedUnused
	// removedWithUser: the Envoy drops it by itself when it drops what names it.
	removedWithUser
)

// absence is the answer for a name that has no resource.
type absence int

const (
	// absentIfGone: there is no such resource. Nothing is said while there is one that cannot be served yet.
	absentIfGone absence = iota
	// absentAlways: the same, and also while there is one that cannot be served: an Envoy that hears nothing keeps its
	// listeners closed until the secret's initial_fetch_timeout.
	absentAlways
	// absentNever: nothing. It belongs to a cluster, and comes with it.
	absentNever
)

// secretWindow is how many responses with secrets are in flight at once.
const secretWindow = 128

// allRules lists the types in the order in which they are looked at for something to send.
var allRules = []*rules{
	{
		tableRules: tableRules{typ: translate.TypeRuntime},
		window:     1, removal: removedWithUser, latest: followsRuntime,
		waitedFor: waitedIfWanted, pick: (*plan).pickMany, rejected: (*plan).rejectOne,
	},
	{
		tableRules: tableRules{typ: translate.TypeCluster, blocks: true, hasSecrets: true},
		wildcard:   true, window: 1, removal: removedUnused, latest: followsRuntime,
		waitedFor: waitedCluster, mustWait: (*plan).waitsForEndpoints, pick: (*plan).pickMany,
		sent: (*plan).clusterSent, removalSent: (*plan).clusterRemovalSent, acked: (*plan).clusterAcked,
		adopted: (*plan).clusterArrived, removalRejected: (*plan).clusterRemovalRejected, rejected: (*plan).rejectOne,
	},
	{
		tableRules: tableRules{typ: translate.TypeEndpoint},
		window:     1, removal: removedWithUser, absence: absentNever, latest: followsRuntime,
		waitedFor: waitedEndpoints, pick: (*plan).pickMany, changed: (*plan).endpointsChanged,
		firstRequest: (*plan).clustersMayGoOn, unsubscribed: (*plan).endpointsUnsubscribed,
		acked: (*plan).clusterAcked, adopted: (*plan).clusterArrived, rejected: (*plan).rejectOne,
	},
	{
		tableRules: tableRules{typ: translate.TypeSecret, contentDecides: true},
		window:     secretWindow, onDemand: true, single: true, removal: removedWithUser, absence: absentAlways,
		latest: followsRuntime, waitedFor: waitedSecret, pick: (*plan).pickSecret, changed: (*plan).secretChanged,
		unsubscribed: (*plan).secretUnsubscribed, acked: (*plan).secretAcked, rejected: (*plan).rejectSecret,
	},
	{
		tableRules: tableRules{typ: translate.TypeExtension, blocks: true, blockable: true},
		window:     1, single: true, hasVariants: true, removal: removedWithUser, latest: takesEmptyFilters,
		waitedFor: waitedIfWanted, pick: (*plan).pickMany, changed: (*plan).filterConfigChanged, rejected: (*plan).rejectOne,
	},
	{
		tableRules: tableRules{typ: translate.TypeListener, blockable: true, hasSecrets: true},
		wildcard:   true, window: 1, usesClusters: true, latest: hasLogFile, waitedFor: waitedUnlessBlocked,
		pick: (*plan).pickMany, firstRequest: (*plan).listenersRequested, rejected: (*plan).rejectOne,
	},
	{
		tableRules: tableRules{typ: translate.TypeScope, blockable: true, perRoute: true},
		wildcard:   true, window: 1, usesClusters: true, latest: followsRuntime, waitedFor: waitedUnlessBlocked,
		pick: (*plan).pickMany, firstRequest: (*plan).clustersMayGoOn, rejected: (*plan).rejectOne,
	},
}

func followsRuntime(p *plan) bool    { return p.runtime }
func takesEmptyFilters(p *plan) bool { return p.emptyFilters }
func hasLogFile(p *plan) bool        { return p.runtime && p.logFile }
