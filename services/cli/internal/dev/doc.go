// Package dev runs the whole system on one machine: PostgreSQL, NATS, the api, the xDS server, Envoy and
// a demo backend, each a child process of its own, the same programs as in production.
//
// A child that dies is started again. Children are told to die with their parent, so that nothing is
// left behind however dev ends.
package dev
