// Package explain says what an Envoy of a gateway does with a request, without one: which listener and route take it,
// what each filter makes of it, and how it is answered or where it goes.
//
// It reads Envoy's own messages, which [translate.Around] makes as those are made that Envoys get, and follows Envoy's
// rules on them, so that there is no second reading of the configuration beside the translator's. Where a filter of ours
// decides, the filter's own code does. `make check-explain` holds the whole against a real Envoy.
//
//	     headers ──► path ──► host ──► scope ──► route ──► filters, in the listener's order ──► route's action
//	        │          │        │                              │
//	400, 431 ◄┘   307, 400 ◄┘  400 ◄┘              402, 401, 403, 421, 503 ◄┘
//
// What it does not know: whether services answer, whether a limit is used up, and what a token is worth that is signed
// with a public key, for Envoy's own filter judges those. It looks at requests in HTTP/1.1, without a body.
package explain
