// Package envoy keeps an Envoy running: it renders its bootstrap, starts it again with back-off when it
// ends, says in one line why it is not ready, and drains it before it is stopped.
package envoy
