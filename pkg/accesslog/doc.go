// Package accesslog is the access log's live tail between an Envoy and the apis: what is said on NATS, which entries are
// asked for, and how whoever runs an Envoy has it tell of its requests while somebody watches.
//
// An api with somebody who watches says so each second ([Watch]). Who runs an Envoy ([Tail]) raises the share of the
// requests that its sleeping logger lets through, and publishes what comes ([Batch]). Nothing of this is stored: who was
// not there has missed it. A watch ends when the api says so, or [Lease] after it has said anything, so that an api that
// is killed, or a NATS that is away, leaves no Envoy telling.
//
//	          Watch                    a Watch, another share wanted
//	asleep ─────────► awake, share s ──────────────────────────────► awake, share s'
//	   ▲                   │
//	   └───────────────────┘ the last watch has ended: the runtime key is taken away
//
// An Envoy tells of as many requests as the watches allow, 500 a second at most: with more of them the share is lowered
// until the rest fits, and each entry says which share it is one of. What an Envoy cannot send at once it drops: no
// request waits for who watches.
package accesslog
