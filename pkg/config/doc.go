// Package config is the whole configuration in memory, with what a change has to be checked against:
// references between objects, and routes that serve the same host by the same match.
//
// A [State] has no lock: one goroutine owns it. [State.Apply] costs what the change costs, not what the
// state holds, and returns its own undo, so that a writer can try a change, check it and take it back.
package config
