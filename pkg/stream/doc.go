// Package stream is the configuration as events on NATS JetStream: what the api's relay publishes and
// every consumer replays.
//
// The stream holds the last messages of each resource's subject, so that it is a compacted table of the
// whole configuration and a feed of its changes at once. After the resources of a transaction comes its
// commit, which carries the count and hash of the state by kind. [Replay] collects resources and hands
// them over at a commit whose hash equals its own: a consumer sees only states that the database had.
// If the hashes stay unequal, because messages were lost or the stream was restored, it replays
// everything and hands over what differs from what it had handed over before. Until then the consumer
// keeps what it has.
//
//	start ─► replay (last message of each subject) ─► live ─► hash unequal, gap, purge, silence ─┐
//	              ▲                                                                            │
//	              └────────────────────────────────────────────────────────────────────────────┘
package stream
